"""Sources of signals and second opinions that need no weights; named on the command line by class path."""

import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from regen_train.guard import Boxes
from regen_train.guard.detectors import Frames
from regen_train.signals import Poses
from regen_train.signals.depth.files import DepthWindows
from regen_train.signals.mask.files import MaskWindows
from regen_train.video import decode_frames

BRIGHT = 140
"""The people of `moving_people` are brighter than this, its walls darker."""

SIGN = (220, 20, 20)
"""The colour of what `FakeReader` reads."""


def _people(clip: Path, max_frames: int | None) -> Iterator[Tensor]:
    for frame in decode_frames(clip, max_frames=max_frames):
        bright = torch.from_numpy(frame.rgb.min(-1) >= BRIGHT)
        rows, columns = bright.any(1).nonzero(), bright.any(0).nonzero()
        people = torch.zeros_like(bright)
        if len(rows):
            people[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1] = True
        yield people


def _note(log: Path | None, clip: Path, what: str) -> None:
    if log is not None:
        with log.open("a") as file:
            file.write(f"{what} {clip.stem}\n")


@dataclass
class FakeMasks:
    """Finds people by their brightness, and fails where told to.

    Args:
        log: Gets a line for each clip worked on.
        weights: Stands for the weights' revision.
        fail: Clips, by stem, on which to fail, each with ``=`` and how: value, runtime, short, none, storage, kill or
            killonce.
        window: Frames a window; decides nothing.
        lag: Frames by which masks come late.
    """

    log: Path | None = None
    weights: str = "1"
    fail: tuple[str, ...] = ()
    window: int = 4
    lag: int = 0

    def setup(self, device: str) -> None:
        """Do nothing."""

    def identity(self) -> dict[str, Any]:
        """Say what decides the masks."""
        return {"extractor": "fake", "weights": self.weights} | ({"lag": self.lag} if self.lag else {})

    def masks(self, clip: Path, *, max_frames: int | None = None) -> MaskWindows:
        """Yield windows of masks."""
        _note(self.log, clip, "mask")
        how = dict(word.split("=") for word in self.fail).get(clip.stem, "")
        self._fail(how, clip)
        people = list(_people(clip, max_frames))
        people = people[:1] * self.lag + people[: len(people) - self.lag]
        if how == "none":
            return
        if how == "short":
            people = people[:-1]
        for start in range(0, len(people), self.window):
            yield torch.stack(people[start : start + self.window]).byte() * 255

    def _fail(self, how: str, clip: Path) -> None:
        if how == "value":
            raise ValueError(f"{clip.name} is beyond me")
        if how == "runtime":
            raise RuntimeError("CUDA out of memory")
        if how == "storage":
            raise OSError(28, "No space left on device")
        assert self.log is not None or not how.startswith("kill")
        if how == "kill" or (how == "killonce" and self.log and self.log.read_text().count(f"mask {clip.stem}\n") == 1):
            os.kill(os.getpid(), signal.SIGKILL)


@dataclass
class FakePoses:
    """Puts a skeleton where people are.

    Args:
        log: Gets a line for each clip worked on.
        mask_root: Holds masks that decide where people are, as of `DwPose`; None finds them by brightness.
    """

    log: Path | None = None
    mask_root: Path | None = None

    def setup(self, device: str) -> None:
        """Do nothing."""

    def identity(self) -> dict[str, Any]:
        """Say what decides the keypoints; not the masks."""
        return {"extractor": "fake", "boxes": "masks" if self.mask_root else "bright"}

    def poses(self, clip: Path, *, max_frames: int | None = None) -> Iterator[Poses]:
        """Yield a window for each frame."""
        _note(self.log, clip, "pose")
        for people in _people(clip, max_frames):
            ys, xs = people.nonzero(as_tuple=True)
            keypoints = torch.full((1, 1, 133, 2), torch.nan)
            if len(ys):
                spread = torch.linspace(0.1, 0.9, 17)
                keypoints[0, 0, :17, 0] = xs.min() + spread * (xs.max() - xs.min())
                keypoints[0, 0, :17, 1] = ys.min() + spread * (ys.max() - ys.min())
            yield Poses(keypoints, torch.where(keypoints.isnan().any(-1), 0.0, 1.0))


@dataclass
class FakeDepth:
    """Says that all is farther up."""

    log: Path | None = None

    def setup(self, device: str) -> None:
        """Do nothing."""

    def identity(self) -> dict[str, Any]:
        """Say what decides the depth."""
        return {"extractor": "fake"}

    def depth(self, clip: Path, *, max_frames: int | None = None) -> DepthWindows:
        """Yield a window for each frame."""
        _note(self.log, clip, "depth")
        for frame in decode_frames(clip, max_frames=max_frames):
            height, width = frame.rgb.shape[:2]
            yield torch.linspace(0, 1, height)[None, :, None].expand(1, height, width)


@dataclass
class FakeCaptions:
    """Says the same of every clip."""

    log: Path | None = None
    text: str = "A person walks along a wall."

    def setup(self, device: str) -> None:
        """Do nothing."""

    def identity(self) -> dict[str, Any]:
        """Say what decides the caption."""
        return {"extractor": "fake", "text": self.text}

    def caption(self, clip: Path, *, max_frames: int | None = None) -> str:
        """Return the caption."""
        _note(self.log, clip, "caption")
        return self.text


@dataclass
class FakeReader:
    """Reads EXIT wherever something is as red as `SIGN`, above where people are."""

    def setup(self, device: str) -> None:
        """Do nothing."""

    def identity(self) -> dict[str, Any]:
        """Say what decides the readings."""
        return {"detector": "fake"}

    def detect(self, frames: Frames) -> list[Boxes]:
        """Return one reading a frame, or none."""
        found = []
        for frame in frames:
            top = frame[: len(frame) // 8]
            rows, columns = ((top[..., 0] > 150) & (top[..., 1] < 60)).nonzero(as_tuple=True)
            if not len(rows):
                found.append(Boxes(torch.zeros(0, 4), torch.zeros(0), ()))
                continue
            box = [[columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]]
            found.append(Boxes(torch.tensor(box, dtype=torch.float32), torch.ones(1), ("EXIT",)))
        return found
