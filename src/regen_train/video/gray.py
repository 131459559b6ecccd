"""Read the gray videos of signals: masks and depth, bit for bit."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from jaxtyping import Shaped
from torch import Tensor

from regen_train.video.container import decode_stream, open_video

_FORMATS = {"gray": torch.uint8, "gray16le": torch.uint16}


def decode_gray(path: str | Path) -> Iterator[Shaped[Tensor, "h w"]]:
    """Yield the frames of a lossless gray video, uint8 or uint16.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is damaged, lossy, or not gray.
    """
    with open_video(path) as (container, stream):
        for frame in decode_stream(path, container, stream):
            found = f"{stream.codec_context.name} {frame.format.name}"
            if stream.codec_context.name != "ffv1" or frame.format.name not in _FORMATS:
                raise ValueError(f"{path} must be ffv1 with pixel format gray or gray16le, so lossless; got {found}")
            yield torch.from_numpy(frame.to_ndarray())


def read_gray(
    path: str | Path, *, indices: Sequence[int] | None = None, num_frames: int | None = None
) -> Shaped[Tensor, "t h w"]:
    """Read a lossless gray video.

    Args:
        path: An ffv1 file of pixel format gray (gives uint8) or gray16le (gives uint16).
        indices: Keep only these frames, in this order; a frame may come more than once. None keeps all.
        num_frames: How many frames the file must have; None takes any number.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is damaged, lossy, not gray, of another length than ``num_frames``, or too short for
            ``indices``.
    """
    wanted = None if indices is None else set(indices)
    kept: dict[int, Tensor] = {}
    count = 0
    for index, frame in enumerate(decode_gray(path)):
        if index == num_frames:
            raise ValueError(f"{path} has more than the {num_frames} frames it should have")
        if wanted is None or index in wanted:
            kept[index] = frame
        count += 1
    if num_frames is not None and count < num_frames:
        raise ValueError(f"{path} has {count} frames, it should have {num_frames}")
    order = range(count) if indices is None else indices
    if not order or not all(0 <= index < count for index in order):
        raise ValueError(f"{path} has {count} frames; asked for numbers {list(order)[:5]} ...")
    return torch.stack([kept[index] for index in order])
