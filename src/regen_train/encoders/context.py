"""The VACE context: inactive and reactive latents and the folded mask, and the reference frame before the clip."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from einops import pack, rearrange
from jaxtyping import Bool, Float
from torch import Tensor

from regen_train.schema import MAX_PROMPT_TOKENS, Geometry


@dataclass(frozen=True)
class WithReference:
    """A clip with its reference frame put before it, one latent frame longer.

    Args:
        latents: Reference latent, then the clip's.
        vace_context: The reference's context, then the clip's.
    """

    latents: Float[Tensor, "b c f h w"]
    vace_context: Float[Tensor, "b k f h w"]


def fold_mask(mask: Bool[Tensor, "t H W"], geometry: Geometry) -> Bool[Tensor, "k f h w"]:
    """Fold a VACE mask to latent size without losing a pixel: one channel per pixel of a latent cell.

    Along time one frame stands for each latent frame, the nearest one by frame centres.

    Args:
        mask: True where the model is to repaint.
        geometry: The factors.

    Returns:
        The folded mask, k = spatial factor squared.

    Raises:
        ValueError: The mask's shape does not fit the geometry.

    Source: Jiang et al. 2025, "VACE", arXiv 2503.07598; `vace_encode_masks` of its code, "nearest-exact".
    """
    num_frames, height, width = mask.shape
    factor = geometry.spatial_factor
    if height % factor or width % factor:
        raise ValueError(f"a mask's height and width must be multiples of {factor}, got {height}x{width}")
    frames = (num_frames - 1) // geometry.temporal_factor + 1
    # floor((i + 1/2) t / f) in integers.
    nearest = [(2 * index + 1) * num_frames // (2 * frames) for index in range(frames)]
    return rearrange(mask[nearest], "f (h p) (w q) -> (p q) f h w", p=factor, q=factor)


def pack_context(
    reactive: Float[Tensor, "b c f h w"],
    inactive: Float[Tensor, "b c f h w"],
    mask: Bool[Tensor, "b m f h w"] | Float[Tensor, "b m f h w"],
) -> Float[Tensor, "b k f h w"]:
    """Join a batch's context channels in VACE's order: inactive, reactive, mask."""
    packed, _ = pack([inactive, reactive, mask.to(reactive.dtype)], "b * f h w")
    return packed


def add_reference(
    latents: Float[Tensor, "b c f h w"],
    vace_context: Float[Tensor, "b k f h w"],
    reference: Float[Tensor, "b c 1 h w"],
    geometry: Geometry,
) -> WithReference:
    """Put the reference frame before the clip, in the latents and in the context.

    Args:
        latents: The clip's.
        vace_context: The clip's.
        reference: Latent of the reference frame.
        geometry: The channels.
    """
    joined, _ = pack([reference.to(latents.dtype), latents], "b c * h w")
    return WithReference(joined, add_reference_context(vace_context, reference, geometry))


def add_reference_context(
    vace_context: Float[Tensor, "b k f h w"], reference: Float[Tensor, "b c 1 h w"], geometry: Geometry
) -> Float[Tensor, "b k g h w"]:
    """Put the reference frame's context before the clip's: the reference as inactive latents, the rest zero.

    Source: Jiang et al. 2025, "VACE", arXiv 2503.07598; `vace_encode_frames` and `vace_encode_masks` of its code.

    Raises:
        ValueError: Channels are not those of the geometry.
    """
    got = (reference.shape[1], vace_context.shape[1])
    expected = (geometry.latent_channels, geometry.context_channels)
    if got != expected:
        raise ValueError(f"reference and vace_context must have {expected} channels, got {got}")
    frame = torch.zeros_like(vace_context[:, :, :1])
    frame[:, : geometry.latent_channels] = reference.to(frame.dtype)
    joined, _ = pack([frame, vace_context], "b k * h w")
    return joined


def pad_prompts(
    prompt_embeds: Sequence[Float[Tensor, "_ d"]], *, length: int = MAX_PROMPT_TOKENS
) -> Float[Tensor, "b l d"]:
    """Batch prompt embeddings by padding them with zeros to the length that Wan was trained with.

    Raises:
        ValueError: A prompt has more tokens than ``length``.
    """
    longest = max(embeds.shape[0] for embeds in prompt_embeds)
    if longest > length:
        raise ValueError(f"a prompt has {longest} tokens, more than {length}")
    first = prompt_embeds[0]
    padded = first.new_zeros(len(prompt_embeds), length, first.shape[1])
    for row, embeds in zip(padded, prompt_embeds, strict=True):
        row[: embeds.shape[0]] = embeds
    return padded
