"""Whole-body keypoints: how people stand and move."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float32, Int64
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

FILE = "pose.safetensors"
NUM_KEYPOINTS = 133
"""COCO-WholeBody: 17 body, 6 feet, 68 face, 21 left hand, 21 right hand."""

MAX_PEOPLE = 1024
"""More people a frame than this are a broken file, not a crowd; bounds what a file can make us allocate."""

_MEANING = {
    "keypoints": ("F32", f"float32 [t, p, {NUM_KEYPOINTS}, 2]"),
    "scores": ("F32", f"float32 [t, p, {NUM_KEYPOINTS}]"),
    "track": ("I64", "int64 [t, p]"),
}


@dataclass(frozen=True)
class Poses:
    """The people of a clip as points.

    Args:
        keypoints: (x, y) in pixels of the upright clip, COCO-WholeBody order; NaN where absent. May lie outside.
        scores: How sure the extractor was of each point; 0.3 is what drawing asks for.
        track: Who is who over time, -1 unknown; None where the extractor does not track.
    """

    keypoints: Float32[Tensor, "t p 133 2"]
    scores: Float32[Tensor, "t p 133"]
    track: Int64[Tensor, "t p"] | None = None

    def __len__(self) -> int:
        return len(self.keypoints)

    def select(self, indices: Sequence[int]) -> "Poses":
        """Return the poses of these frames, in this order."""
        chosen = torch.as_tensor(list(indices), dtype=torch.long)
        track = None if self.track is None else self.track[chosen]
        return Poses(keypoints=self.keypoints[chosen], scores=self.scores[chosen], track=track)


@runtime_checkable
class PoseSource(Protocol):
    """Finds the keypoints of a clip's people."""

    def setup(self, device: str) -> None:
        """Load the weights; called once per worker, before the first clip.

        Args:
            device: ``cpu``, ``cuda`` or ``cuda:N``.
        """
        ...

    def identity(self) -> dict[str, Any]:
        """Return, as plain JSON, all that decides the result: extractor, version, weights, settings."""
        ...

    def poses(self, clip: Path, *, max_frames: int | None = None) -> Iterator[Poses]:
        """Yield consecutive windows of keypoints that together cover the clip's frames; `join_poses` makes one of them.

        Args:
            clip: The video file; frames are counted as `regen_train.video.decode_frames` decodes them, upright.
            max_frames: Stop after so many frames; None takes all.
        """
        ...


@dataclass(frozen=True)
class PoseFiles:
    """Keypoints that lie in files, made elsewhere.

    Args:
        root: Holds one folder of signals a clip, named as the clip without its ending.
        window: Frames a window.
    """

    root: Path
    window: int = 64

    def setup(self, device: str) -> None:
        """Do nothing; there are no weights. See `PoseSource`."""

    def identity(self) -> dict[str, Any]:
        """Say that files were read; see `PoseSource`."""
        return {"extractor": "files"}

    def poses(self, clip: Path, *, max_frames: int | None = None) -> Iterator[Poses]:
        """Read ``pose.safetensors``; see `PoseSource`."""
        poses = read_poses(self.root / clip.stem / FILE)
        length = len(poses) if max_frames is None else min(max_frames, len(poses))
        for start in range(0, length, self.window):
            yield poses.select(range(start, min(start + self.window, length)))


def join_poses(windows: Iterable[Poses]) -> Poses:
    """Join consecutive windows; those with fewer people are filled up with absent ones.

    Args:
        windows: Poses of any number of people, with ``track`` in all or in none.

    Raises:
        ValueError: There is no window, or only some have ``track``.
    """
    parts = list(windows)
    if not parts:
        raise ValueError("no window of poses to join")
    tracked = {part.track is not None for part in parts}
    if len(tracked) > 1:
        raise ValueError("either all windows of poses must have tracks or none")
    people = max(part.keypoints.shape[1] for part in parts)
    return Poses(
        keypoints=torch.cat([_fill_up(part.keypoints, people, torch.nan) for part in parts]),
        scores=torch.cat([_fill_up(part.scores, people, 0.0) for part in parts]),
        track=torch.cat([_fill_up(part.track, people, -1) for part in parts if part.track is not None])
        if tracked == {True}
        else None,
    )


def _fill_up(tensor: Tensor, people: int, value: int | float) -> Tensor:
    missing = (len(tensor), people - tensor.shape[1], *tensor.shape[2:])
    return torch.cat([tensor, tensor.new_full(missing, value)], dim=1)


def read_poses(path: Path) -> Poses:
    """Read a pose file. Types and shapes are checked in the header, before anything is loaded.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is damaged, or a tensor is missing, unknown, of the wrong type or shape, or infinite;
            names all faults.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no poses at {path}")
    try:
        with safe_open(path, framework="pt") as file:
            faults = _header_faults(file)
            names = [] if faults else list(file.keys())
            tensors = {name: file.get_tensor(name) for name in names}
    except SafetensorError as error:
        raise ValueError(f"{path} is no whole safetensors file: {error}") from error
    faults += [f"{name} holds infinite values; absent points are NaN" for name, tensor in tensors.items()
               if bool(torch.isinf(tensor).any())]  # fmt: skip
    if faults:
        raise ValueError(f"{path}: " + "; ".join(faults))
    return Poses(tensors["keypoints"], tensors["scores"].nan_to_num(nan=0.0), tensors.get("track"))


def write_poses(path: Path, poses: Poses) -> None:
    """Write a pose file."""
    tensors = {"keypoints": poses.keypoints.float(), "scores": poses.scores.float()}
    if poses.track is not None:
        tensors["track"] = poses.track.long()
    # Not by safetensors' own writer: on a full disk its error is no OSError.
    path.write_bytes(save({name: tensor.contiguous() for name, tensor in tensors.items()}))


def _header_faults(file: Any) -> list[str]:
    names = list(file.keys())
    faults = [f"{name} is missing" for name in ("keypoints", "scores") if name not in names]
    faults += [f"{name} is not one of {', '.join(_MEANING)}" for name in names if name not in _MEANING]
    if faults:
        return faults
    t, p = (*file.get_slice("keypoints").get_shape(), 0, 0)[:2]
    shapes = {"keypoints": [t, p, NUM_KEYPOINTS, 2], "scores": [t, p, NUM_KEYPOINTS], "track": [t, p]}
    for name in names:
        header = file.get_slice(name)
        code, meaning = _MEANING[name]
        if header.get_dtype() != code or header.get_shape() != shapes[name]:
            faults.append(f"{name} must be {meaning}, got {header.get_dtype()} {header.get_shape()}")
    if p > MAX_PEOPLE:
        faults.append(f"at most {MAX_PEOPLE} people a frame, got {p}")
    return faults
