"""Named colours, so that a caption can say what a picture shows."""

from dataclasses import dataclass

import numpy as np

Rgb = tuple[int, int, int]


@dataclass(frozen=True)
class Paint:
    """A colour and the word for it.

    Args:
        name: What a caption calls it.
        rgb: What is painted, each 0 to 255; near the named colour, not always equal to it.
    """

    name: str
    rgb: Rgb


CLOTHES: dict[str, Rgb] = {
    "red": (205, 35, 40), "orange": (240, 130, 25), "yellow": (245, 215, 50), "green": (45, 150, 60),
    "teal": (20, 150, 150), "blue": (40, 75, 205), "purple": (125, 50, 165), "pink": (240, 130, 175),
    "brown": (115, 70, 35), "black": (28, 28, 32), "white": (242, 242, 242), "gray": (128, 128, 134),
}  # fmt: skip

SKIN: dict[str, Rgb] = {
    "pale": (250, 220, 200), "light": (235, 190, 160), "tan": (205, 150, 110), "olive": (180, 140, 95),
    "brown": (135, 85, 55), "dark": (85, 52, 38),
}  # fmt: skip

HAIR: dict[str, Rgb] = {
    "black": (22, 20, 22), "brown": (90, 52, 26), "blond": (225, 185, 95), "red": (180, 70, 25),
    "gray": (165, 165, 168), "white": (238, 236, 230),
}  # fmt: skip

WALLS: dict[str, Rgb] = {
    "beige": (222, 205, 175), "mint": (185, 220, 200), "lilac": (205, 195, 225), "peach": (240, 205, 180),
    "cream": (240, 232, 210), "azure": (185, 210, 235), "silver": (195, 198, 202), "rose": (230, 190, 195),
}  # fmt: skip

FLOORS: dict[str, Rgb] = {
    "oak": (180, 140, 95), "walnut": (120, 85, 60), "slate": (110, 115, 125), "sand": (205, 190, 155),
    "moss": (125, 140, 105), "brick": (160, 95, 75),
}  # fmt: skip

FURNITURE: dict[str, Rgb] = {
    "maple": (200, 160, 110), "mahogany": (105, 50, 35), "navy": (45, 60, 100), "crimson": (140, 40, 55),
    "ivory": (235, 228, 205), "charcoal": (70, 72, 78),
}  # fmt: skip


def pick_paint(random: np.random.Generator, colours: dict[str, Rgb], *, without: str = "", jitter: int = 10) -> Paint:
    """Draw a named colour.

    Args:
        random: Drawn from.
        colours: Names and their colours.
        without: A name not to be drawn.
        jitter: How far each channel may be from the named colour.
    """
    names = [name for name in colours if name != without]
    name = names[int(random.integers(len(names)))]
    shift = random.integers(-jitter, jitter + 1, 3)
    red, green, blue = (int(min(255, max(0, value + by))) for value, by in zip(colours[name], shift, strict=True))
    return Paint(name, (red, green, blue))


def shade(rgb: Rgb, factor: float) -> Rgb:
    """Darken (below 1) or lighten (above 1) a colour."""
    red, green, blue = (int(min(255.0, round(value * factor))) for value in rgb)
    return red, green, blue
