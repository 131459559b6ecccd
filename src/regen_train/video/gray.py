"""Read the gray videos of signals: masks and depth, bit for bit."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from jaxtyping import Shaped
from torch import Tensor

from regen_train.video.decode import decode_stream, open_video

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


def read_gray(path: str | Path, *, indices: Sequence[int] | None = None) -> Shaped[Tensor, "t h w"]:
    """Read a lossless gray video.

    Args:
        path: An ffv1 file of pixel format gray (gives uint8) or gray16le (gives uint16).
        indices: Keep only these frames, in this order; a frame may come more than once. None keeps all.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is damaged, lossy, not gray, or too short for ``indices``.
    """
    wanted = None if indices is None else set(indices)
    kept = {
        index: frame for index, frame in enumerate(decode_gray(path)) if wanted is None or index in wanted
    }  # fmt: skip
    order = list(kept) if indices is None else list(indices)
    missing = sorted(set(order) - set(kept))
    if missing or not order:
        raise ValueError(f"{path} holds no frame number {missing[:5]}" if missing else f"{path} holds no frames")
    return torch.stack([kept[index] for index in order])
