"""Who somebody is: colours, patterns and proportions; nothing of what they do or where."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from regen_train.draws import generator_for
from regen_train.toy.world.palette import CLOTHES, HAIR, SKIN, Paint, pick_paint

Pattern = Literal["plain", "striped", "checked", "dotted"]
HairStyle = Literal["short", "long", "curly", "tied", "bald"]
LowerKind = Literal["trousers", "shorts", "skirt"]

PATTERNS: tuple[Pattern, ...] = ("plain", "striped", "checked", "dotted")
HAIR_STYLES: tuple[HairStyle, ...] = ("short", "long", "curly", "tied", "bald")
LOWER_KINDS: tuple[LowerKind, ...] = ("trousers", "shorts", "skirt")
_PALEST = 560
"""Sum of a colour's channels from which on a pattern on it must be dark."""


@dataclass(frozen=True)
class Garment:
    """A piece of clothing.

    Args:
        paint: Its colour.
        pattern: ``plain``, or what is drawn on it in the second colour.
        second: The second colour; equals ``paint`` where plain.
    """

    paint: Paint
    pattern: Pattern
    second: Paint


@dataclass(frozen=True)
class Identity:
    """How somebody looks, in whatever motion and scene.

    Args:
        name: Tells identities apart; the label of re-identification.
        skin: Colour of face, hands, and arms and legs where bare.
        hair: Colour of hair; not seen on the bald.
        hair_style: Its shape.
        shirt: Upper garment.
        long_sleeves: Whether the shirt covers the forearms.
        lower: Lower garment.
        lower_kind: Its cut.
        shoes: Colour of shoes.
        height: Of the body against the nominal height.
        build: Width of trunk and limbs against the usual.
        legs: Length of legs against the usual.
        shoulders: Width of shoulders against the usual.
        head: ClipFormat of the head against the usual.
    """

    name: str
    skin: Paint
    hair: Paint
    hair_style: HairStyle
    shirt: Garment
    long_sleeves: bool
    lower: Garment
    lower_kind: LowerKind
    shoes: Paint
    height: int | float = 1.0
    build: int | float = 1.0
    legs: int | float = 1.0
    shoulders: int | float = 1.0
    head: int | float = 1.0


def keyed_random(seed: int, key: int | str, purpose: str) -> np.random.Generator:
    """Return NumPy's generator of one draw, keyed as in `regen_train.draws.generator_for`."""
    return np.random.default_rng(generator_for(seed, key, f"toy world {purpose}").initial_seed())


def draw_identity(seed: int, key: int | str) -> Identity:
    """Draw a person.

    Args:
        seed: Of the world.
        key: Number or name of the person; same seed and key, same person.
    """
    random = keyed_random(seed, key, "identity")
    shirt = _garment(random, plain=0.25)
    lower = _garment(random, plain=0.6, without=shirt.paint.name)
    return Identity(
        name=f"{seed}-{key}",
        skin=pick_paint(random, SKIN, jitter=6),
        hair=pick_paint(random, HAIR, jitter=6),
        hair_style=HAIR_STYLES[int(random.choice(5, p=[0.32, 0.24, 0.18, 0.18, 0.08]))],
        shirt=shirt,
        long_sleeves=bool(random.random() < 0.5),
        lower=lower,
        lower_kind=LOWER_KINDS[int(random.choice(3, p=[0.6, 0.2, 0.2]))],
        shoes=pick_paint(random, CLOTHES, without=lower.paint.name),
        height=float(random.uniform(0.92, 1.08)),
        build=float(random.uniform(0.85, 1.25)),
        legs=float(random.uniform(0.94, 1.06)),
        shoulders=float(random.uniform(0.9, 1.15)),
        head=float(random.uniform(0.92, 1.1)),
    )


def _garment(random: np.random.Generator, *, plain: float, without: str = "") -> Garment:
    paint = pick_paint(random, CLOTHES, without=without)
    patterned = bool(random.random() >= plain)
    pattern = PATTERNS[1 + int(random.integers(3))]
    # Of two dark or two pale colours a small picture shows one.
    pale = sum(paint.rgb) > _PALEST or paint.name in ("yellow", "orange")
    second = pick_paint(
        random, {name: CLOTHES[name] for name in (("black", "blue", "purple") if pale else ("white", "yellow"))}
    )
    return Garment(paint, pattern, second) if patterned else Garment(paint, "plain", paint)
