"""Write video files: H.264 to look at, ffv1 to keep every bit. Written whole or not at all, without metadata."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import av
import numpy as np
import torch
from jaxtyping import Shaped, UInt8
from torch import Tensor

from regen_train.files import whole_file

Codec = Literal["h264", "h264_444", "ffv1"]

_ENDINGS = {"h264": (".mp4", ".mkv", ".mov"), "ffv1": (".mkv",)}
_LIMITED_RANGE = 1
_YUV = ("yuv420p", "yuv444p")
# Every frame stands alone and carries checksums, so that damage is found and stays where it is.
_FFV1_OPTIONS = {"level": "3", "slicecrc": "1", "g": "1"}


def write_video(
    path: str | Path,
    frames: Iterable[UInt8[Tensor, "h w 3"]],
    fps: int | float,
    *,
    codec: Codec = "h264",
    crf: int = 18,
) -> int:
    """Write RGB frames to a file, without sound or metadata.

    ``h264`` (yuv420p, for every player) loses detail; ``h264_444`` (yuv444p, for many players) keeps the detail of
    colours and takes odd sizes; ``ffv1`` (bgr0, in .mkv) loses nothing. The file appears under its name only when
    whole. The same frames give the same bytes in ``ffv1`` alone: x264 differs now and then, even with one thread.

    Args:
        path: Ends with .mp4, .mkv or .mov for H.264, .mkv for ``ffv1``.
        frames: uint8 [t, h, w, 3], or anything that yields [h, w, 3] one by one.
        fps: Frames a second.
        codec: How to code.
        crf: Quality of H.264, 0 (best) to 51.

    Returns:
        The number of frames written.

    Raises:
        ValueError: No frame, frames of different sizes, an odd size with ``h264``, or an ending of another container.
    """
    if codec == "ffv1":
        return _write(path, frames, fps, _Coding("ffv1", "bgr0", "rgb24", _FFV1_OPTIONS))
    stored = "yuv444p" if codec == "h264_444" else "yuv420p"
    return _write(path, frames, fps, _Coding("libx264", stored, "rgb24", {"crf": str(crf), "preset": "medium"}))


def write_gray(path: str | Path, frames: Iterable[Shaped[Tensor, "h w"]], fps: int | float) -> int:
    """Write masks (uint8) or depth (uint16) as lossless ffv1 gray in .mkv; `read_gray` gives them back bit for bit.

    Args:
        path: Ends with .mkv.
        frames: [t, h, w], or anything that yields [h, w] one by one; all uint8 or all uint16.
        fps: Frames a second.

    Returns:
        The number of frames written.

    Raises:
        ValueError: No frame, frames of different sizes or types, or another ending.
    """
    iterator = iter(frames)
    first = next(iterator, None)
    if first is None:
        raise ValueError(f"{path}: no frames to write")
    formats = {torch.uint8: "gray", torch.uint16: "gray16le"}
    if first.dtype not in formats:
        raise ValueError(f"{path}: gray frames must be uint8 or uint16, got {first.dtype}")
    pixel_format = formats[first.dtype]
    return _write(path, _chain(first, iterator), fps, _Coding("ffv1", pixel_format, pixel_format, _FFV1_OPTIONS))


class _Coding:
    """An encoder: its name, what it stores, what it is given, and its options."""

    def __init__(self, encoder: str, stored: str, given: str, options: dict[str, str]) -> None:
        self.encoder, self.stored, self.given, self.options = encoder, stored, given, options


def _write(path: str | Path, frames: Iterable[Tensor], fps: int | float, coding: _Coding) -> int:
    path = Path(path)
    iterator = iter(frames)
    first = next(iterator, None)
    _check(path, first, fps, coding)
    assert first is not None
    count = 0
    with whole_file(path) as temporary, _encoder(temporary, first, fps, coding) as (container, stream):
        for frame in _chain(first, iterator):
            if frame.shape != first.shape or frame.dtype != first.dtype:
                raise ValueError(
                    f"{path}: frame {count} is {frame.dtype} {tuple(frame.shape)}, "
                    f"the ones before it {first.dtype} {tuple(first.shape)}"
                )
            container.mux(stream.encode(_picture(frame, coding, stream)))
            count += 1
        container.mux(stream.encode(None))
    return count


def _check(path: Path, first: Tensor | None, fps: int | float, coding: _Coding) -> None:
    faults = []
    endings = _ENDINGS["ffv1" if coding.encoder == "ffv1" else "h264"]
    if path.suffix.lower() not in endings:
        faults.append(f"the file must end with {' or '.join(endings)}")
    if not (fps > 0 and np.isfinite(fps)):
        faults.append(f"fps must be a positive number, got {fps}")
    if first is None:
        faults.append("no frames to write")
    elif coding.given == "rgb24" and (first.dtype != torch.uint8 or first.ndim != 3 or first.shape[-1] != 3):
        faults.append(f"frames must be uint8 [h, w, 3], got {first.dtype} {tuple(first.shape)}")
    elif coding.stored == "yuv420p" and (first.shape[0] % 2 or first.shape[1] % 2):
        height, width = first.shape[:2]
        even = f"{height - height % 2}x{width - width % 2}"
        faults.append(
            f"h264 needs even height and width, got {height}x{width}; crop to {even}, or write h264_444 or ffv1"
        )
    if faults:
        raise ValueError(f"{path}: " + "; ".join(faults))


@contextmanager
def _encoder(path: Path, first: Tensor, fps: int | float, coding: _Coding) -> Iterator[tuple[Any, Any]]:
    # NTSC rates are n/1001; other rates in use have far smaller denominators.
    rate = Fraction(fps).limit_denominator(1001)
    with av.open(str(path), "w", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream(coding.encoder, rate=rate, options={"flags": "+bitexact", **coding.options})
        stream.height, stream.width = first.shape[:2]
        stream.pix_fmt = coding.stored
        context = stream.codec_context
        context.time_base = 1 / rate
        if coding.stored in _YUV:
            matrix = _matrix(first.shape[0])
            context.colorspace = context.color_primaries = context.color_trc = matrix
            context.color_range = _LIMITED_RANGE
        yield container, stream


def _matrix(height: int) -> int:
    """Return FFmpeg's number of the colour matrix: BT.709 from 720 lines up, else BT.601 as 525 lines name it."""
    return 1 if height >= 720 else 6


def _picture(frame: Tensor, coding: _Coding, stream: Any) -> Any:
    picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame.cpu().numpy()), format=coding.given)
    if coding.stored in _YUV:
        return picture.reformat(
            format=coding.stored,
            dst_colorspace=1 if stream.height >= 720 else 5,
            src_color_range=2,
            dst_color_range=_LIMITED_RANGE,
            interpolation="BICUBIC",
        )
    return picture.reformat(format=coding.stored)


def _chain(first: Tensor, rest: Iterator[Tensor]) -> Iterator[Tensor]:
    yield first
    yield from rest
