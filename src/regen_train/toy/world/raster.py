"""Paint bodies as labels, many dots a pixel, and turn labels into colours, masks and depth."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from regen_train.toy.world.body import Array
from regen_train.toy.world.figure import Part

DOTS = 4
"""Dots a pixel has along each side; sixteen make the share of a pixel an exact binary fraction."""

_SHIFT = 4
"""Binary places of a dot that OpenCV is given."""

_PERIOD = {"striped": 0.12, "checked": 0.135, "dotted": 0.12}
"""Of patterns, in nominal heights."""

Labels = NDArray[np.uint8]


@dataclass(frozen=True)
class View:
    """Where a body's own plane lies in the picture, in dots.

    Args:
        feet: Column and row of the place between its feet, [t, 2]; whole numbers are the middles of dots.
        scale: Dots in a nominal height.
    """

    feet: Array
    scale: int | float

    def dots(self, points: Array) -> Array:
        """Return points (right, up) [t, n, 2] as columns and rows."""
        return np.asarray(self.feet[:, None] + points * np.array([self.scale, -self.scale]))


@dataclass(frozen=True)
class DrawnPart:
    """A part of a body, ready to be painted: polygons in OpenCV's fixed point, pattern's origin and scale in dots."""

    label: int
    pattern: str | None
    outlines: NDArray[np.int32]
    edges: NDArray[np.int32] | None
    origin: Array
    scale: int | float
    part: Part


def prepare_parts(parts: list[Part], view: View, patterns: dict[int, str], base: int) -> list[DrawnPart]:
    """Bring the outlines of a body into the picture.

    Args:
        parts: From `regen_train.toy.world.figure.figure_parts`.
        view: Where they are.
        patterns: Of parts by number.
        base: First label of the body.
    """
    return [
        DrawnPart(
            label=base + 3 * part.number,
            pattern=patterns.get(part.number),
            outlines=_fixed(part.outline, view),
            edges=None if part.edge is None else _fixed(part.edge, view),
            origin=view.dots(part.origin[:, None])[:, 0],
            scale=view.scale,
            part=part,
        )
        for part in parts
    ]


def paint_body(labels: Labels, drawn: list[DrawnPart], frame: int) -> None:
    """Paint a body over what is there, from its farthest part to its nearest."""
    for item in sorted(drawn, key=lambda item: float(item.part.order[frame])):
        if item.edges is not None:
            cv2.fillConvexPoly(labels, item.edges[frame], item.label + 2, cv2.LINE_8, _SHIFT)
        cv2.fillConvexPoly(labels, item.outlines[frame], item.label, cv2.LINE_8, _SHIFT)
        if item.pattern is not None:
            _paint_pattern(labels, item, frame)


def shrink_mean(dots: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the mean of each pixel's dots."""
    height, width = (side // DOTS for side in dots.shape[:2])
    return np.asarray(cv2.resize(dots, (width, height), interpolation=cv2.INTER_AREA))


def shrink_max(dots: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """Return the largest of each pixel's dots."""
    grown = cv2.dilate(dots, np.ones((DOTS, DOTS), np.uint8), anchor=(0, 0), borderType=cv2.BORDER_REPLICATE)
    return np.asarray(grown[::DOTS, ::DOTS])


def _fixed(outline: Array, view: View) -> NDArray[np.int32]:
    return np.asarray(np.round(view.dots(outline) * 2**_SHIFT), np.int32)


def _paint_pattern(labels: Labels, item: DrawnPart, frame: int) -> None:
    outline = item.outlines[frame] >> _SHIFT
    (left, top), (right, bottom) = np.maximum(outline.min(0) - 1, 0), np.maximum(outline.max(0) + 2, 0)
    area = labels[top:bottom, left:right]
    if not area.size:
        return
    assert item.pattern is not None
    period = _PERIOD[item.pattern] * item.scale
    origin = item.origin[frame]
    along = item.part.along[frame] * (1.0, -1.0)
    x = (np.arange(left, left + area.shape[1], dtype=np.float32) - np.float32(origin[0])) / np.float32(period)
    y = (np.arange(top, top + area.shape[0], dtype=np.float32) - np.float32(origin[1])) / np.float32(period)
    length = np.add.outer(y * np.float32(along[1]), x * np.float32(along[0]))
    if item.pattern == "striped":
        second = _odd(length)
    else:
        across = np.subtract.outer(y * np.float32(along[0]), x * np.float32(along[1]))
        if item.pattern == "checked":
            second = _odd(length) ^ _odd(across)
        else:
            # Distance from the nearest dot's middle, in periods.
            up, aside = length - np.floor(length) - 0.5, across - np.round(across)
            second = up * up + aside * aside < 0.07
    area[second & (area == item.label)] = item.label + 1


def _odd(periods: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Tell which half of its period each place is in."""
    return np.asarray((np.floor(2 * periods).astype(np.int32) & 1).astype(bool))
