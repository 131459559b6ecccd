"""Convex outlines of simple shapes, as polygons of all frames at once."""

from dataclasses import dataclass

import cv2
import numpy as np

from regen_train.toy.world.body import Array

_ARC = np.linspace(-1.0, 1.0, 7)
_CIRCLE = np.stack([np.cos(np.linspace(0, 2 * np.pi, 12, endpoint=False)),
                    np.sin(np.linspace(0, 2 * np.pi, 12, endpoint=False))], axis=-1)  # fmt: skip


@dataclass(frozen=True)
class Circle:
    """A circle of every frame: centre [t, 2 or 3], of which (x, y) count, and radius."""

    centre: Array
    radius: float


def capsules(starts: Array, ends: Array, radii: Array) -> Array:
    """Return the outlines of round-ended limbs that taper.

    Args:
        starts: [t, p, 2].
        ends: [t, p, 2].
        radii: At start and end, [p, 2].

    Returns:
        [t, p, n, 2], convex: half circles joined by their common tangents.
    """
    difference = ends - starts
    length = np.maximum(np.hypot(difference[..., 0], difference[..., 1]), 1e-6)
    direction = np.arctan2(difference[..., 1], difference[..., 0])
    tangent = np.arccos(np.clip((radii[:, 0] - radii[:, 1]) / length, -1.0, 1.0))
    front = direction[..., None] + tangent[..., None] * _ARC
    back = direction[..., None] + np.pi + (np.pi - tangent)[..., None] * _ARC
    first = starts[..., None, :] + radii[:, :1, None] * _points(back)
    second = ends[..., None, :] + radii[:, 1:, None] * _points(front)
    return np.concatenate([first, second], axis=-2)


def ellipse(centre: Array, half_width: float, half_height: float) -> Array:
    """Return an upright ellipse of every frame around centre [t, 2 or 3], as [t, n, 2]."""
    return np.asarray(centre[:, None, :2] + _CIRCLE * np.array([half_width, half_height]))


def hulls(circles: list[Circle]) -> Array:
    """Return the convex hull of some circles, frame by frame, as [t, n, 2]; short ones repeat their last corner."""
    points = np.concatenate([circle.centre[:, None, :2] + circle.radius * _CIRCLE for circle in circles], axis=1)
    found = [cv2.convexHull(frame)[:, 0] for frame in points.astype(np.float32)]
    longest = max(len(hull) for hull in found)
    corners = [np.minimum(np.arange(longest), len(hull) - 1) for hull in found]
    return np.stack([hull[corner] for hull, corner in zip(found, corners, strict=True)]).astype(np.float64)


def _points(angles: Array) -> Array:
    return np.stack([np.cos(angles), np.sin(angles)], axis=-1)
