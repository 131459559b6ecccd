"""Paint a room: colour and inverse depth, many dots a pixel."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from regen_train.toy.world.motion import CAMERA_HEIGHT, HORIZON, ground_row
from regen_train.toy.world.palette import Rgb, shade
from regen_train.toy.world.scene import WALL_SIZE, Furniture, Scene

_Span = tuple[int | float, int | float]

_NEAREST = 1.5
"""ClipFormat whose inverse depth is the largest that 16 bits hold; a body of size 1.5 would tower over the frame."""


def inverse_depth(size: NDArray[np.float64] | int | float) -> NDArray[np.uint16]:
    """Return the inverse depth, 0 to 65535, where a person of nominal height is that large (in frame heights)."""
    return np.asarray(np.clip(np.round(np.asarray(size) * (65535 / _NEAREST)), 1, 65535), np.uint16)


@dataclass
class Room:
    """A painted room, many dots a pixel.

    Args:
        colour: uint8 [h, w, 3].
        depth: Inverse depth, uint16 [h, w].
        front: The furniture that may stand before people: number in the scene, and where it is, bool [h, w].
    """

    colour: NDArray[np.uint8]
    depth: NDArray[np.uint16]
    front: list[tuple[Furniture, NDArray[np.bool_]]]

    def box(self, across: _Span, rows: _Span, rgb: Rgb, size: int | float) -> None:
        """Fill a rectangle; places are shares of the frame."""
        height, width = self.depth.shape
        left, right = (min(max(round(x * width), 0), width) for x in across)
        top, bottom = (min(max(round(y * height), 0), height) for y in rows)
        self.colour[top:bottom, left:right] = rgb
        self.depth[top:bottom, left:right] = inverse_depth(size)


def paint_room(scene: Scene, height: int, width: int, dots: int) -> Room:
    """Paint a room at ``dots`` x ``dots`` a pixel."""
    size = (height * dots, width * dots)
    room = Room(np.empty((*size, 3), np.uint8), np.empty(size, np.uint16), [])
    _wall(room, scene)
    _floor(room, scene)
    _letters(room, scene)
    _grain(room, scene, dots)
    for piece in scene.furniture:
        before = room.depth.copy()
        _PAINTERS[piece.kind](room, piece)
        if piece.size > 0.6:
            room.front.append((piece, room.depth != before))
    return room


def _wall(room: Room, scene: Scene) -> None:
    height, width = room.depth.shape
    foot, rgb = ground_row(WALL_SIZE), scene.wall.rgb
    room.box((0, 1), (0, foot), rgb, WALL_SIZE)
    top = room.colour[: round(foot * height)]
    x, y = np.arange(width) / height, np.arange(len(top)) / height
    dark = np.zeros(top.shape[:2], bool)
    if scene.wall_texture == "papered":
        dark |= (x / 0.12 % 1 < 0.4)[None]
    elif scene.wall_texture == "bricked":
        row = np.floor(y / 0.08)
        dark |= (y / 0.08 % 1 < 0.16)[:, None] | ((x[None] / 0.16 + 0.5 * (row % 2)[:, None]) % 1 < 0.08)
    elif scene.wall_texture == "panelled":
        dark |= (x / 0.3 % 1 < 0.07)[None] | (np.abs(y - 0.3) < 0.015)[:, None]
    top[dark] = shade(rgb, 0.86)
    room.box((0, 1), (foot - 0.03, foot), shade(rgb, 0.62), WALL_SIZE)


def _floor(room: Room, scene: Scene) -> None:
    height, width = room.depth.shape
    start, rgb = round(ground_row(WALL_SIZE) * height), scene.floor.rgb
    size = ((np.arange(start, height) + 0.5) / height - HORIZON) / CAMERA_HEIGHT
    room.colour[start:], room.depth[start:] = rgb, inverse_depth(size)[:, None]
    # Places on the floor, in nominal heights: across from the middle, and away from the camera.
    across = ((np.arange(width) + 0.5) / height - 0.5 * width / height)[None] / size[:, None]
    away = (1.2 / size)[:, None]
    if scene.floor_texture == "planked":
        dark = (across / 0.4 % 1 < 0.1) & (away > 0)
    elif scene.floor_texture == "tiled":
        dark = (np.floor(across / 0.45) + np.floor(away / 0.45)) % 2 < 1
    else:
        dark = (np.floor(away / 0.3) % 2 < 1) & (across < np.inf)
    room.colour[start:][dark] = shade(rgb, 0.8)


def _letters(room: Room, scene: Scene) -> None:
    height, width = room.depth.shape
    scale, thickness = height / 256 * 1.15, max(1, round(height / 50))
    (wide, tall), _ = cv2.getTextSize(scene.word, cv2.FONT_HERSHEY_SIMPLEX, scale, thickness)
    left = min(max(round(scene.word_place * width - wide / 2), 2), max(2, width - wide - 2))
    place = (left, round(0.06 * height) + tall)
    cv2.putText(room.colour, scene.word, place, cv2.FONT_HERSHEY_SIMPLEX, scale, scene.word_paint.rgb, thickness)


def _grain(room: Room, scene: Scene, dots: int) -> None:
    """Make surfaces a little uneven, pixel by pixel and in larger patches."""
    height, width = (side // dots for side in room.depth.shape)
    random = np.random.default_rng(scene.grain)
    fine = random.normal(0, 3.0, (height, width)).astype(np.float32)
    coarse = random.normal(0, 4.0, (5, 7)).astype(np.float32)
    uneven = np.round(fine + cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)).astype(np.int16)
    uneven = np.repeat(np.repeat(uneven, dots, 0), dots, 1)
    for channel in range(3):
        grained = room.colour[..., channel] + uneven
        room.colour[..., channel] = np.clip(grained, 0, 255, out=grained)


@dataclass(frozen=True)
class _Frame:
    """Lays out furniture: places in nominal heights from its middle and its foot."""

    room: Room
    piece: Furniture

    def box(self, across: _Span, up: _Span, factor: float) -> None:
        size, (height, width) = self.piece.size, self.room.depth.shape
        left, right = (self.piece.place + x * size * height / width for x in across)
        foot = ground_row(size)
        rows = (foot - up[1] * size, foot - up[0] * size)
        self.room.box((left, right), rows, shade(self.piece.paint.rgb, factor), size)


def _sofa(room: Room, piece: Furniture) -> None:
    frame = _Frame(room, piece)
    frame.box((-0.5, 0.5), (0.05, 0.55), 1.0)
    frame.box((-0.4, 0.4), (0.15, 0.3), 1.2)
    frame.box((-0.5, -0.4), (0.0, 0.4), 0.75)
    frame.box((0.4, 0.5), (0.0, 0.4), 0.75)


def _table(room: Room, piece: Furniture) -> None:
    frame = _Frame(room, piece)
    frame.box((-0.42, -0.36), (0.0, 0.4), 0.7)
    frame.box((0.36, 0.42), (0.0, 0.4), 0.7)
    frame.box((-0.5, 0.5), (0.38, 0.46), 1.0)


def _shelf(room: Room, piece: Furniture) -> None:
    frame = _Frame(room, piece)
    frame.box((-0.3, 0.3), (0.0, 1.0), 0.6)
    for row in range(4):
        frame.box((-0.26, 0.26), (0.06 + 0.24 * row, 0.22 + 0.24 * row), 1.25)


def _cabinet(room: Room, piece: Furniture) -> None:
    frame = _Frame(room, piece)
    frame.box((-0.4, 0.4), (0.0, 0.62), 1.0)
    frame.box((-0.015, 0.015), (0.04, 0.58), 0.6)
    frame.box((-0.09, -0.05), (0.3, 0.36), 0.5)
    frame.box((0.05, 0.09), (0.3, 0.36), 0.5)


def _door(room: Room, piece: Furniture) -> None:
    frame = _Frame(room, piece)
    frame.box((-0.3, 0.3), (0.0, 1.2), 0.65)
    frame.box((-0.25, 0.25), (0.0, 1.15), 1.0)
    frame.box((0.15, 0.2), (0.5, 0.56), 1.6)


def _window(room: Room, piece: Furniture) -> None:
    frame = _Frame(room, piece)
    frame.box((-0.35, 0.35), (0.55, 1.15), 1.0)
    blue = (165, 205, 240)
    size, (height, width) = piece.size, room.depth.shape
    for left, right in ((-0.3, -0.03), (0.03, 0.3)):
        across = (piece.place + left * size * height / width, piece.place + right * size * height / width)
        room.box(across, (ground_row(size) - 1.1 * size, ground_row(size) - 0.6 * size), blue, size)


def _poster(room: Room, piece: Furniture) -> None:
    frame = _Frame(room, piece)
    frame.box((-0.25, 0.25), (0.6, 1.2), 0.6)
    frame.box((-0.21, 0.21), (0.64, 1.16), 1.3)
    frame.box((-0.14, 0.14), (0.7, 0.95), 0.8)


def _crate(room: Room, piece: Furniture) -> None:
    frame = _Frame(room, piece)
    frame.box((-0.22, 0.22), (0.0, 0.4), 1.0)
    frame.box((-0.22, 0.22), (0.35, 0.4), 1.3)
    frame.box((-0.22, 0.22), (0.2, 0.22), 0.6)


_PAINTERS = {
    "sofa": _sofa, "table": _table, "shelf": _shelf, "cabinet": _cabinet, "door": _door, "window": _window,
    "poster": _poster, "crate": _crate,
}  # fmt: skip
