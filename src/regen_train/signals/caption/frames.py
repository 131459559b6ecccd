"""A few frames that show the whole of a clip."""

from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from regen_train.video import count_frames, decode_frames


def spread_frames(clip: Path, count: int, *, max_frames: int | None = None) -> list[UInt8[np.ndarray, "h w 3"]]:
    """Return evenly spread frames, first and last among them; all frames of a clip that has no more.

    Args:
        clip: The video file.
        count: How many, at least 2.
        max_frames: Spread them over the first so many frames; None takes all.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is no video or damaged.
    """
    length = count_frames(clip, at_most=max_frames)
    wanted = {round(number * (length - 1) / (count - 1)) for number in range(count)}
    return [frame.rgb for frame in decode_frames(clip, max_frames=length) if frame.index in wanted]
