"""From a source picture to the model's size: cover, then crop the middle; pictures, masks and points agree."""

from dataclasses import dataclass
from functools import lru_cache

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Shaped, UInt8
from torch import Tensor

_CHUNK = 8
"""Frames resized at once; bounds the memory of a long clip."""

_CUBIC_SUPPORT = 2.0
"""Half-width of the cubic filter, in pixels of the coarser of the two grids."""


@dataclass(frozen=True)
class CropPlan:
    """One affine map for everything that belongs to a clip. All values in pixels.

    Args:
        source: Height and width of the source.
        resized: Height and width after resizing; covers the target.
        offset: Rows and columns cut off at the top and left of the resized picture.
        target: Height and width of the result.
    """

    source: tuple[int, int]
    resized: tuple[int, int]
    offset: tuple[int, int]
    target: tuple[int, int]

    @property
    def scale(self) -> float:
        """Target pixels per source pixel; line widths grow by the same factor."""
        return max(self.resized[0] / self.source[0], self.resized[1] / self.source[1])


def plan_crop(source_height: int, source_width: int, height: int, width: int) -> CropPlan:
    """Plan to cover height x width with the source, keeping its proportions, and to cut the middle.

    Raises:
        ValueError: A size is not positive; names all that are not.
    """
    sizes = {"source_height": source_height, "source_width": source_width, "height": height, "width": width}
    faults = [f"{name} must be at least 1 pixel, got {value}" for name, value in sizes.items() if value < 1]
    if faults:
        raise ValueError("; ".join(faults))
    scale = max(height / source_height, width / source_width)
    resized = max(height, round(source_height * scale)), max(width, round(source_width * scale))
    offset = (resized[0] - height) // 2, (resized[1] - width) // 2
    return CropPlan(source=(source_height, source_width), resized=resized, offset=offset, target=(height, width))


def resize_and_crop(frames: UInt8[Tensor, "t h w 3"], height: int, width: int) -> UInt8[Tensor, "t h2 w2 3"]:
    """Resize to cover height x width, antialiased, and cut the middle."""
    return resize_frames(frames, plan_crop(frames.shape[1], frames.shape[2], height, width))


def resize_frames(frames: Shaped[Tensor, "t h w *c"], plan: CropPlan) -> Shaped[Tensor, "t h2 w2 *c"]:
    """Resize and crop pictures by a plan, with an antialiased cubic filter; an axis that keeps its size is untouched.

    Args:
        frames: uint8 [t, h, w, 3], or uint8, uint16 or float [t, h, w] for gray and depth.
        plan: Where each pixel goes.

    Returns:
        The same kind of picture at the plan's target size.

    Raises:
        ValueError: The frames are not of the plan's source size.
    """
    _check_source(tuple(frames.shape[1:3]), plan)
    if plan.source == plan.resized:
        return _crop(frames, plan).contiguous()
    parts = [_crop(_resize(part, plan.resized), plan) for part in torch.split(frames, _CHUNK)]
    return torch.cat(parts) if parts else frames.new_empty((0, *plan.target, *frames.shape[3:]))


def resize_mask_any(mask: Bool[Tensor, "t h w"], plan: CropPlan) -> Bool[Tensor, "t h2 w2"]:
    """Resize and crop a mask so that it holds every pixel a masked one took part in.

    A target pixel is set if any masked source pixel lies under the footprint of `resize_frames`' filter there. So
    outside the result a resized picture does not depend on what was under the mask, to the last bit.
    """
    _check_source(tuple(mask.shape[1:]), plan)
    rows = _footprint(plan.source[0], plan.resized[0])
    columns = _footprint(plan.source[1], plan.resized[1])
    parts = [_crop(_any_along(_any_along(part, rows, 1), columns, 2), plan) for part in torch.split(mask, _CHUNK)]
    return torch.cat(parts) if parts else mask.new_empty((0, *plan.target))


def map_keypoints(keypoints: Float[Tensor, "*p 2"], plan: CropPlan) -> Float[Tensor, "*p 2"]:
    """Carry points (x, y) in source pixels to target pixels; whole numbers are the middles of pixels. NaN stays NaN."""
    scale = keypoints.new_tensor([plan.resized[1] / plan.source[1], plan.resized[0] / plan.source[0]])
    offset = keypoints.new_tensor([plan.offset[1], plan.offset[0]])
    return (keypoints + 0.5) * scale - 0.5 - offset


def _check_source(size: tuple[int, ...], plan: CropPlan) -> None:
    if size != plan.source:
        raise ValueError(f"the plan is for a source of {plan.source} (height, width), got {size}")


def _crop(frames: Tensor, plan: CropPlan) -> Tensor:
    (top, left), (height, width) = plan.offset, plan.target
    return frames[:, top : top + height, left : left + width]


def _resize(frames: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize [t, h, w] or [t, h, w, c]; float32 inside, so that every machine rounds alike."""
    gray = frames.ndim == 3
    planes = rearrange(frames, "t h w -> t 1 h w" if gray else "t h w c -> t c h w").float()
    resized = torch.nn.functional.interpolate(planes, size=size, mode="bicubic", antialias=True)
    if not frames.is_floating_point():
        resized = resized.round_().clamp_(0, torch.iinfo(frames.dtype).max)
    return rearrange(resized, "t 1 h w -> t h w" if gray else "t c h w -> t h w c").to(frames.dtype)


@lru_cache(maxsize=64)
def _footprint(source: int, resized: int) -> tuple[Tensor, Tensor]:
    """Return the first and one past the last source pixel under the filter, for each resized pixel of an axis."""
    centre = (torch.arange(resized, dtype=torch.float64) + 0.5) * source / resized
    if source == resized:
        first = torch.arange(resized)
        return first, first + 1
    support = _CUBIC_SUPPORT * max(source / resized, 1.0)
    # Source pixel j has its middle at j + 1/2; the margin covers rounding in the filter's own arithmetic.
    first = torch.ceil(centre - support - 0.5 - 1e-4).clamp(0, source - 1).long()
    last = torch.floor(centre + support - 0.5 + 1e-4).clamp(0, source - 1).long()
    return first, last + 1


def _any_along(mask: Tensor, window: tuple[Tensor, Tensor], axis: int) -> Tensor:
    """Whether any pixel in each window along an axis is set, through running sums."""
    first, end = window
    sums = torch.nn.functional.pad(mask.int().cumsum(axis, dtype=torch.int32), _pad_before(axis))
    return sums.index_select(axis, end) > sums.index_select(axis, first)


def _pad_before(axis: int) -> tuple[int, ...]:
    """Return padding of one element before ``axis`` of [t, h, w], as torch counts it: from the last axis back."""
    return (0, 0, 1, 0) if axis == 1 else (1, 0)
