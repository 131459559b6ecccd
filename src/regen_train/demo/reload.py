"""The exported LoRA in diffusers' own pipeline: does it sample what ours samples?"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from regen_train.anonymize import Painter, load_painter
from regen_train.encoders import fold_mask, pack_context
from regen_train.pretrained import resolve_folder
from regen_train.sampling import SamplingSettings, generate
from regen_train.schema import Bucket, Geometry

LORA_FILE = "pytorch_lora_weights.safetensors"
_SETTINGS = SamplingSettings(solver="unipc", num_inference_steps=4)
_PIPELINE = ("model_index.json", "scheduler", "text_encoder", "tokenizer", "transformer", "vae")
_AGREEMENT = 1e-3
"""Latents have a spread of about 1; two implementations differ by rounding."""


@dataclass(frozen=True)
class Reloaded:
    """How far latents are apart, at most.

    Args:
        difference: diffusers with the exported LoRA, and ours with the same.
        effect: Ours with the LoRA, and without.
    """

    difference: float
    effect: float


def reload_in_diffusers(pretrained: str, lora: Path, frames: UInt8[Tensor, "t h w 3"], prompts: list[str]) -> Reloaded:
    """Sample one clip with `WanVACEPipeline` and with ours, from the same noise.

    Args:
        pretrained: The base model.
        lora: A folder that an export wrote.
        frames: A condition video.
        prompts: The prompt, and the negative prompt.

    Raises:
        RuntimeError: diffusers samples another video.
    """
    painter = load_painter(pretrained, None, dtype="fp32")
    noise = torch.randn(
        1, *painter.geometry.latent_shape(Bucket(*frames.shape[:3])), generator=torch.Generator().manual_seed(0)
    )
    base = _sample(painter, frames, prompts, noise)
    ours = _sample(load_painter(pretrained, str(lora), dtype="fp32"), frames, prompts, noise)
    pipeline = _pipeline(pretrained, lora, painter.geometry)
    theirs = _sample_with_diffusers(pipeline, frames, prompts, noise)
    difference, effect = float((ours - theirs).abs().max()), float((ours - base).abs().max())
    if not difference < _AGREEMENT:
        raise RuntimeError(f"diffusers samples another video from the exported LoRA: {difference:.1e} apart")
    return Reloaded(difference, effect)


def _sample(
    painter: Painter, frames: UInt8[Tensor, "t h w 3"], prompts: list[str], noise: Float[Tensor, "1 c f i j"]
) -> Float[Tensor, "1 c f i j"]:
    """Sample without a reference image, which the pipeline would want as a picture of its own."""
    encoders = painter.encoders
    bucket = Bucket(*frames.shape[:3])
    everywhere = fold_mask(torch.ones(frames.shape[:3], dtype=torch.bool), encoders.geometry)[None]
    reactive = encoders.encode_condition(frames).reactive[None]
    prompt, negative = encoders.encode_prompts(prompts)
    return generate(
        painter.model,
        vace_context=pack_context(reactive, encoders.inactive_constant(bucket)[None], everywhere),
        prompt_embeds=prompt[None],
        negative_prompt_embeds=negative[None],
        noise=noise,
        settings=_SETTINGS,
    )


def _pipeline(pretrained: str, lora: Path, geometry: Geometry) -> Any:
    """Load diffusers' pipeline, and the exported LoRA by its own means."""
    from diffusers import UniPCMultistepScheduler, WanVACEPipeline
    from diffusers.video_processor import VideoProcessor

    folder = resolve_folder(pretrained, revision=None, parts=_PIPELINE).path
    pipeline = WanVACEPipeline.from_pretrained(folder, dtype=torch.float32)
    pipeline.scheduler = UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=_SETTINGS.effective_shift
    )
    # It counts the VAE's halvings, and misses those of pixels folded before the first layer, as in Wan 2.2's VAE.
    pipeline.vae_scale_factor_spatial = geometry.spatial_factor
    pipeline.video_processor = VideoProcessor(vae_scale_factor=geometry.spatial_factor)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.load_lora_weights(lora, weight_name=LORA_FILE)
    return pipeline


def _sample_with_diffusers(
    pipeline: Any, frames: UInt8[Tensor, "t h w 3"], prompts: list[str], noise: Float[Tensor, "1 c f i j"]
) -> Float[Tensor, "1 c f i j"]:
    from PIL import Image

    images = [Image.fromarray(frame) for frame in frames.numpy()]
    sampled = pipeline(
        video=images,
        mask=[Image.new("L", image.size, 255) for image in images],
        prompt=prompts[0],
        negative_prompt=prompts[1],
        height=frames.shape[1],
        width=frames.shape[2],
        num_frames=frames.shape[0],
        num_inference_steps=_SETTINGS.num_inference_steps,
        guidance_scale=_SETTINGS.guidance_scale,
        latents=noise,
        output_type="latent",
    )
    latents: Tensor = sampled.frames
    return latents
