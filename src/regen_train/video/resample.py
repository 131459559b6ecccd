"""From a video's own frame times to a constant rate, by timestamps and never by frame numbers."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

TOLERANCE = 1e-6
"""Seconds by which a frame may begin after the moment asked for and still be the one shown."""

Times = Sequence[float] | np.ndarray | Tensor
_T = TypeVar("_T")


@dataclass(frozen=True)
class ResamplePlan:
    """Which source frames make a clip of constant rate.

    Args:
        indices: Source frame shown at time k / fps after the first frame, for k = 0, 1, ...
        fps: The rate asked for, frames a second.
        source_fps: The source's average rate; None where it has a single frame.
    """

    indices: Int64[Tensor, " t"]
    fps: float
    source_fps: float | None

    @property
    def repeats(self) -> Bool[Tensor, " t"]:
        """Whether each frame only repeats the one before it, because the source had no newer one."""
        repeats = torch.zeros(len(self.indices), dtype=torch.bool)
        repeats[1:] = self.indices[1:] == self.indices[:-1]
        return repeats

    @property
    def num_repeated(self) -> int:
        """How many frames only repeat the one before them."""
        return int(self.repeats.sum())

    @property
    def is_slow(self) -> bool:
        """Whether the source is slower than the rate asked for, so that the clip would stutter.

        True below 99.5 % of the rate (29.97 for 30 is no fault), or where gaps in a variable rate make more than one
        frame in twenty a repetition.
        """
        slow = self.source_fps is not None and self.source_fps < 0.995 * self.fps
        return slow or self.num_repeated > 0.05 * max(len(self.indices) - 1, 1)


def source_fps(times: Times) -> float:
    """Return the average rate of frames shown at ``times`` (seconds, ascending).

    Raises:
        ValueError: Fewer than two frames, or times that do not advance.
    """
    seconds = _ascending(times)
    if len(seconds) < 2 or seconds[-1] <= seconds[0]:
        raise ValueError(f"a frame rate needs two frames at different times, got {len(seconds)} frames")
    return float((len(seconds) - 1) / (seconds[-1] - seconds[0]))


def resample_indices(times: Times, fps: int | float) -> Int64[Tensor, " t"]:
    """Return the source frame on show at every k / fps seconds after the first frame.

    Nothing is extrapolated: the last index belongs to the last such moment not after the last frame's time.

    Args:
        times: Seconds at which each source frame appears, ascending; the rate may vary.
        fps: Frames a second wanted.

    Returns:
        Indices into ``times``, ascending; repeated where the source is slower than ``fps``.

    Raises:
        ValueError: No frame, times that are not finite or go back, or a rate that is not positive.
    """
    _check_fps(fps)
    seconds = _ascending(times)
    elapsed = seconds - seconds[0]
    moments = torch.arange(int((elapsed[-1] + TOLERANCE) * fps) + 2, dtype=torch.float64) / fps
    moments = moments[moments <= elapsed[-1] + TOLERANCE]
    return torch.searchsorted(elapsed, moments + TOLERANCE, right=True) - 1


def plan_resample(times: Times, fps: int | float) -> ResamplePlan:
    """Return `resample_indices` together with what it says of the source's own rate."""
    seconds = _ascending(times)
    rate = source_fps(seconds) if len(seconds) > 1 and seconds[-1] > seconds[0] else None
    return ResamplePlan(indices=resample_indices(seconds, fps), fps=float(fps), source_fps=rate)


def resample_stream(timed: Iterable[tuple[float, _T]], fps: int | float) -> Iterator[_T]:
    """Yield from a stream what `resample_indices` would pick, holding one item at a time.

    Args:
        timed: Pairs of time in seconds, ascending, and item.
        fps: Frames a second wanted.
    """
    _check_fps(fps)
    start, elapsed, count = None, 0.0, 0
    held: list[_T] = []
    for time, item in timed:
        start = time if start is None else start
        elapsed = time - start
        while held and count / fps + TOLERANCE < elapsed:
            yield held[0]
            count += 1
        held = [item]
    while held and count / fps <= elapsed + TOLERANCE:
        yield held[0]
        count += 1


def pick_frames(frames: Iterable[_T], indices: Iterable[int], *, what: object) -> Iterator[_T]:
    """Yield the frames of a stream that have these numbers, holding one at a time.

    Args:
        frames: The stream.
        indices: Numbers from 0, ascending; a repeated one gives its frame again.
        what: What the frames come from, for the error.

    Raises:
        ValueError: The stream ends before an index.
    """
    numbered, number = enumerate(frames), -1
    for index in indices:
        while number < index:
            try:
                number, frame = next(numbered)
            except StopIteration:
                raise ValueError(f"{what} ends before frame {index}") from None
        yield frame


def trim_length(num_frames: int, temporal_factor: int = 4) -> int:
    """Return the longest ``temporal_factor * n + 1`` that is no longer than ``num_frames``.

    Args:
        num_frames: Frames at hand, at least 1.
        temporal_factor: Pixel frames per latent frame after the first; 4 for Wan.

    Raises:
        ValueError: An argument is below 1.
    """
    faults = [f"{name} must be at least 1, got {value}" for name, value in
              (("num_frames", num_frames), ("temporal_factor", temporal_factor)) if value < 1]  # fmt: skip
    if faults:
        raise ValueError("; ".join(faults))
    return (num_frames - 1) // temporal_factor * temporal_factor + 1


def _check_fps(fps: int | float) -> None:
    if not (fps > 0 and np.isfinite(fps)):
        raise ValueError(f"fps must be a positive number, got {fps}")


def _ascending(times: Times) -> Float64[Tensor, " n"]:
    seconds = torch.as_tensor(times, dtype=torch.float64)
    if seconds.ndim != 1 or not len(seconds):
        raise ValueError(f"times must be one value a frame and at least one frame, got shape {tuple(seconds.shape)}")
    if not bool(torch.isfinite(seconds).all()):
        raise ValueError("times must be finite numbers of seconds")
    back = torch.nonzero(seconds[1:] < seconds[:-1])
    if len(back):
        raise ValueError(f"times must not go back, but frame {int(back[0]) + 1} is earlier than the one before it")
    return seconds
