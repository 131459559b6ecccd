"""Open video files, and say clearly what is wrong with one that cannot be read whole."""

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import av

from regen_train.video.ffv1 import checksums_hold

_EBML_HEADER, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"
_REMEDY = "copy or make the file again, or cut that part out"


@contextlib.contextmanager
def open_video(path: str | Path) -> Iterator[tuple[Any, Any]]:
    """Open a file for decoding and find its video stream; yields PyAV's container and stream.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is empty, cut off, no video, or without a video stream.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no video file at {path}")
    if not path.stat().st_size:
        raise ValueError(f"{path} is empty (0 bytes); copy or extract it again")
    try:
        container = av.open(str(path))
    except av.error.FFmpegError as error:
        raise ValueError(f"{path} is not a video that FFmpeg can open, or is cut off: {error.strerror}") from error
    with container:
        # A song's cover counts as a video stream, of one attached picture.
        streams = [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
        if not streams:
            found = ", ".join(sorted({other.type for other in container.streams})) or "nothing"
            raise ValueError(f"{path} has no video stream; it holds {found}")
        _check_whole(path, streams[0])
        # Not by frames: then whether a damaged frame is marked as such is a race between threads.
        streams[0].thread_type = "SLICE"
        yield container, streams[0]


def decode_stream(path: str | Path, container: Any, stream: Any) -> Iterator[Any]:
    """Yield PyAV's frames in the order of display, and name the place where a file is damaged."""
    packets = container.demux(stream)
    index = 0
    try:
        for packet in _sound_ffv1(packets, path) if stream.codec_context.name == "ffv1" else packets:
            for frame in packet.decode():
                if frame.is_corrupt:
                    raise ValueError(f"{path} is damaged at frame {index}; {_REMEDY}")
                yield frame
                index += 1
    except av.error.FFmpegError as error:
        raise ValueError(f"{path} is damaged or cut off after {index} frames: {error.strerror}") from error


def _sound_ffv1(packets: Iterable[Any], path: str | Path) -> Iterator[Any]:
    """Pass on coded frames whose checksums hold; where the first has checksums, all must."""
    sealed: bool | None = None
    for index, packet in enumerate(packets):
        if packet.size:
            holds = checksums_hold(bytes(packet))
            sealed = holds is not None if sealed is None else sealed
            if holds is False or sealed != (holds is not None):
                raise ValueError(f"{path} is damaged at frame {index}: its checksum does not hold; {_REMEDY}")
        yield packet


def _check_whole(path: Path, stream: Any) -> None:
    """Refuse a file that states more than it holds: FFmpeg would decode what is left as if it were all."""
    indexed = max((entry.pos + entry.size for entry in stream.index_entries), default=0)
    end, size = max(indexed, _matroska_end(path)), path.stat().st_size
    if end > size:
        raise ValueError(f"{path} is cut off: {size} bytes of at least {end}; copy it again")


def _matroska_end(path: Path) -> int:
    """Return where a Matroska or WebM file says it ends; 0 for other files and for streams of unknown length."""
    with path.open("rb") as file:
        head = file.read(4096)
    if not head.startswith(_EBML_HEADER):
        return 0
    size, start = _ebml_number(head, len(_EBML_HEADER))
    start += size or 0
    if head[start : start + len(_SEGMENT)] != _SEGMENT:
        return 0
    size, start = _ebml_number(head, start + len(_SEGMENT))
    return 0 if size is None else start + size


def _ebml_number(data: bytes, start: int) -> tuple[int | None, int]:
    """Read a number whose leading zero bits tell its length; returns it (None for unknown) and where it ends.

    Source: RFC 8794, sections 4 and 6.2.
    """
    length = 9 - data[start : start + 1].ljust(1, b"\x01")[0].bit_length()
    unknown = (1 << 7 * length) - 1
    value = int.from_bytes(data[start : start + length], "big") & unknown
    return (None if value == unknown else value), start + length
