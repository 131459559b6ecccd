"""Person masks: where people are, and who is who."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, TypeAlias, runtime_checkable

import torch
from jaxtyping import UInt8
from torch import Tensor

from regen_train.video import decode_gray, read_gray, write_gray

FILE = "mask.mkv"
UNKNOWN_TRACK = 255
"""A person without a track id."""

MaskWindows: TypeAlias = Iterator[UInt8[Tensor, "t h w"]]
"""Named once: jsonargparse takes a class for a `MaskSource` only if its annotations are the very same objects."""


@runtime_checkable
class MaskSource(Protocol):
    """Finds the people of a clip."""

    def setup(self, device: str) -> None:
        """Load the weights; called once per worker, before the first clip.

        Args:
            device: ``cpu``, ``cuda`` or ``cuda:N``.
        """
        ...

    def identity(self) -> dict[str, Any]:
        """Return, as plain JSON, all that decides the result: extractor, version, weights, settings."""
        ...

    def masks(self, clip: Path, *, max_frames: int | None = None) -> MaskWindows:
        """Yield consecutive windows that together cover the clip's frames.

        Args:
            clip: The video file; frames are counted as `regen_train.video.decode_frames` decodes them, upright.
            max_frames: Stop after so many frames; None takes all.

        Returns:
            0 where nobody is, 1 to 254 for a person by track id, 255 for a person of unknown track.
        """
        ...


@dataclass(frozen=True)
class MaskFiles:
    """Masks that lie in files, made elsewhere.

    Args:
        root: Holds one folder of signals a clip, named as the clip without its ending.
        window: Frames a window.
    """

    root: Path
    window: int = 64

    def setup(self, device: str) -> None:
        """Do nothing; there are no weights. See `MaskSource`."""

    def identity(self) -> dict[str, Any]:
        """Say that files were read; see `MaskSource`."""
        return {"extractor": "files"}

    def masks(self, clip: Path, *, max_frames: int | None = None) -> MaskWindows:
        """Read ``mask.mkv``; see `MaskSource`."""
        path = self.root / clip.stem / FILE
        frames = (_checked(path, frame) for frame in islice(decode_gray(path), max_frames))
        while window := list(islice(frames, self.window)):
            yield torch.stack(window)


def read_masks(
    path: Path, *, indices: Sequence[int] | None = None, num_frames: int | None = None
) -> UInt8[Tensor, "t h w"]:
    """Read a mask file.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is not lossless 8-bit gray, of another length than ``num_frames``, or too short for
            ``indices``.
    """
    return _checked(path, read_gray(path, indices=indices, num_frames=num_frames))


def _checked(path: Path, masks: Tensor) -> Tensor:
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
