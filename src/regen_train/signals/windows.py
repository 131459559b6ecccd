"""A clip's frames in windows of bounded memory."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from regen_train.video import decode_frames


def frame_windows(clip: Path, size: int, *, max_frames: int | None = None) -> Iterator[UInt8[np.ndarray, "t h w 3"]]:
    """Yield a clip's upright RGB frames in consecutive windows; the last may be shorter.

    Args:
        clip: The video file.
        size: Frames a window.
        max_frames: Stop after so many frames; None takes all.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: ``size`` is below 1, or the file is no video or damaged.
    """
    if size < 1:
        raise ValueError(f"a window must have at least 1 frame, got {size}")
    frames = decode_frames(clip, max_frames=max_frames)
    while window := [frame.rgb for frame in islice(frames, size)]:
        yield np.stack(window)
