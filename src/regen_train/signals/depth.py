"""Depth of every pixel, from near to far."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from jaxtyping import Shaped
from torch import Tensor

from regen_train.video import read_gray, write_gray

FILE = "depth.mkv"


class DepthSource(Protocol):
    """Estimates the depth of a clip."""

    def depth(self, clip: Path, *, indices: Sequence[int] | None = None) -> Shaped[Tensor, "t h w"]:
        """Return inverse depth, uint16, near = large, on one scale for the clip.

        Args:
            clip: The video file; frames are counted as `regen_train.video.decode_frames` decodes them, upright.
            indices: Frames wanted; None for all that there is a signal for.
        """
        ...


@dataclass(frozen=True)
class DepthFiles:
    """Depth that lies in files, made elsewhere.

    Args:
        root: Holds one folder of signals a clip, named as the clip without its ending.
    """

    root: Path

    def depth(self, clip: Path, *, indices: Sequence[int] | None = None) -> Shaped[Tensor, "t h w"]:
        """Read ``depth.mkv``; see `DepthSource`."""
        return read_depth(self.root / clip.stem / FILE, indices=indices)


def read_depth(
    path: Path, *, indices: Sequence[int] | None = None, num_frames: int | None = None
) -> Shaped[Tensor, "t h w"]:
    """Read a depth file as uint16 [t, h, w].

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is not lossless 16-bit gray, of another length than ``num_frames``, or too short for
            ``indices``.
    """
    depth = read_gray(path, indices=indices, num_frames=num_frames)
    if depth.dtype != torch.uint16:
        raise ValueError(f"{path} must be 16-bit gray (gray16le, inverse depth, near = large), got 8-bit")
    return depth


def write_depth(path: Path, depth: Shaped[Tensor, "t h w"], fps: int | float) -> None:
    """Write a depth file, lossless.

    Raises:
        ValueError: ``depth`` is not uint16.
    """
    if depth.dtype != torch.uint16:
        raise ValueError(f"depth must be uint16, got {depth.dtype}")
    write_gray(path, depth, fps)
