"""Second opinions: people and faces that a detector sees in the clip, and again in what was made of it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool
from numpy.typing import NDArray
from torch import Tensor

from regen_train.guard.detectors import Boxes
from regen_train.guard.report import Finding
from regen_train.guard.settings import GuardSettings

_MIN_SIDE = 4
"""Pixels: smaller boxes tell nothing."""

_MIN_FILL = 0.3
"""Of a person's box that the mask must fill, though it spans it; dilated bodies fill more of theirs."""

_MIN_THIRD = 0.08
"""Of each third of the box, from head to foot, that the mask must fill: legs apart fill least."""


@dataclass(frozen=True)
class _Open:
    """A box that the mask leaves open."""

    place: int
    coverage: float
    score: float


def judge_people(
    boxes: Sequence[Boxes], covered: Bool[Tensor, "t h w"], frames: Sequence[int], settings: GuardSettings
) -> Finding | None:
    """Return whether people were detected whom the mask leaves open.

    A box counts as covered by the share that the mask spans of it in height times in width: a body never fills its
    box. A head that stands out at one end leaves a gap there.

    Args:
        boxes: People detected in each frame.
        covered: The dilated masks of the same frames.
        frames: The frames' numbers.
        settings: Thresholds.
    """
    found = [
        _Open(place, coverage, score)
        for place, box, score in _each_box(boxes, covered, settings)
        for coverage, open_ in [_person_coverage(covered[place].numpy(), box, settings)]
        if open_
    ]
    return _finding(found, frames, settings, "person_detected_open", "a person was detected whom the mask leaves open")


def judge_faces(
    boxes: Sequence[Boxes], covered: Bool[Tensor, "t h w"], frames: Sequence[int], settings: GuardSettings
) -> Finding | None:
    """Return whether faces were detected that the mask leaves open; a face fills its box. Arguments as above."""
    found = [
        _Open(place, coverage, score)
        for place, box, score in _each_box(boxes, covered, settings)
        for coverage in [_pixel_coverage(covered[place].numpy(), box)]
        if coverage < settings.box_coverage
    ]
    return _finding(found, frames, settings, "face_detected_open", "a face was detected that the mask leaves open")


def judge_condition(
    boxes: Sequence[Boxes], filled: Bool[Tensor, "t h w"], settings: GuardSettings, *, kind: str, condition: str
) -> Finding | None:
    """Return whether people or faces were detected in a finished condition, outside what was filled or drawn.

    Args:
        boxes: What was detected in each frame of the condition.
        filled: Where people were filled or skeletons drawn; a figure seen there is the one that was put there.
        settings: Thresholds.
        kind: ``person`` or ``face``.
        condition: The condition's name.
    """
    found = [
        _Open(place, coverage, score)
        for place, box, score in _each_box(boxes, filled, settings)
        for coverage in [_pixel_coverage(filled[place].numpy(), box)]
        if coverage < (_MIN_FILL if kind == "person" else settings.box_coverage)
    ]
    message = f"a {kind} can still be detected in {condition}"
    return _finding(found, range(len(filled)), settings, f"{kind}_in_condition", message)


def _each_box(
    boxes: Sequence[Boxes], covered: Tensor, settings: GuardSettings
) -> list[tuple[int, tuple[int, int, int, int], float]]:
    """Return place, whole-pixel box inside the picture, and score of each detection that counts."""
    height, width = covered.shape[1:]
    kept = []
    for place, found in enumerate(boxes):
        for box, score in zip(found.boxes.tolist(), found.scores.tolist(), strict=True):
            left, top = max(0, round(box[0])), max(0, round(box[1]))
            right, bottom = min(width, round(box[2])), min(height, round(box[3]))
            if score >= settings.box_score and min(right - left, bottom - top) >= _MIN_SIDE:
                kept.append((place, (left, top, right, bottom), score))
    return kept


def _person_coverage(
    covered: NDArray[np.bool_], box: tuple[int, int, int, int], settings: GuardSettings
) -> tuple[float, bool]:
    left, top, right, bottom = box
    height, width = covered.shape
    inside = covered[top:bottom, left:right]
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    if not len(rows):
        return 0.0, True
    coverage = len(rows) / (bottom - top) * len(columns) / (right - left)
    # At the picture's border a box may reach beyond it, and the detector guesses where the person ends.
    gaps = (
        rows[0] / (bottom - top) if top > 0 else 0.0,
        (bottom - top - 1 - rows[-1]) / (bottom - top) if bottom < height else 0.0,
        columns[0] / (right - left) if left > 0 else 0.0,
        (right - left - 1 - columns[-1]) / (right - left) if right < width else 0.0,
    )
    thirds = [float(third.mean()) for third in np.array_split(inside, 3) if third.size]
    is_thin = float(inside.mean()) < _MIN_FILL or min(thirds) < _MIN_THIRD
    is_open = coverage < settings.box_coverage or max(gaps) > settings.box_gap or is_thin
    return float(coverage), bool(is_open)


def _pixel_coverage(covered: NDArray[np.bool_], box: tuple[int, int, int, int]) -> float:
    left, top, right, bottom = box
    return float(covered[top:bottom, left:right].mean())


def _finding(
    found: Sequence[_Open], frames: Sequence[int], settings: GuardSettings, check: str, message: str
) -> Finding | None:
    if not found:
        return None
    sure = {o.place for o in found if o.score >= settings.box_sure and o.coverage < settings.box_coverage}
    severe = _longest_run(sure) >= min(settings.person_frames, len(frames))
    least = min(found, key=lambda o: o.coverage)
    measured = {"coverage": least.coverage, "score": max(o.score for o in found)}
    where = tuple(sorted({frames[o.place] for o in found}))
    return Finding(check, "reject" if severe else "review", message, where, measured)


def _longest_run(places: set[int]) -> int:
    best = run = 0
    for place in range(max(places, default=-1) + 1):
        run = run + 1 if place in places else 0
        best = max(best, run)
    return best
