"""A whole clip in memory, at its own rate or resampled."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from jaxtyping import Float64, Int64, UInt8
from torch import Tensor

from regen_train.video.decode import Frame, decode_frames, decode_timed
from regen_train.video.resample import ResamplePlan, plan_resample, resample_stream


@dataclass(frozen=True)
class Video:
    """Frames of a clip and where they come from.

    Args:
        frames: Upright RGB pictures.
        times: Seconds on the source's clock, of the source frame each picture is.
        plan: Which source frame each picture is, the rate, and whether the source was slower than that.
    """

    frames: UInt8[Tensor, "t h w 3"]
    times: Float64[Tensor, " t"]
    plan: ResamplePlan

    @property
    def indices(self) -> Int64[Tensor, " t"]:
        """Number of the source frame each picture is."""
        return self.plan.indices

    @property
    def fps(self) -> float:
        """Frames a second."""
        return self.plan.fps


def read_times(path: str | Path, *, max_frames: int | None = None) -> Float64[Tensor, " n"]:
    """Return the seconds at which each source frame appears, without making pictures."""
    return torch.tensor([time for _, time, _ in decode_timed(path, max_frames=max_frames)], dtype=torch.float64)


def read_resampled(path: str | Path, fps: int | float, *, max_frames: int | None = None) -> Iterator[Frame]:
    """Yield the source frames on show at a constant rate, holding one at a time.

    Args:
        path: The video file.
        fps: Frames a second wanted; a slow source's frames come more than once, with the same ``index``.
        max_frames: Look at so many source frames only, such as those that signals cover.
    """
    frames = decode_frames(path, max_frames=max_frames)
    return resample_stream(((frame.time, frame) for frame in frames), fps)


def read_video(
    path: str | Path, *, fps: int | float | None = None, num_frames: int | None = None, max_frames: int | None = None
) -> Video:
    """Read a clip.

    Args:
        path: The video file.
        fps: Frames a second wanted; None keeps the source's frames, variable rate and all.
        num_frames: Keep so many frames of the result, from the start; None keeps all.
        max_frames: Look at so many source frames only, such as those that signals cover.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is no video or damaged, or shorter than ``num_frames``.
    """
    source: list[float] = []

    def note_times() -> Iterator[tuple[float, Frame]]:
        for frame in decode_frames(path, max_frames=max_frames):
            source.append(frame.time)
            yield frame.time, frame

    stream = (frame for _, frame in note_times()) if fps is None else resample_stream(note_times(), fps)
    kept = list(islice(stream, num_frames))
    if num_frames is not None and len(kept) < num_frames:
        at_rate = "" if fps is None else f" at {fps:g} fps"
        raise ValueError(f"{path} has {len(kept)} frames{at_rate}, {num_frames} were asked for")
    rate = _average_rate(source)
    plan = ResamplePlan(
        indices=torch.tensor([frame.index for frame in kept]), fps=float(fps or rate or 1), source_fps=rate
    )  # fmt: skip
    frames = torch.stack([torch.from_numpy(frame.rgb) for frame in kept])
    return Video(frames=frames, times=torch.tensor([frame.time for frame in kept], dtype=torch.float64), plan=plan)


def _average_rate(times: list[float]) -> float | None:
    return plan_resample(times, 1.0).source_fps
