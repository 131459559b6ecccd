"""Read video files: upright frames with exact times, one at a time."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter
from jaxtyping import UInt8

from regen_train.video.colour import read_colour
from regen_train.video.container import decode_stream, open_video
from regen_train.video.orientation import read_orientation

logger = logging.getLogger(__name__)

_CHROMA_QUALITY = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
_FULL_RANGE = 2

_COARSE_TICK = 0.999e-3
"""Seconds: from here up a container's clock is too coarse to tell a frame's time (Matroska counts milliseconds)."""


@dataclass(frozen=True)
class VideoInfo:
    """What a video file says of itself, and how its first frame looks.

    Args:
        num_frames: Frames the container claims; None where it does not say. `count_frames` counts them.
        height: Pixels, upright.
        width: Pixels, upright.
        fps: Average rate the container claims; None where it does not say.
        duration: Seconds the container claims; None where it does not say.
        rotation: Degrees counter-clockwise by which the coded picture has been turned to stand upright.
        has_audio: Whether there is sound.
        codec: Name of the video codec.
        pixel_format: FFmpeg's name of the coded pixel format.
        pixel_aspect: Width of a coded pixel divided by its height, before any turn; 1 where the file does not say.
    """

    num_frames: int | None
    height: int
    width: int
    fps: float | None
    duration: float | None
    rotation: int
    has_audio: bool
    codec: str
    pixel_format: str
    pixel_aspect: Fraction


@dataclass(frozen=True)
class Frame:
    """One decoded picture.

    Args:
        index: Number in the order of display, from 0.
        time: Seconds on the clip's own clock, at which it appears.
        rgb: Upright picture.
    """

    index: int
    time: float
    rgb: UInt8[np.ndarray, "h w 3"]


def probe_video(path: str | Path) -> VideoInfo:
    """Read what a file says of itself, and decode its first frame.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is empty, no video, without a video stream, or damaged at its start.
    """
    with open_video(path) as (container, stream):
        frame = next(decode_stream(path, container, stream), None)
        if frame is None:
            raise ValueError(f"{path} holds no frame that can be decoded")
        orientation = read_orientation(frame, path)
        height, width = orientation.upright_size(frame.height, frame.width)
        return VideoInfo(
            num_frames=stream.frames or None,
            height=height,
            width=width,
            fps=float(stream.average_rate) if stream.average_rate else None,
            duration=container.duration / 1e6 if container.duration else None,
            rotation=orientation.quarter_turns * 90,
            has_audio=any(other.type == "audio" for other in container.streams),
            codec=stream.codec_context.name,
            pixel_format=frame.format.name,
            pixel_aspect=Fraction(stream.sample_aspect_ratio or 1),
        )


def decode_frames(path: str | Path, *, max_frames: int | None = None) -> Iterator[Frame]:
    """Decode a file frame by frame, holding one picture at a time.

    Rotation and mirroring recorded in the file are applied. Colours follow the file's metadata; where it is silent,
    BT.709 is assumed from 720 lines up and BT.601 below, in limited range, and logged. Times are the file's own;
    where a container rounds them to milliseconds but declares a constant rate that agrees, they are made exact again.

    Args:
        path: The video file.
        max_frames: Stop after so many frames.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is no video or damaged, its frames change size, or its times go back.
    """
    reformatter = VideoReformatter()
    for index, time, frame in decode_timed(path, max_frames=max_frames):
        if index == 0:
            orientation = read_orientation(frame, path)
        yield Frame(index=index, time=time, rgb=orientation.apply(_to_rgb(frame, reformatter, path)))


def decode_timed(path: str | Path, *, max_frames: int | None = None) -> Iterator[tuple[int, float, Any]]:
    """Yield number, exact time and PyAV's own frame, not yet turned into a picture. Raises as `decode_frames`."""
    with open_video(path) as (container, stream):
        clock = _Clock(path, stream)
        shape: tuple[int, int] | None = None
        for index, frame in enumerate(decode_stream(path, container, stream)):
            if index == max_frames:
                return
            shape = shape or (frame.height, frame.width)
            if shape != (frame.height, frame.width):
                raise ValueError(
                    f"{path} changes from {shape[0]}x{shape[1]} to {frame.height}x{frame.width} (height x width) "
                    f"at frame {index}; cut it there into two files"
                )
            yield index, clock.time(frame, index), frame
        if shape is None:
            raise ValueError(f"{path} holds no frame that can be decoded")
        clock.check_end(container.duration)


def _to_rgb(frame: Any, reformatter: Any, path: str | Path) -> UInt8[np.ndarray, "h w 3"]:
    colour = read_colour(frame, str(path))
    try:
        picture = reformatter.reformat(
            frame,
            format="rgb24",
            src_colorspace=colour.matrix,
            src_color_range=colour.value_range,
            dst_color_range=_FULL_RANGE,
            interpolation=_CHROMA_QUALITY,
        )
        return np.asarray(picture.to_ndarray())
    except av.error.FFmpegError as error:
        raise ValueError(
            f"{path} has frames of {frame.format.name} that FFmpeg cannot turn into RGB: {error.strerror}; re-encode it"
        ) from error


def count_frames(path: str | Path, *, at_most: int | None = None) -> int:
    """Count the frames that decode, without turning them into pictures; stop at ``at_most``.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is no video, or damaged.
    """
    count = 0
    with open_video(path) as (container, stream):
        for _ in decode_stream(path, container, stream):
            count += 1
            if count == at_most:
                break
    return count


class _Clock:
    """Tell each frame's time, exact where the container's clock is coarse but the rate constant."""

    def __init__(self, path: str | Path, stream: Any) -> None:
        self._path = path
        self._tick = float(stream.time_base or 0)
        self._rate: Fraction | None = stream.average_rate or None
        self._first: float | None = None
        self._last = 0.0

    def time(self, frame: Any, index: int) -> float:
        time = self._raw_time(frame, index)
        if self._first is None:
            self._first = self._last = time
        time = self._unrounded(time, self._first)
        if time < self._last:
            raise ValueError(
                f"{self._path}: frame {index} is shown at {time:.6f} s, before the one it follows "
                f"({self._last:.6f} s); re-encode the file to repair its timestamps"
            )
        self._last = time
        return time

    def check_end(self, duration: int | None) -> None:
        """Warn where a file ends long before it says; sound, or a last picture held long, may be why."""
        shown = self._last - (self._first or 0.0)
        if duration and self._rate and duration / 1e6 - shown > max(1.0, float(3 / self._rate)):
            logger.warning(
                "%s states %.2f s, but its last frame is at %.2f s; it may be damaged",
                self._path,
                duration / 1e6,
                shown,
            )

    def _raw_time(self, frame: Any, index: int) -> float:
        if frame.time is not None:
            return float(frame.time)
        if self._rate is None:
            raise ValueError(f"{self._path}: frame {index} has no timestamp and the stream no rate; re-encode the file")
        return 0.0 if self._first is None else self._last + float(1 / self._rate)

    def _unrounded(self, time: float, first: float) -> float:
        if self._rate is None or self._tick < _COARSE_TICK:
            return time
        exact = first + round((time - first) * self._rate) / float(self._rate)
        return exact if abs(exact - time) <= 0.5 * self._tick + 1e-9 else time
