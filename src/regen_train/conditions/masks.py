"""Masks: how far people reach, and the fill that takes their place."""

import math
from typing import Literal

import cv2
import numpy as np
import torch
from einops import rearrange
from jaxtyping import Bool, Shaped, UInt8
from torch import Tensor

from regen_train.conditions.checks import check_tensors

GRAY = 128
"""VACE's value of a pixel to be repainted."""

HumanFill = Literal["gray", "background_mean"]


def fill_people(
    frames: Shaped[Tensor, "..."], mask: Shaped[Tensor, "..."], fill: HumanFill | int = "gray"
) -> UInt8[Tensor, "t h w *c"]:
    """Replace every pixel under the mask.

    Args:
        frames: uint8 [t, h, w, 3], or [t, h, w] for gray.
        mask: Where people are, bool [t, h, w].
        fill: ``gray``, ``background_mean`` (each frame's mean outside the mask; gray where nothing is outside), or a
            value 0 to 255.

    Raises:
        ValueError: An argument has the wrong type or shape, or ``fill`` is unknown; names all faults.
    """
    kind = "video" if frames.ndim == 4 else "gray"
    check_tensors({"frames": (frames, kind), "mask": (mask, "mask")})
    if fill == "background_mean":
        value = _background_mean(frames, mask)
    elif fill == "gray" or (isinstance(fill, int) and 0 <= fill <= 255):
        value = torch.tensor(GRAY if fill == "gray" else fill, dtype=torch.uint8, device=frames.device)
    else:
        raise ValueError(f"fill must be 'gray', 'background_mean' or 0 to 255, got {fill!r}")
    return torch.where(mask[..., None] if frames.ndim == 4 else mask, value, frames)


def default_dilation(height: int, width: int) -> int:
    """Return by how many source pixels masks grow unless a dataset says otherwise.

    1.5 % of the short side, rounded up, and at least 8 pixels: the reach of a codec's bleeding. Sources under 256
    pixels, where 8 would be too much of the picture, take 1.5 % and at least 1 pixel.
    """
    short = min(height, width)
    return max(math.ceil(0.015 * short), 8 if short >= 256 else 1)


def dilate(mask: Bool[Tensor, "t h w"], radius: int | float) -> Bool[Tensor, "t h w"]:
    """Grow a mask by a disc: set every pixel no farther than ``radius`` pixels from a set one.

    Raises:
        ValueError: The radius is negative.
    """
    if not radius >= 0:
        raise ValueError(f"radius must be at least 0 pixels, got {radius}")
    grown = [_dilate_frame(frame, radius) for frame in mask.cpu().numpy()]
    return torch.from_numpy(np.stack(grown)).to(mask.device) if grown else mask.clone()


def _background_mean(frames: Tensor, mask: Tensor) -> Tensor:
    """Mean outside the mask of each frame, rounded, shaped to broadcast over it; in integers, so that it is exact."""
    means = []
    for frame, human in zip(frames, mask, strict=True):
        background = frame[~human].long()
        count = len(background)
        mean = (background.sum(0) * 2 + count) // (2 * count) if count else torch.full_like(frame[0, 0].long(), GRAY)
        means.append(mean.to(torch.uint8))
    stacked = torch.stack(means) if means else frames.new_empty((0, *frames.shape[3:]))
    return rearrange(stacked, "t ... -> t 1 1 ...")


def _dilate_frame(mask: np.ndarray, radius: int | float) -> np.ndarray:
    if radius == 0 or not mask.any():
        return mask.copy()
    distance = cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.asarray(distance <= radius + 1e-3)
