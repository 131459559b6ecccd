"""diffusers' own WanVACEPipeline on our weights and schedule, its denoising loop timed alone."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, WanVACEPipeline
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from regen_train.draws import generator_for
from regen_train.encoders import pad_prompts
from regen_train.flow import sigma_schedule
from regen_train.model import WanVace
from regen_train.pretrained import DTYPES, Precision, resolve_folder
from regen_train.sampling import SamplingSettings


@dataclass(frozen=True)
class Sampled:
    """A clip of the pipeline.

    Args:
        latents: Of the clip.
        seconds: Of the denoising loop, encoding left out.
        processor_seconds: The same, of this process on the CPU.
    """

    latents: Float[Tensor, "1 c f h w"]
    seconds: float
    processor_seconds: float


class TimedPipeline:
    """Samples as diffusers does.

    Args:
        pretrained: The pipeline.
        model: Its weights are taken, the LoRA merged; None for the pipeline's own.
        dtype: Precision of the transformer; the VAE runs in fp32.
        device: Where it runs.
    """

    def __init__(self, pretrained: str, model: WanVace | None, *, dtype: Precision, device: str) -> None:
        folder = resolve_folder(pretrained, revision=None, parts=("transformer", "vae", "scheduler")).path
        kinds = {"transformer": DTYPES[dtype], "default": torch.float32}
        given: Any = {"text_encoder": None, "tokenizer": None, "local_files_only": True}
        self.pipeline: Any = WanVACEPipeline.from_pretrained(folder, dtype=kinds, **given).to(device)
        # diffusers counts the VAE's downsamplings, not the pixels it folds before them
        self.pipeline.vae_scale_factor_spatial = self.pipeline.vae.config.scale_factor_spatial
        self.pipeline.progress_bar = self._clock
        if model is not None and model.lora is not None:
            self.pipeline.transformer.load_state_dict(model.merged_state(DTYPES[dtype]))
        self._seconds = (0.0, 0.0)

    def __call__(
        self,
        condition: UInt8[Tensor, "t h w 3"],
        prompt_embeds: Float[Tensor, "1 l d"],
        negative_prompt_embeds: Float[Tensor, "1 m d"],
        settings: SamplingSettings,
        *,
        seed: int = 0,
    ) -> Sampled:
        """Sample a clip from the noise that `generate` draws from the seed, and on its schedule."""
        frames, height, width, _ = condition.shape
        self.pipeline.scheduler = _scheduler(settings)
        device = self.pipeline.device
        channels = self.pipeline.transformer.config.in_channels
        factors = self.pipeline.vae_scale_factor_temporal, self.pipeline.vae_scale_factor_spatial
        shape = (channels, (frames - 1) // factors[0] + 1, height // factors[1], width // factors[1])
        noise = torch.randn(shape, generator=generator_for(seed, 0, "sampling_noise"))
        latents = self.pipeline(
            video=[Image.fromarray(frame.numpy()) for frame in condition],
            mask=[Image.new("L", (width, height), 255)] * frames,
            prompt_embeds=pad_prompts(prompt_embeds.unbind()).to(device),
            negative_prompt_embeds=pad_prompts(negative_prompt_embeds.unbind()).to(device),
            height=height,
            width=width,
            num_frames=frames,
            num_inference_steps=settings.num_inference_steps,
            guidance_scale=settings.guidance_scale,
            latents=noise[None].to(device),
            output_type="latent",
        ).frames
        return Sampled(latents, *self._seconds)

    @contextmanager
    def _clock(self, total: int) -> Iterator[Any]:
        """Stand in the place of the pipeline's progress bar, which lies around its loop."""
        since = time.perf_counter(), time.process_time()
        yield _NoBar()
        if self.pipeline.device.type == "cuda":
            torch.cuda.synchronize(self.pipeline.device)
        self._seconds = time.perf_counter() - since[0], time.process_time() - since[1]


class _NoBar:
    def update(self) -> None:
        """Show nothing."""


class _Euler(FlowMatchEulerDiscreteScheduler):  # type: ignore[misc]
    own_shift = 1.0

    def set_timesteps(self, num_inference_steps: int, device: Any = None) -> None:
        sigmas = sigma_schedule(num_inference_steps, self.own_shift)[:-1].tolist()
        super().set_timesteps(sigmas=sigmas, device=device)


def _scheduler(settings: SamplingSettings) -> Any:
    if settings.solver != "euler":
        raise ValueError(f"the pipeline is timed with solver euler, got {settings.solver}")
    scheduler = _Euler()
    scheduler.own_shift = settings.effective_shift
    return scheduler
