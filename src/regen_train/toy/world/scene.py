"""Where a clip plays: wall, floor, lettering, furniture; nothing of who is there."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from regen_train.toy.world.identity import keyed_random
from regen_train.toy.world.palette import CLOTHES, FLOORS, FURNITURE, WALLS, Paint, pick_paint

WallTexture = Literal["plain", "papered", "bricked", "panelled"]
FloorTexture = Literal["planked", "tiled", "carpeted"]
FurnitureKind = Literal["sofa", "table", "shelf", "cabinet", "door", "window", "poster", "crate"]

WALL_TEXTURES: tuple[WallTexture, ...] = ("plain", "papered", "bricked", "panelled")
FLOOR_TEXTURES: tuple[FloorTexture, ...] = ("planked", "tiled", "carpeted")
STANDING: tuple[FurnitureKind, ...] = ("sofa", "table", "shelf", "cabinet")
HANGING: tuple[FurnitureKind, ...] = ("door", "window", "poster")
WORDS = ("EXIT", "CAFE", "OPEN", "HALL", "TAXI", "BANK", "CLUB", "STOP", "NEWS", "GYM")

WALL_SIZE = 0.42
"""ClipFormat (see `regen_train.toy.world.motion.Motion`) of somebody at the wall: nobody is farther."""


@dataclass(frozen=True)
class Furniture:
    """A piece of furniture.

    Args:
        kind: What it is; a ``crate`` stands in front of people.
        paint: Its colour.
        place: Of its middle, in frame widths.
        size: Nominal height of a person where it stands, in frame heights; `WALL_SIZE` on the wall.
    """

    kind: FurnitureKind
    paint: Paint
    place: int | float
    size: int | float


@dataclass(frozen=True)
class Scene:
    """A room.

    Args:
        wall: Colour of the wall.
        wall_texture: What is on it.
        floor: Colour of the floor.
        floor_texture: What it is made of.
        word: Written on the wall.
        word_paint: Colour of the letters.
        word_place: Of the middle of the word, in frame widths.
        furniture: From far to near.
        grain: Seed of the surfaces' grain.
    """

    wall: Paint
    wall_texture: WallTexture
    floor: Paint
    floor_texture: FloorTexture
    word: str
    word_paint: Paint
    word_place: int | float
    furniture: tuple[Furniture, ...] = ()
    grain: int = 0


def draw_scene(seed: int, key: int | str) -> Scene:
    """Draw a room; same seed and key, same room."""
    random = keyed_random(seed, key, "scene")
    left_first = bool(random.random() < 0.5)
    places = [random.uniform(0.12, 0.32), random.uniform(0.68, 0.88)]
    if not left_first:
        places.reverse()
    hung, stood = HANGING[int(random.integers(len(HANGING)))], STANDING[int(random.integers(len(STANDING)))]
    furniture = [
        Furniture(hung, pick_paint(random, FURNITURE), float(places[0]), WALL_SIZE),
        Furniture(stood, pick_paint(random, FURNITURE), float(places[1]), float(random.uniform(0.44, 0.5))),
    ]
    crate = Furniture("crate", pick_paint(random, FURNITURE), float(random.uniform(0.15, 0.85)), 0.98)
    if random.random() < 0.2:
        furniture.append(crate)
    return Scene(
        wall=pick_paint(random, WALLS),
        wall_texture=WALL_TEXTURES[int(random.integers(len(WALL_TEXTURES)))],
        floor=pick_paint(random, FLOORS),
        floor_texture=FLOOR_TEXTURES[int(random.integers(len(FLOOR_TEXTURES)))],
        word=WORDS[int(random.integers(len(WORDS)))],
        word_paint=pick_paint(random, CLOTHES, without="white"),
        word_place=float(np.clip(places[1] + random.uniform(-0.1, 0.1), 0.25, 0.75)),
        furniture=tuple(furniture),
        grain=int(random.integers(1 << 31)),
    )
