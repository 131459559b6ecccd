"""Masks from frame to frame: how much they flicker, and pieces that vanish or appear where nobody leaves or enters."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from regen_train.guard.settings import GuardSettings

Mask = NDArray[np.bool_]

_SHORT_SIDE = 270
"""Pixels at which masks are compared: pieces of people are far larger than the pixels left out."""


@dataclass(frozen=True)
class Vanishing:
    """A piece of mask that one of two neighbouring frames lacks.

    Args:
        frame: The frame that lacks it.
        area: The piece's share of the picture.
        kept: Share of it that the frame still shows.
    """

    frame: int
    area: float
    kept: float


@dataclass(frozen=True)
class _Still:
    """A mask, small, and the same grown by as much as people move."""

    frame: int
    mask: Mask
    near: Mask


def find_vanished(first: int, before: Mask, second: int, after: Mask, settings: GuardSettings) -> list[Vanishing]:
    """Return pieces of mask that one of two neighbouring frames lacks, though nobody can have left or entered there.

    Whoever appears from nowhere was there before, unmasked. What lies within ``border_band`` of the border may have
    left or entered.

    Args:
        first: Number of the earlier frame.
        before: Its mask [h, w].
        second: Number of the later frame.
        after: Its mask [h, w].
        settings: Thresholds.
    """
    old, new = _still(first, before, settings), _still(second, after, settings)
    inner = _inner(old.mask.shape, settings.border_band)
    lost, gained = old.mask & ~new.near, new.mask & ~old.near
    return [*_missing(old, lost, second, inner, settings), *_missing(new, gained, first, inner, settings)]


def measure_flicker(before: Mask, now: Mask, after: Mask, settings: GuardSettings) -> float | None:
    """Return how much of a mask is gone for one frame alone, beyond what people can have moved.

    Motion goes on, failing masks return: only what both neighbours have and this frame lacks counts.

    Args:
        before: Mask [h, w] of the frame before.
        now: Of the frame.
        after: Of the frame after.
        settings: Thresholds.

    Returns:
        A share of the largest of the three masks; None where all are too small to tell.
    """
    old, own, new = (_still(0, mask, settings) for mask in (before, now, after))
    size = max(int(still.mask.sum()) for still in (old, own, new))
    if size < settings.vanish_area * own.mask.size:
        return None
    return int((old.mask & new.mask & ~own.near).sum()) / size


def _missing(there: _Still, gone: Mask, frame: int, inner: Mask, settings: GuardSettings) -> list[Vanishing]:
    """Return the connected pieces of a mask of which ``frame`` keeps too little."""
    smallest = (1 - settings.vanish_kept) * settings.vanish_area * there.mask.size
    if (gone & inner).sum() < 0.5 * smallest:
        return []
    count, labels, stats, _ = cv2.connectedComponentsWithStats(there.mask.astype(np.uint8), connectivity=8)
    vanished = []
    for label in range(1, count):
        pixels = int(stats[label, cv2.CC_STAT_AREA])
        mine = gone & (labels == label)
        # All that is gone, or by far the most of it, near the border: somebody is leaving.
        if pixels < settings.vanish_area * there.mask.size or (mine & inner).sum() < 0.5 * mine.sum():
            continue
        kept = 1 - float(mine.sum()) / pixels
        if kept < settings.vanish_kept:
            vanished.append(Vanishing(frame, pixels / there.mask.size, kept))
    return vanished


def _still(frame: int, mask: Mask, settings: GuardSettings) -> _Still:
    step = max(1, min(mask.shape) // _SHORT_SIDE)
    small = np.ascontiguousarray(mask[::step, ::step])
    if not small.any():
        return _Still(frame, small, small)
    distance = cv2.distanceTransform((~small).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return _Still(frame, small, np.asarray(distance <= settings.vanish_motion * min(small.shape)))


def _inner(shape: tuple[int, ...], band: float) -> Mask:
    height, width = shape
    edge = int(band * min(shape))
    inner = np.zeros(shape, bool)
    inner[edge : height - edge, edge : width - edge] = True
    return inner
