"""Skeletons against masks: which points lie outside, and whether a skeleton looks like a person at all."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from regen_train.guard.settings import GuardSettings
from regen_train.skeleton.topology import SCORE_THRESHOLD

Points = NDArray[np.float64]

_MIN_POINTS = 4
"""Fewer confident points than this are no skeleton to speak of."""

_BODY = 17
_BODY_AND_FEET = 23

_PARTS = {
    "head": (0, 1, 2, 3, 4),
    "left arm": (7, 9),
    "right arm": (8, 10),
    "trunk": (5, 6, 11, 12),
    "left leg": (13, 15, 17, 18, 19),
    "right leg": (14, 16, 20, 21, 22),
    "face": tuple(range(23, 91)),
    "left hand": tuple(range(91, 112)),
    "right hand": tuple(range(112, 133)),
}
"""Points that are open together: of a whole skeleton a bare leg is a twentieth."""

_SHOULDERS, _HIPS, _KNEES, _HEAD = (5, 6), (11, 12), (13, 14), (0, 1, 2, 3, 4)

_MIN_THIGH, _MAX_THIGH = 0.25, 2.5
_MAX_SHOULDERS = 2.5
"""In torso lengths. Thighs are 0.9, shoulders 0.7 when seen from the front; people who bend or sit shorten them."""

_MIN_EXTENT = 0.05
"""Of the picture's short side: smaller figures are not told from noise."""

_LINK_DISTANCE, _LINK_RATIO = 0.5, 2.0
"""From frame to frame a person moves less than half of their extent and does not double in size."""


@dataclass(frozen=True)
class Skeleton:
    """One person's points in one frame.

    Args:
        frame: Frame number.
        slot: Place among the frame's people.
        points: Confident points inside the picture: of body and feet, or of all where those are few.
        exposed: Those of them outside the dilated mask by more than the tolerance.
        open_parts: Parts of the body of which half the points, and two at least, are exposed.
        extent: Longer side of the points' box, pixels.
        centre: (x, y), the points' median.
        plausible: Whether it is put together as a person is.
    """

    frame: int
    slot: int
    points: int
    exposed: int
    open_parts: tuple[str, ...]
    extent: float
    centre: tuple[float, float]
    plausible: bool

    @property
    def exposed_share(self) -> float:
        """Share of the points that are exposed."""
        return self.exposed / self.points


def measure_skeletons(
    frame: int,
    keypoints: NDArray[np.float32],
    scores: NDArray[np.float32],
    outside: NDArray[np.float32],
    settings: GuardSettings,
) -> list[Skeleton]:
    """Measure the people of one frame.

    Args:
        frame: Its number.
        keypoints: [p, 133, 2] in pixels of the mask, NaN where absent.
        scores: [p, 133].
        outside: How far each pixel [h, w] lies outside the dilated mask; 0 or less within.
        settings: Thresholds.
    """
    found = [_measure(frame, slot, keypoints[slot], scores[slot], outside, settings) for slot in range(len(keypoints))]
    return [skeleton for skeleton in found if skeleton is not None]


def distance_outside(mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return each pixel's distance to the mask [h, w] in pixels: 0 inside, infinite if the mask is empty."""
    if not mask.any():
        return np.full(mask.shape, np.inf, np.float32)
    return np.asarray(cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE))


def longest_run(skeletons: list[Skeleton]) -> int:
    """Return over how many frames in a row the longest-lived of these skeletons can be followed; one frame may lack."""
    best, ends = 0, dict[int, list[tuple[Skeleton, int]]]()
    for skeleton in sorted(skeletons, key=lambda s: (s.frame, s.slot)):
        before = [link for gap in (1, 2) for link in ends.get(skeleton.frame - gap, [])]
        length = 1 + max((length for other, length in before if _follows(other, skeleton)), default=0)
        ends.setdefault(skeleton.frame, []).append((skeleton, length))
        best = max(best, length)
    return best


def _measure(
    frame: int,
    slot: int,
    points: NDArray[np.float32],
    scores: NDArray[np.float32],
    distance: NDArray[np.float32],
    settings: GuardSettings,
) -> Skeleton | None:
    height, width = distance.shape
    sure = (scores >= SCORE_THRESHOLD) & np.isfinite(points).all(-1)
    inside = sure & (points >= 0).all(-1) & (points[:, 0] < width) & (points[:, 1] < height)
    seen = points[inside].astype(np.float64)
    if len(seen) < _MIN_POINTS:
        return None
    extent = float(np.ptp(seen, axis=0).max())
    columns, rows = points[inside].astype(np.int64).T
    exposed = np.zeros(len(points), bool)
    exposed[inside] = distance[rows, columns] > settings.point_tolerance * extent
    counted = np.flatnonzero(inside[:_BODY_AND_FEET])
    if len(counted) < _MIN_POINTS:
        counted = np.flatnonzero(inside)
    middle = np.median(seen, axis=0)
    body = np.where(sure[:_BODY, None], points[:_BODY], np.nan).astype(np.float64)
    return Skeleton(
        frame=frame,
        slot=slot,
        points=len(counted),
        exposed=int(exposed[counted].sum()),
        open_parts=tuple(name for name, part in _PARTS.items() if _is_open(exposed[list(part)], inside[list(part)])),
        extent=extent,
        centre=(float(middle[0]), float(middle[1])),
        plausible=extent >= _MIN_EXTENT * min(height, width) and _is_plausible(body),
    )


def _is_open(exposed: NDArray[np.bool_], seen: NDArray[np.bool_]) -> bool:
    return bool(exposed.sum() >= max(2, 0.5 * seen.sum()))


def _is_plausible(body: Points) -> bool:
    """Whether 17 body points, NaN where absent, are put together as a person's: judged only by what is there."""
    shoulders, hips, knees, head = (_middle(body, part) for part in (_SHOULDERS, _HIPS, _KNEES, _HEAD))
    if np.isnan(shoulders).any() or np.isfinite(body).all(-1).sum() < _MIN_POINTS:
        return False
    if np.isnan(hips).any():
        # Head and shoulders, as of somebody behind a table.
        return bool(np.isfinite(head).all() and head[1] < shoulders[1])
    torso = float(np.hypot(*(hips - shoulders)))
    broad = float(np.hypot(*(body[5] - body[6])))
    if torso <= 0 or (np.isfinite(broad) and broad > _MAX_SHOULDERS * torso):
        return False
    if np.isfinite(knees).all() and not _MIN_THIGH <= float(np.hypot(*(knees - hips))) / torso <= _MAX_THIGH:
        return False
    # Pose models put phantoms upside down as often as upright; people rarely stand on their heads.
    return not (np.isfinite(head).all() and head[1] > max(shoulders[1], hips[1]))


def _middle(body: Points, part: tuple[int, ...]) -> Points:
    chosen = body[list(part)]
    there = chosen[np.isfinite(chosen).all(-1)]
    return there.mean(0) if len(there) else np.full(2, np.nan)


def _follows(before: Skeleton, after: Skeleton) -> bool:
    size = max(before.extent, after.extent)
    moved = np.hypot(after.centre[0] - before.centre[0], after.centre[1] - before.centre[1])
    return bool(moved <= _LINK_DISTANCE * size and size <= _LINK_RATIO * min(before.extent, after.extent))
