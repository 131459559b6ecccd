"""Masks from frame to frame: how much they jitter, and pieces that vanish or appear where nobody can leave or enter."""

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
class Change:
    """How the masks of two neighbouring frames differ, beyond what people can have moved.

    Args:
        churn: Area lost and gained away from the border, as a share of the larger mask; 0 if both are tiny.
        vanished: Pieces that one of the two lacks. Whoever appears from nowhere was there before, unmasked.
    """

    churn: float
    vanished: tuple[Vanishing, ...]


@dataclass(frozen=True)
class _Still:
    """A mask, small, and the same grown by as much as people move."""

    frame: int
    mask: Mask
    near: Mask


def compare_masks(first: int, before: Mask, second: int, after: Mask, settings: GuardSettings) -> Change:
    """Compare the masks [h, w] of two neighbouring frames.

    What lies within ``border_band`` of the border may have left or entered.

    Args:
        first: Number of the earlier frame.
        before: Its mask.
        second: Number of the later frame.
        after: Its mask.
        settings: Thresholds.
    """
    old, new = _still(first, before, settings), _still(second, after, settings)
    lost, gained = old.mask & ~new.near, new.mask & ~old.near
    inner = _inner(lost.shape, settings.border_band)
    size = max(int(old.mask.sum()), int(new.mask.sum()))
    if size < settings.vanish_area * old.mask.size:
        return Change(0.0, ())
    churn = (int((lost & inner).sum()) + int((gained & inner).sum())) / size
    if churn >= settings.jitter:
        churn = min(churn, _churn_in_step(old, new, inner, settings))
    vanished = [*_missing(old, lost, second, inner, settings), *_missing(new, gained, first, inner, settings)]
    return Change(churn, tuple(vanished))


def _churn_in_step(old: _Still, new: _Still, inner: Mask, settings: GuardSettings) -> float:
    """Return the churn if people had moved as the centre of their masks has: a fast walk is no jitter."""
    centres = [np.argwhere(still.mask).mean(0) if still.mask.any() else None for still in (old, new)]
    if centres[0] is None or centres[1] is None:
        return np.inf
    down, right = (round(float(value)) for value in centres[0] - centres[1])
    matrix = np.array([[1, 0, right], [0, 1, down]], np.float32)
    moved = cv2.warpAffine(new.mask.astype(np.uint8), matrix, new.mask.shape[::-1], flags=cv2.INTER_NEAREST) > 0
    near = _still(new.frame, moved, settings).near
    changed = ((old.mask & ~near) | (moved & ~old.near)) & inner
    return float(changed.sum()) / max(int(old.mask.sum()), int(moved.sum()), 1)


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
