"""Write depth of any unit as 16-bit gray, on one scale for the clip, without holding the clip."""

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

import numpy as np
import torch
from jaxtyping import Float, Shaped, UInt16
from torch import Tensor

from regen_train.video import write_gray

_MAX = 65535


def write_depth_stream(path: Path, windows: Iterable[Float[Tensor, "..."]], fps: int | float) -> int:
    """Write inverse depth that comes window by window; the file appears only when whole.

    The clip's least value becomes 0 (far), its largest 65535 (near); a constant clip becomes 0. Since the range is
    known at the end only, windows lie as float32 in a nameless temporary file beside ``path`` meanwhile: 8 MB a frame
    of 1080p.

    Args:
        path: Ends with .mkv; `read_depth` reads it.
        windows: Inverse depth [t, h, w], near = large, finite, in any unit, on one scale for the clip.
        fps: Frames a second.

    Returns:
        The number of frames written.

    Raises:
        ValueError: There is no frame, frames differ in size, or a value is not finite; says at which frame.
    """
    with tempfile.TemporaryFile(dir=path.parent, prefix=f".{path.stem}.") as spool:
        shape, low, high = _spool_windows(spool, windows, path)
        spool.seek(0)
        return write_gray(path, _scaled_frames(spool, shape, low, high), fps)


def _spool_windows(
    spool: IO[bytes], windows: Iterable[Float[Tensor, "..."]], path: Path
) -> tuple[tuple[int, ...], float, float]:
    shape: tuple[int, ...] = ()
    low, high, count = np.inf, -np.inf, 0
    for window in windows:
        values = window.detach().to(device="cpu", dtype=torch.float32)
        shape = shape or tuple(values.shape[1:])
        if tuple(values.shape[1:]) != shape:
            raise ValueError(f"{path}: depth at frame {count} is {list(values.shape[1:])}, before it {list(shape)}")
        broken = ~values.isfinite().flatten(1).all(1)
        if broken.any():
            at = count + int(broken.nonzero()[0])
            raise ValueError(f"{path}: depth at frame {at} is not finite; the model failed there, or ran out of range")
        if values.numel():
            low, high = min(low, float(values.min())), max(high, float(values.max()))
        spool.write(values.contiguous().numpy().data)
        count += len(values)
    if not count or low > high:
        raise ValueError(f"{path}: no frames of depth to write")
    return shape, low, high


def _scaled_frames(
    spool: IO[bytes], shape: tuple[int, ...], low: float, high: float
) -> Iterator[Shaped[Tensor, "h w"]]:
    size = 4 * shape[0] * shape[1]
    while data := spool.read(size):
        yield torch.from_numpy(_to_uint16(np.frombuffer(data, np.float32).reshape(shape), low, high))


def _to_uint16(depth: Float[np.ndarray, "h w"], low: float, high: float) -> UInt16[np.ndarray, "h w"]:
    # float64: float32 has too few digits where the range is small against the values
    scaled = (depth.astype(np.float64) - low) * (_MAX / (high - low) if high > low else 0.0)
    return np.rint(scaled).clip(0, _MAX).astype(np.uint16)
