"""What others do to people in videos: blur, pixelate, black out. To be measured beside regeneration."""

from collections.abc import Callable

import cv2
import numpy as np
import torch
from jaxtyping import Bool, UInt8
from numpy.typing import NDArray
from torch import Tensor

_Picture = NDArray[np.uint8]


def blur_people(
    frames: UInt8[Tensor, "t h w 3"], mask: Bool[Tensor, "_ _ _"], *, sigma: int | float
) -> UInt8[Tensor, "t h w 3"]:
    """Blur what is under the mask; the rest stays as it is.

    Args:
        frames: The clip.
        mask: Where people are.
        sigma: Of the Gaussian, in pixels, above 0.

    Raises:
        ValueError: ``sigma`` is not above 0, or the sizes differ.
    """
    if not 0 < sigma < float("inf"):
        raise ValueError(f"sigma must be above 0 pixels, got {sigma}")
    return _under_mask(frames, mask, lambda frame: np.asarray(cv2.GaussianBlur(frame, (0, 0), float(sigma)), np.uint8))


def pixelate_people(
    frames: UInt8[Tensor, "t h w 3"], mask: Bool[Tensor, "_ _ _"], *, cell: int
) -> UInt8[Tensor, "t h w 3"]:
    """Replace what is under the mask by the mean of its cell; the rest stays as it is.

    Args:
        frames: The clip.
        mask: Where people are.
        cell: Side of a cell in pixels, at least 1. Cells at the right and lower border are filled up by repeating it.

    Raises:
        ValueError: ``cell`` is below 1, or the sizes differ.
    """
    if cell < 1:
        raise ValueError(f"cell must be at least 1 pixel, got {cell}")
    return _under_mask(frames, mask, lambda frame: _cells(frame, cell))


def blackout_people(frames: UInt8[Tensor, "t h w 3"], mask: Bool[Tensor, "_ _ _"]) -> UInt8[Tensor, "t h w 3"]:
    """Blacken what is under the mask.

    Raises:
        ValueError: The sizes differ.
    """
    return _under_mask(frames, mask, np.zeros_like)


def _under_mask(frames: Tensor, mask: Tensor, change: Callable[[_Picture], _Picture]) -> Tensor:
    if frames.shape[:3] != mask.shape:
        raise ValueError(f"frames {list(frames.shape)} and mask {list(mask.shape)} must be of the same clip and size")
    changed = [torch.from_numpy(change(frame)) for frame in frames.cpu().numpy()]
    stacked = torch.stack(changed).to(frames.device) if changed else frames
    return torch.where(mask[..., None], stacked, frames)


def _cells(frame: _Picture, cell: int) -> _Picture:
    height, width = frame.shape[:2]
    rows, columns = -(-height // cell), -(-width // cell)
    filled = cv2.copyMakeBorder(frame, 0, rows * cell - height, 0, columns * cell - width, cv2.BORDER_REPLICATE)
    means = cv2.resize(filled, (columns, rows), interpolation=cv2.INTER_AREA)
    return np.repeat(np.repeat(np.asarray(means, np.uint8), cell, 0), cell, 1)[:height, :width]
