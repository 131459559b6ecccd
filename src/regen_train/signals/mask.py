"""Person masks: where people are, and who is who."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from jaxtyping import UInt8
from torch import Tensor

from regen_train.video import read_gray, write_gray

FILE = "mask.mkv"
UNKNOWN_TRACK = 255
"""A person without a track id."""


class MaskSource(Protocol):
    """Finds the people of a clip."""

    def masks(self, clip: Path, *, indices: Sequence[int] | None = None) -> UInt8[Tensor, "t h w"]:
        """Return 0 where nobody is, 1 to 254 for a person by track id, 255 for a person of unknown track.

        Args:
            clip: The video file; frames are counted as `regen_train.video.decode_frames` decodes them, upright.
            indices: Frames wanted; None for all that there is a signal for.
        """
        ...


@dataclass(frozen=True)
class MaskFiles:
    """Masks that lie in files, made elsewhere.

    Args:
        root: Holds one folder of signals a clip, named as the clip without its ending.
    """

    root: Path

    def masks(self, clip: Path, *, indices: Sequence[int] | None = None) -> UInt8[Tensor, "t h w"]:
        """Read ``mask.mkv``; see `MaskSource`."""
        return read_masks(self.root / clip.stem / FILE, indices=indices)


def read_masks(
    path: Path, *, indices: Sequence[int] | None = None, num_frames: int | None = None
) -> UInt8[Tensor, "t h w"]:
    """Read a mask file.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is not lossless 8-bit gray, of another length than ``num_frames``, or too short for
            ``indices``.
    """
    masks = read_gray(path, indices=indices, num_frames=num_frames)
    if masks.dtype != torch.uint8:
        raise ValueError(f"{path} must be 8-bit gray (0 nobody, 1 to 254 track, 255 person), got 16-bit")
    return masks


def write_masks(path: Path, masks: UInt8[Tensor, "t h w"], fps: int | float) -> None:
    """Write a mask file, lossless.

    Raises:
        ValueError: ``masks`` is not uint8.
    """
    if masks.dtype != torch.uint8:
        raise ValueError(f"masks must be uint8 (0 nobody, 1 to 254 track, 255 person), got {masks.dtype}")
    write_gray(path, masks, fps)
