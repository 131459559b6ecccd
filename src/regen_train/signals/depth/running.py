"""Keep the depth of a whole clip on one scale while it passes by, frame by frame or window by window."""

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from regen_train.signals.depth.alignment import (
    ScaleShift,
    Statistics,
    fit_scale_shift,
    match_statistics,
    sample_points,
    statistics_of,
)

MAX_DRIFT = 8.0
"""The spread of depth stays within this factor of the clip's first frame's, its median within so many spreads."""

_MIN_AGREEMENT = 0.5
"""With the key frame; below, the camera has moved on."""

_MIN_LIKENESS = 0.3
"""With the frame before; maps that have nothing in common agree on up to a quarter of the points by chance."""


class FrameAligner:
    """Bring frames that were estimated one by one to the scale of the first.

    Each frame is fitted to a key frame, so that in front of a resting camera no error adds up. When less than half of
    the points agree with it (the camera moved on), the frame is fitted to the one before and becomes the key frame;
    when they have nothing in common (a cut), median and spread of the clip's first frame are taken over. Errors that
    add up over many key frames end at `MAX_DRIFT`. What is remembered of a frame is a few thousand points.
    """

    def __init__(self) -> None:
        self._anchor: Statistics | None = None
        self._key: np.ndarray | None = None
        self._last: np.ndarray | None = None

    def align(self, depth: Float[Tensor, "h w"]) -> Float[Tensor, "h w"]:
        """Return the clip's next frame on the clip's scale.

        Args:
            depth: Inverse depth up to scale and shift; all frames of one size.
        """
        points = sample_points(depth[None])
        fit, is_key = self._fit(points)
        if self._anchor is not None:
            fit = _bounded(fit, points, self._anchor)
        self._last = fit.scale * points + fit.shift
        self._key = self._last if is_key else self._key
        if self._anchor is None and (found := statistics_of(self._last)).spread > 0:
            self._anchor = found
        return fit.apply(depth)

    def _fit(self, points: np.ndarray) -> tuple[ScaleShift, bool]:
        if self._key is None or self._last is None:
            return ScaleShift(1.0, 0.0), True
        fit = fit_scale_shift(points, self._key)
        if fit.agreement >= _MIN_AGREEMENT:
            return fit, False
        fit = fit_scale_shift(points, self._last)
        if fit.agreement < _MIN_LIKENESS:
            fit = match_statistics(statistics_of(points), self._anchor or statistics_of(self._last))
        return fit, True


def join_windows(windows: Iterable[Float[Tensor, "_ h w"]], overlap: int) -> Iterator[Float[Tensor, "t h w"]]:
    """Bring overlapping windows to the scale of the first, and yield every frame once.

    Each window is fitted to the one before on the frames that both have, and cross-faded with it there.

    Args:
        windows: Inverse depth, each on its own scale and shift; from the second on, their first ``overlap`` frames
            are the last ones of the window before.
        overlap: Frames two windows share, at least 1; every window has more.
    """
    anchor: Statistics | None = None
    tail: Tensor | None = None
    for window in windows:
        assert len(window) > overlap >= 1 or tail is None
        aligned = window
        if tail is not None:
            shared = sample_points(window[:overlap])
            fit = fit_scale_shift(shared, sample_points(tail))
            fit = fit if anchor is None else _bounded(fit, shared, anchor)
            weight = torch.arange(1, overlap + 1, device=window.device)[:, None, None] / (overlap + 1)
            aligned = fit.apply(window)
            aligned[:overlap] = torch.lerp(tail, aligned[:overlap], weight.to(window.dtype))
        if anchor is None and (found := statistics_of(sample_points(aligned))).spread > 0:
            anchor = found
        if len(aligned) > overlap:
            yield aligned[:-overlap]
        tail = aligned[-overlap:]
    if tail is not None:
        yield tail


def _bounded(fit: ScaleShift, points: np.ndarray, anchor: Statistics) -> ScaleShift:
    """Change a fit as little as keeps the result within `MAX_DRIFT` of the clip's start."""
    found = statistics_of(fit.scale * points + fit.shift)
    if found.spread <= 0:
        return fit
    spread = min(max(found.spread, anchor.spread / MAX_DRIFT), anchor.spread * MAX_DRIFT)
    reach = MAX_DRIFT * anchor.spread
    median = min(max(found.median, anchor.median - reach), anchor.median + reach)
    if (spread, median) == (found.spread, found.median):
        return fit
    change = match_statistics(found, Statistics(median, spread))
    return ScaleShift(change.scale * fit.scale, change.scale * fit.shift + change.shift, fit.agreement)
