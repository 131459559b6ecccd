"""The clip of `train_step.py`: as pixels and words, and encoded."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor
from wan_encoders import PROMPT_TOKENS, OnlineEncoders

from regen_train.encoders import add_reference, pack_context
from regen_train.schema import MAX_PROMPT_TOKENS, Batch, Bucket, Geometry


@dataclass(frozen=True)
class RawClip:
    """What a trainer that encodes online reads.

    Args:
        video: The clip.
        condition: The condition video.
        ids: The prompt's tokens.
        mask: 1 where there is a token.
    """

    video: Float[Tensor, "1 3 t H W"]
    condition: Float[Tensor, "1 3 t H W"]
    ids: Int[Tensor, "1 l"]
    mask: Int[Tensor, "1 l"]


@dataclass(frozen=True)
class Clip:
    """The same, encoded, with the draws of a step.

    Args:
        batch: As the loader delivers it.
        noise: One latent frame more than the clip, for the reference.
        sigma: Noise level.
        geometry: The model's.
    """

    batch: Batch
    noise: Float[Tensor, "1 c g h w"]
    sigma: Float[Tensor, " 1"]
    geometry: Geometry

    def with_reference(self) -> tuple[Tensor, Tensor]:
        """Return latents and context with the reference frame before them."""
        batch = self.batch
        joined = add_reference(batch.latents, batch.vace_context, batch.reference, self.geometry)
        return joined.latents, joined.vace_context


def draw_clip(bucket: Bucket, encoders: OnlineEncoders, device: str) -> RawClip:
    """Draw a clip of noise and a prompt of random words."""
    generator = torch.Generator().manual_seed(0)
    shape = (1, 3, bucket.num_frames, bucket.height, bucket.width)
    video, condition = (2 * torch.rand(shape, generator=generator) - 1 for _ in range(2))
    ids = torch.randint(5, encoders.text.config.vocab_size, (1, MAX_PROMPT_TOKENS), generator=generator)
    mask = (torch.arange(MAX_PROMPT_TOKENS) < PROMPT_TOKENS)[None].long()
    return RawClip(*(tensor.to(device) for tensor in (video, condition, ids * mask, mask)))


def encode_clip(raw: RawClip, encoders: OnlineEncoders, bucket: Bucket, geometry: Geometry) -> Clip:
    """Encode clip, condition, reference and prompt; draw noise and noise level, the same each time."""
    latents, reactive, inactive, reference = (
        encoders.encode_video(pixels)
        for pixels in (raw.video, raw.condition, torch.zeros_like(raw.condition), raw.condition[:, :, :1])
    )
    _, channels, frames, height, width = latents.shape
    repaint = latents.new_ones(1, geometry.mask_channels, frames, height, width)
    batch = Batch(
        keys=("clip",),
        numbers=(0,),
        variants=("structhuman",),
        bucket=bucket,
        latents=latents,
        vace_context=pack_context(reactive, inactive, repaint),
        reference=reference,
        use_reference=torch.tensor([True]),
        human_coverage=torch.zeros(1, frames, height, width, device=latents.device),
        prompt_embeds=encoders.encode_prompts(raw.ids, raw.mask),
        weight=torch.ones(1, device=latents.device),
    )
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(1, channels, frames + 1, height, width, generator=generator)
    return Clip(batch, noise.to(latents.device), torch.full((1,), 0.6, device=latents.device), geometry)


def redraw(clip: Clip, seed: int) -> Clip:
    """Return the clip with other noise at another noise level."""
    generator = torch.Generator().manual_seed(seed)
    noise, sigma = torch.randn(clip.noise.shape, generator=generator), torch.rand(1, generator=generator)
    return replace(clip, noise=noise.to(clip.noise.device), sigma=sigma.to(clip.sigma.device))


def precision(dtype: str, device: str) -> AbstractContextManager[None]:
    """Return what lets fp32 factors stand beside a bf16 base."""
    return torch.autocast(device, dtype=torch.bfloat16) if dtype == "bf16" else nullcontext()
