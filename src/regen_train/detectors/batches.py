"""Frames in batches of bounded memory."""

from collections.abc import Iterator

from torch import Tensor


def batched(frames: Tensor, size: int) -> Iterator[Tensor]:
    """Yield consecutive frames, ``size`` at a time; the last batch may be smaller.

    Raises:
        ValueError: ``size`` is below 1.
    """
    if size < 1:
        raise ValueError(f"batch_size must be at least 1, got {size}")
    yield from (frames[first : first + size] for first in range(0, len(frames), size))
