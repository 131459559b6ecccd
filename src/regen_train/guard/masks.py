"""Masks from frame to frame: pieces of people that vanish or appear where nobody can have left or entered."""

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


def find_vanished(frame: int, before: Mask, after: Mask, settings: GuardSettings) -> list[Vanishing]:
    """Return the pieces of one mask that the other lacks.

    A piece is a connected region of ``before``. What lies within ``border_band`` of the border may have left.

    Args:
        frame: Number of the frame that ``after`` belongs to.
        before: Mask [h, w] of one frame.
        after: Mask [h, w] of its neighbour; swap the two to find what has appeared.
        settings: Thresholds.
    """
    step = max(1, min(before.shape) // _SHORT_SIDE)
    before, after = np.ascontiguousarray(before[::step, ::step]), np.ascontiguousarray(after[::step, ::step])
    if not (before & ~after).any():
        return []
    short = min(before.shape)
    near = _grow(after, settings.vanish_motion * short)
    lost = before & ~near
    if not lost.any():
        return []
    count, labels, stats, _ = cv2.connectedComponentsWithStats(before.astype(np.uint8), connectivity=8)
    inner = _inner(before.shape, settings.border_band)
    vanished = []
    for label in range(1, count):
        area = float(stats[label, cv2.CC_STAT_AREA]) / before.size
        gone = lost & (labels == label)
        # Judged by what has gone from where nobody leaves: all of it, or by far the most, near the border is leaving.
        if area < settings.vanish_area or (gone & inner).sum() < 0.5 * gone.sum():
            continue
        kept = 1 - float(gone.sum()) / (area * before.size)
        if kept < settings.vanish_kept:
            vanished.append(Vanishing(frame, area, kept))
    return vanished


def _grow(mask: Mask, radius: int | float) -> Mask:
    if not mask.any():
        return mask
    distance = cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.asarray(distance <= radius)


def _inner(shape: tuple[int, ...], band: float) -> Mask:
    height, width = shape
    edge = int(band * min(shape))
    inner = np.zeros(shape, bool)
    inner[edge : height - edge, edge : width - edge] = True
    return inner
