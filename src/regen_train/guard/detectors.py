"""What the gate asks of second opinions: detectors of people, faces and text, and a finder of names.

The gate itself finds nothing in a picture. Whoever runs it hands detectors in; the real ones are in
`regen_train.detectors`, tests bring their own.
"""

from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, runtime_checkable

from jaxtyping import Float, UInt8
from torch import Tensor

Frames: TypeAlias = UInt8[Tensor, "t h w 3"]
"""Upright RGB frames on the CPU. One name for all detectors: jsonargparse takes a class for a `Detector` only if its
annotations are the very same objects."""


@dataclass(frozen=True)
class Boxes:
    """What a detector found in one frame.

    Args:
        boxes: Left, top, right, bottom in pixels of the frame; may reach beyond it.
        scores: How sure the detector is, 0 to 1.
        labels: What each box reads, where the detector reads text; else empty.
    """

    boxes: Float[Tensor, "n 4"]
    scores: Float[Tensor, " n"]
    labels: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.boxes)


@runtime_checkable
class Detector(Protocol):
    """Finds things of one kind in pictures: people, faces or readable text."""

    def setup(self, device: str) -> None:
        """Load the weights; called once per worker, before the first frame."""
        ...

    def identity(self) -> dict[str, Any]:
        """Return, as plain JSON, all that decides what it finds: its name, weights, revision, settings."""
        ...

    def detect(self, frames: Frames) -> list[Boxes]:
        """Return what is found in each frame."""
        ...


@runtime_checkable
class NameFinder(Protocol):
    """Finds names of persons in text."""

    def setup(self, device: str) -> None:
        """Load the weights; called once per worker, before the first text."""
        ...

    def identity(self) -> dict[str, Any]:
        """Return, as plain JSON, all that decides what it finds."""
        ...

    def find(self, text: str) -> list[str]:
        """Return the names in the text, as they stand there."""
        ...


@dataclass(frozen=True)
class Detectors:
    """The second opinions at hand; None for each that is absent, which is a finding of its own.

    Args:
        people: Finds people, in the clip and in finished conditions.
        faces: Finds faces, in the clip and in finished conditions.
        text: Reads text in the picture.
        names: Finds names of persons in captions.
    """

    people: Detector | None = None
    faces: Detector | None = None
    text: Detector | None = None
    names: NameFinder | None = None
