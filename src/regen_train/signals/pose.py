"""Whole-body keypoints: how people stand and move."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from jaxtyping import Float32, Int64
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
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


class PoseSource(Protocol):
    """Finds the keypoints of a clip's people."""

    def poses(self, clip: Path, *, indices: Sequence[int] | None = None) -> Poses:
        """Return keypoints of every person in every frame.

        Args:
            clip: The video file; frames are counted as `regen_train.video.decode_frames` decodes them, upright.
            indices: Frames wanted; None for all that there is a signal for.
        """
        ...


@dataclass(frozen=True)
class PoseFiles:
    """Keypoints that lie in files, made elsewhere.

    Args:
        root: Holds one folder of signals a clip, named as the clip without its ending.
    """

    root: Path

    def poses(self, clip: Path, *, indices: Sequence[int] | None = None) -> Poses:
        """Read ``pose.safetensors``; see `PoseSource`."""
        poses = read_poses(self.root / clip.stem / FILE)
        return poses if indices is None else poses.select(indices)


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
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)


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
