"""Depth of every pixel, from near to far."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from regen_train.video import decode_gray, read_gray, write_gray

FILE = "depth.mkv"

DepthWindows = Iterator[Float[Tensor, "t h w"]]
"""One object for all: jsonargparse knows a source by its signatures, and no two jaxtyping annotations are equal."""


@runtime_checkable
class DepthSource(Protocol):
    """Estimates the depth of a clip."""

    def setup(self, device: str) -> None:
        """Load the weights; called once per worker, before the first clip.

        Args:
            device: ``cpu``, ``cuda`` or ``cuda:N``.
        """
        ...

    def identity(self) -> dict[str, Any]:
        """Return, as plain JSON, all that decides the result: extractor, version, weights, settings."""
        ...

    def depth(self, clip: Path, *, max_frames: int | None = None) -> DepthWindows:
        """Yield consecutive windows that together cover the clip's frames; `write_depth_stream` writes them.

        Args:
            clip: The video file; frames are counted as `regen_train.video.decode_frames` decodes them, upright.
            max_frames: Stop after so many frames; None takes all.

        Returns:
            Inverse depth at the clip's size, near = large, in any unit, on one scale for the clip.
        """
        ...


@dataclass(frozen=True)
class DepthFiles:
    """Depth that lies in files, made elsewhere.

    Args:
        root: Holds one folder of signals a clip, named as the clip without its ending.
        window: Frames a window.
    """

    root: Path
    window: int = 16

    def setup(self, device: str) -> None:
        """Do nothing; there are no weights. See `DepthSource`."""

    def identity(self) -> dict[str, Any]:
        """Say that files were read; see `DepthSource`."""
        return {"extractor": "files"}

    def depth(self, clip: Path, *, max_frames: int | None = None) -> DepthWindows:
        """Read ``depth.mkv``; see `DepthSource`."""
        path = self.root / clip.stem / FILE
        frames = (_checked(path, frame) for frame in islice(decode_gray(path), max_frames))
        while window := list(islice(frames, self.window)):
            # int32 first: torch knows little of uint16
            yield torch.stack(window).to(torch.int32).float()


def read_depth(
    path: Path, *, indices: Sequence[int] | None = None, num_frames: int | None = None
) -> Shaped[Tensor, "t h w"]:
    """Read a depth file as uint16 [t, h, w].

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is not lossless 16-bit gray, of another length than ``num_frames``, or too short for
            ``indices``.
    """
    return _checked(path, read_gray(path, indices=indices, num_frames=num_frames))


def _checked(path: Path, depth: Tensor) -> Tensor:
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
