"""Run an extractor over a clip in overlapping windows, so that memory is bounded and tracks go on."""

from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from regen_train.signals.mask.canvas import Canvas
from regen_train.signals.mask.holes import fill_holes
from regen_train.video import decode_frames

OVERLAP = 4
"""Frames that a window shares with the one before: enough to tell by their place who is who."""

Find = Callable[[UInt8[np.ndarray, "t h w 3"], Canvas], None]


def mask_windows(
    clip: Path, find: Find, *, window: int, max_frames: int | None, max_hole: float, device: str = "cpu"
) -> Iterator[UInt8[Tensor, "t h w"]]:
    """Yield the masks of a clip, each frame once and in order.

    The frames that two windows share are painted by both. A window's canvas begins with what the one before painted
    on them, so that whoever is there in both keeps their track id.

    Args:
        clip: The video file.
        find: Paints the people of a window's frames on its canvas.
        window: Frames that are held at once, above `OVERLAP`.
        max_frames: Stop after so many frames; None takes all.
        max_hole: Largest hole to fill, as a share of the frame's area.
        device: Where the canvas lies.

    Raises:
        FileNotFoundError: There is no such clip.
        ValueError: ``window`` is too small, or the clip is no video or damaged.
    """
    if window <= OVERLAP:
        raise ValueError(f"window must be at least {OVERLAP + 1} frames, of which {OVERLAP} are shared; got {window}")
    canvas: Canvas | None = None
    for frames in overlapping_windows(clip, window, max_frames=max_frames):
        canvas = _next_canvas(canvas, frames.shape[:3], device)
        find(frames, canvas)
        done = canvas.labels[: max(0, len(frames) - OVERLAP)]
        if len(done):
            yield fill_holes(done, max_hole)
    if canvas is not None:
        yield fill_holes(canvas.labels[-OVERLAP:], max_hole)


def overlapping_windows(
    clip: Path, size: int, *, max_frames: int | None = None
) -> Iterator[UInt8[np.ndarray, "t h w 3"]]:
    """Yield a clip's upright RGB frames; each window but the first begins with the last `OVERLAP` of the one before."""
    frames = decode_frames(clip, max_frames=max_frames)
    window = [frame.rgb for frame in islice(frames, size)]
    while window:
        yield np.stack(window)
        new = [frame.rgb for frame in islice(frames, size - OVERLAP)]
        window = window[-OVERLAP:] + new if new else []


def _next_canvas(last: Canvas | None, shape: tuple[int, ...], device: str) -> Canvas:
    labels = torch.zeros(shape, dtype=torch.uint8, device=device)
    if last is None:
        return Canvas(labels)
    labels[:OVERLAP] = last.labels[-OVERLAP:]
    return Canvas(labels, next_track=last.next_track)
