"""From a composed window to a sample: latents, coverage, and what its json states."""

from collections.abc import Mapping
from typing import Any

import torch
from einops import reduce
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from regen_train.conditions import ComposedClip
from regen_train.encoders import NEGATIVE_PROMPT, WanEncoders
from regen_train.preparation.settings import DatasetSettings
from regen_train.schema import Bucket, Geometry, Sample
from regen_train.shards import Constants


def encode_window(
    clip: ComposedClip,
    prompt_embeds: Float[Tensor, "l d"],
    encoders: WanEncoders,
    settings: DatasetSettings,
    *,
    key: str,
    info: Mapping[str, Any],
) -> Sample:
    """Encode one window of a clip.

    Args:
        clip: What `compose_clip` gave.
        prompt_embeds: The caption's embedding.
        encoders: VAE of the model to be trained.
        settings: Of the dataset.
        key: Names the sample.
        info: What the sample's json shall state.
    """
    vace_mask = clip.mask if settings.vace_mask == "human" else None
    return Sample(
        key=key,
        bucket=Bucket(*clip.frames.shape[:3]),
        latents=encoders.encode_video(clip.frames),
        conditions={name: encoders.encode_condition(video, vace_mask) for name, video in clip.conditions.items()},
        human_coverage=latent_coverage(clip.mask, encoders.geometry),
        prompt_embeds=prompt_embeds,
        info=info,
    )


def encode_constants(buckets: set[Bucket], encoders: WanEncoders) -> Constants:
    """Encode what all samples share: the inactive latents of each bucket, the empty and the negative prompt."""
    empty, negative = encoders.encode_prompts(["", NEGATIVE_PROMPT])
    inactive = {bucket: encoders.inactive_constant(bucket) for bucket in sorted(buckets)}
    return Constants(inactive=inactive, empty_prompt=empty, negative_prompt=negative)


def latent_coverage(mask: Bool[Tensor, "t H W"], geometry: Geometry) -> UInt8[Tensor, "f h w"]:
    """Return the share of human pixels of every latent cell, 0 to 255.

    The first frame has latent cells of its own, every further group of ``temporal_factor`` frames shares one.
    """
    factor, share = geometry.spatial_factor, mask.float()
    first = reduce(share[:1], "t (h p) (w q) -> t h w", "mean", p=factor, q=factor)
    steps = {"s": geometry.temporal_factor, "p": factor, "q": factor}
    rest = reduce(share[1:], "(f s) (h p) (w q) -> f h w", "mean", **steps)
    return torch.cat([first, rest]).mul(255).round().to(torch.uint8)
