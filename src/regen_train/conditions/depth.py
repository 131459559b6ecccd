"""Depth as a picture, on a scale that people have no part in."""

import math
from typing import Literal

import torch
from einops import repeat
from jaxtyping import Shaped, UInt8
from torch import Tensor

from regen_train.conditions.checks import check_tensors
from regen_train.conditions.masks import GRAY, fill_people

DepthFill = Literal["gray", "depth_mean"]
DepthMode = Literal["clip", "frame"]


def normalize_depth(
    depth: Shaped[Tensor, "..."], mask: Shaped[Tensor, "..."], mode: DepthMode = "clip"
) -> UInt8[Tensor, "t h w"]:
    """Bring inverse depth to 0 (farthest background) to 255 (nearest background), as VACE was trained on.

    The scale is that of pixels outside the mask alone: with people in it, moving one changes the whole background.
    Values under the mask are clipped to it. Where nothing is outside, the result is gray (128).

    Args:
        depth: Inverse depth, near = large, any unit: uint8, uint16 or float [t, h, w].
        mask: Where people are, bool [t, h, w].
        mode: ``clip`` takes one scale for the clip, which does not flicker; ``frame`` one a frame, as the release.

    Raises:
        ValueError: An argument has the wrong type or shape, or depth is not finite; names all faults.

    Source: VACE, ``annotators/depth.py``: (d - min) / max to 0..255, cut off, not rounded.
    """
    check_tensors({"depth": (depth, "raw depth"), "mask": (mask, "mask")})
    if mode not in ("clip", "frame"):
        raise ValueError(f"mode must be 'clip' or 'frame', got {mode!r}")
    if not len(depth):
        return torch.empty(depth.shape, dtype=torch.uint8, device=depth.device)
    limits = [_limits(frame, human) for frame, human in zip(depth, mask, strict=True)]
    if mode == "clip":
        low, high = min(low for low, _ in limits), max(high for _, high in limits)
        limits = [(low, high)] * len(limits)
    scaled = [_scale(frame, low, high) for frame, (low, high) in zip(depth, limits, strict=True)]
    return torch.stack(scaled)


def depth_without_people(
    depth: Shaped[Tensor, "..."], mask: Shaped[Tensor, "..."], fill: DepthFill = "gray"
) -> UInt8[Tensor, "t h w 3"]:
    """Return the depth condition: depth as three equal channels with people filled. Arguments as in `struct_all`."""
    check_tensors({"depth": (depth, "depth"), "mask": (mask, "mask")})
    if fill not in ("gray", "depth_mean"):
        raise ValueError(f"fill must be 'gray' or 'depth_mean', got {fill!r}")
    if depth.ndim == 3:
        depth = repeat(depth, "t h w -> t h w c", c=3)
    return fill_people(depth, mask, "background_mean" if fill == "depth_mean" else fill)


def _limits(depth: Tensor, human: Tensor) -> tuple[float, float]:
    background = _real(depth)[~human]
    if not len(background):
        return math.inf, -math.inf
    return float(background.min()), float(background.max())


def _scale(depth: Tensor, low: float, high: float) -> Tensor:
    if low > high:
        return torch.full(depth.shape, GRAY, dtype=torch.uint8, device=depth.device)
    scaled = (_real(depth) - low) / max(high - low, 1e-12)
    return (scaled.clamp(0, 1) * 255).to(torch.uint8)


def _real(depth: Tensor) -> Tensor:
    """Float64 holds every depth type exactly; torch knows little arithmetic on uint16."""
    return depth.to(torch.float64)
