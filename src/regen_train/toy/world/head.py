"""The head: an ellipsoid, and where the points of the face lie on it."""

from dataclasses import dataclass
from functools import cache

import numpy as np

from regen_train.toy.world.body import Array, turn

_WIDE, _DEEP = 0.8, 0.9
"""Half width and half depth of a head against its half height."""

EYES = np.array([[0.38, 0.16], [-0.38, 0.16]])
"""Left and right eye, as `face_places` has them."""

NOSE, MOUTH = np.array([[0.0, -0.1]]), np.array([[0.0, -0.5]])


@dataclass(frozen=True)
class Head:
    """A head in the camera's axes, in nominal heights.

    Args:
        centre: [t, 3].
        radius: Half its height.
        yaw: Where it faces, degrees.
    """

    centre: Array
    radius: int | float
    yaw: int | float

    @property
    def half_width(self) -> float:
        """Half the width that the camera sees."""
        yaw = np.radians(self.yaw)
        return float(self.radius * np.hypot(_WIDE * np.cos(yaw), _DEEP * np.sin(yaw)))

    def at(self, left: int | float, up: int | float, ahead: int | float) -> Array:
        """Return a place [t, 3] by shares of the half axes from the centre."""
        inside = self.radius * np.array([_WIDE * left, up, _DEEP * ahead])
        return np.asarray(self.centre + turn(inside, self.yaw))

    def on_face(self, places: Array) -> tuple[Array, Array]:
        """Return where points of the face are, and how much each faces the camera.

        Args:
            places: [n, 2], (left, up) in shares of the half axes, on the front of the head.

        Returns:
            [t, n, 3], and [n] from 1 (to the camera) to -1 (away).
        """
        ahead = np.sqrt(np.maximum(0.0, 1 - (places**2).sum(-1)))
        directions = np.concatenate([places, ahead[:, None]], axis=1)
        inside = self.radius * directions * np.array([_WIDE, 1.0, _DEEP])
        return self.centre[:, None] + turn(inside, self.yaw), turn(directions, self.yaw)[:, 2]


@cache
def face_places() -> Array:
    """Return the 68 face points, [68, 2] as (left, up) in shares of the head's half axes.

    Order: jaw from the right ear to the left, right and left brow, nose, right and left eye, outer and inner lips; all
    as the picture shows them from left to right (Sagonas et al. 2013, the 300-W annotation).
    """
    around = np.linspace(0, np.pi, 17)
    jaw = np.stack([-0.88 * np.cos(around), 0.1 - 0.95 * np.sin(around)], axis=1)
    across = np.linspace(-0.25, 0.25, 5)
    brow = np.stack([across, 0.36 - across**2], axis=1)
    bridge = np.stack([np.zeros(4), np.linspace(0.22, -0.1, 4)], axis=1)
    nostrils = np.stack([np.linspace(-0.15, 0.15, 5), np.full(5, -0.2)], axis=1)
    brows = [np.add(brow, [side * 0.42, 0.0]) for side in (-1, 1)]
    eyes = [np.add(_ring(6, 0.14, 0.06), place) for place in EYES[::-1]]
    lips = [np.add(ring, MOUTH) for ring in (_ring(12, 0.28, 0.12), _ring(8, 0.2, 0.05))]
    return np.concatenate([jaw, *brows, bridge, nostrils, *eyes, *lips])


def _ring(count: int, half_width: float, half_height: float) -> Array:
    angles = np.pi - 2 * np.pi * np.arange(count) / count
    return np.stack([half_width * np.cos(angles), half_height * np.sin(angles)], axis=1)
