"""The size at which a clip is painted, and the way back to its own size."""

import math
from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import UInt8
from torch import Tensor

from regen_train.schema import Geometry
from regen_train.video import CropPlan, resize_frames

_AREAS = 0.7, 1.12
"""Shares of the usual area between which a size is sought: near what the model was trained on."""

_AREA_WEIGHT = 0.1
"""Losing a tenth of the picture's pixels in size counts like losing a hundredth of the picture by the crop."""


def nearest_size(source: tuple[int, int], area: int, geometry: Geometry) -> tuple[int, int]:
    """Return the height and width to paint at: nearly the source's proportions, nearly the usual area.

    Args:
        source: Height and width of the clip.
        area: Pixels of a frame that the model is used to.
        geometry: What sizes must be multiples of.
    """
    step_h, step_w = geometry.size_multiple
    ratio, low, high = source[1] / source[0], *(share * area for share in _AREAS)
    ideal = math.sqrt(area / ratio)
    candidates = [
        (height, width)
        for height in range(step_h, max(step_h, round(1.5 * ideal)) + step_h, step_h)
        for width in {max(1, round(height * ratio / step_w) + i) * step_w for i in (-1, 0, 1)}
    ]
    fitting = [size for size in candidates if low <= math.prod(size) <= high] or candidates

    def loss(size: tuple[int, int]) -> float:
        stretch = size[1] / size[0] / ratio
        cropped = 1 - min(stretch, 1 / stretch)
        return cropped + _AREA_WEIGHT * abs(math.log(math.prod(size) / area))

    return min(fitting, key=lambda size: (loss(size), size))


@dataclass(frozen=True)
class Border:
    """Source pixels along each edge that the crop left out; the painted edge is drawn out over them.

    Args:
        top: Rows.
        bottom: Rows.
        left: Columns.
        right: Columns.
    """

    top: int
    bottom: int
    left: int
    right: int

    def __bool__(self) -> bool:
        return bool(self.top or self.bottom or self.left or self.right)


def border_of(crop: CropPlan) -> Border:
    """Return how many whole or broken source rows and columns a crop leaves out."""
    (top, left), (height, width) = crop.offset, crop.target
    down, right = crop.resized[0] - top - height, crop.resized[1] - left - width
    rows, columns = crop.source[0] / crop.resized[0], crop.source[1] / crop.resized[1]
    return Border(*(math.ceil(n * unit) for n, unit in ((top, rows), (down, rows), (left, columns), (right, columns))))


def restore_size(frames: UInt8[Tensor, "t h w 3"], crop: CropPlan) -> UInt8[Tensor, "t h2 w2 3"]:
    """Bring painted frames back to the source's size and place.

    Nothing of the source is used: where the crop left something out, the painted edge is repeated.

    Args:
        frames: At the crop's target size.
        crop: How the source came to that size.
    """
    (top, left), (height, width) = crop.offset, crop.target
    sides = (left, crop.resized[1] - left - width, top, crop.resized[0] - top - height)
    planes = rearrange(frames, "t h w c -> t c h w").float()
    whole = rearrange(torch.nn.functional.pad(planes, sides, mode="replicate"), "t c h w -> t h w c").to(torch.uint8)
    return resize_frames(whole, CropPlan(source=crop.resized, resized=crop.source, offset=(0, 0), target=crop.source))
