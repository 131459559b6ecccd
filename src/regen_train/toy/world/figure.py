"""The outlines of a posed body: one convex polygon a part, ordered from far to near, and the colours of the parts."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from regen_train.toy.world.body import SIDES, Array, Points
from regen_train.toy.world.head import EYES, MOUTH, NOSE, Head
from regen_train.toy.world.identity import Garment, Identity
from regen_train.toy.world.outlines import Circle, capsules, ellipse, hulls
from regen_train.toy.world.palette import Rgb, shade

LIMBS = ("thigh", "shin", "foot", "upper_arm", "forearm", "hand")
PARTS = ("mane", "neck", "pelvis", "torso", *(f"{limb}_{side}" for side, _ in SIDES for limb in LIMBS),
         "bun", "skull", "face", "ear_left", "ear_right", "eye_left", "eye_right", "nose", "mouth")  # fmt: skip
LABELS_PER_PERSON = 3 * len(PARTS)
"""A part's labels are its number times three: its colour, its pattern's colour, its darker edge."""

_JOINTS = {"thigh": ("hip", "knee"), "shin": ("knee", "ankle"), "foot": ("heel", "toe"),
           "upper_arm": ("shoulder", "elbow"), "forearm": ("elbow", "wrist"), "hand": ("wrist", "hand")}  # fmt: skip
_RADII = {"thigh": (0.054, 0.042), "shin": (0.04, 0.027), "foot": (0.024, 0.02),
          "upper_arm": (0.04, 0.032), "forearm": (0.031, 0.023), "hand": (0.023, 0.026)}  # fmt: skip
_EDGE = 0.011
"""Width of a limb's darker edge, which sets an arm apart from the trunk behind it, in nominal heights."""

# Added to a part's distance, in nominal heights: what lies on the surface of what when neither is nearer.
_LEG, _PELVIS, _SKIRT, _NECK, _TORSO, _MANE, _HEAD, _ARM = 0.0, 0.01, 0.09, 0.045, 0.05, 0.055, 0.07, 0.1


@dataclass(frozen=True)
class Part:
    """A part of a body in the picture, through all frames.

    Args:
        number: In `PARTS`.
        outline: Convex polygon of each frame in the picture, (x, y) in nominal heights, y up; [t, n, 2].
        edge: The same, a little wider; None without a darker edge.
        order: Larger is nearer, [t].
        nearness: How much nearer to the camera than the body's middle, in nominal heights, [t].
        origin: Where its pattern starts, [t, 2].
        along: Its direction, a unit vector, [t, 2].
    """

    number: int
    outline: Array
    edge: Array | None
    order: Array
    nearness: Array
    origin: Array
    along: Array


def figure_parts(person: Identity, points: Points, head: Head) -> list[Part]:
    """Return the parts of a posed body."""
    skirt = person.lower_kind == "skirt"
    parts = [*_limbs(person, points), *_trunk(person, points, skirt=skirt), *_head(person, head)]
    if person.hair_style == "long":
        tail = head.at(0.0, -1.6, -0.5)
        width = head.half_width
        mane = hulls([Circle(head.centre, 1.05 * width), Circle(tail, 0.9 * width)])
        parts.append(_part("mane", mane, tail[:, 2], _MANE, head.centre, tail))
    return parts


def part_colours(person: Identity) -> NDArray[np.uint8]:
    """Return the colours of the labels of all parts, [3 * parts, 3]."""
    skin, hair = _plain(person.skin.rgb), _plain(person.hair.rgb)
    shirt, lower = _garment(person.shirt), _garment(person.lower)
    skull = skin if person.hair_style == "bald" else hair
    dark = _plain((30, 22, 25))
    colours = dict.fromkeys(PARTS, skin)
    colours |= {"mane": hair, "bun": hair, "skull": skull, "torso": shirt, "pelvis": lower}
    colours |= {"eye_left": dark, "eye_right": dark, "mouth": _plain(_lips(person.skin.rgb))}
    colours |= {"nose": _plain(shade(person.skin.rgb, 0.84))}
    for side, _ in SIDES:
        colours[f"upper_arm_{side}"] = shirt
        colours[f"forearm_{side}"] = shirt if person.long_sleeves else skin
        colours[f"thigh_{side}"] = skin if person.lower_kind == "skirt" else lower
        colours[f"shin_{side}"] = lower if person.lower_kind == "trousers" else skin
        colours[f"foot_{side}"] = _plain(person.shoes.rgb)
    return np.array([colour for name in PARTS for colour in colours[name]], np.uint8)


def part_patterns(person: Identity) -> dict[int, str]:
    """Return the pattern of each part that has one."""
    shirt = ["torso", "upper_arm"] + ["forearm"] * person.long_sleeves
    lower = {"trousers": ["pelvis", "thigh", "shin"], "shorts": ["pelvis", "thigh"], "skirt": ["pelvis"]}
    worn = [(person.shirt, shirt), (person.lower, lower[person.lower_kind])]
    return {
        number: garment.pattern
        for garment, names in worn
        for number, part in enumerate(PARTS)
        if garment.pattern != "plain" and part.removesuffix("_left").removesuffix("_right") in names
    }


def _plain(rgb: Rgb) -> tuple[Rgb, Rgb, Rgb]:
    return rgb, rgb, shade(rgb, 0.62)


def _garment(garment: Garment) -> tuple[Rgb, Rgb, Rgb]:
    # A black garment's edge is lighter, else there would be none.
    factor = 0.62 if sum(garment.paint.rgb) > 180 else 2.2
    return garment.paint.rgb, garment.second.rgb, shade(garment.paint.rgb, factor)


def _lips(skin: Rgb) -> Rgb:
    return min(255, int(0.75 * skin[0] + 30)), int(0.5 * skin[1]), int(0.5 * skin[2])


def _part(
    name: str, outline: Array, nearness: Array, bias: float, start: Array, end: Array, edge: Array | None = None
) -> Part:  # fmt: skip
    along = (end - start)[:, :2]
    along = along / np.maximum(np.linalg.norm(along, axis=-1, keepdims=True), 1e-6)
    order = nearness + bias
    return Part(PARTS.index(name), outline, edge, order, nearness, start[:, :2], along)


def _limbs(person: Identity, points: Points) -> list[Part]:
    names = [(limb, side) for side, _ in SIDES for limb in LIMBS]
    starts = np.stack([points[f"{_JOINTS[limb][0]}_{side}"] for limb, side in names], axis=1)
    ends = np.stack([points[f"{_JOINTS[limb][1]}_{side}"] for limb, side in names], axis=1)
    wide = np.array([1.0 if limb in ("foot", "hand") else person.build**0.7 for limb, _ in names])
    radii = wide[:, None] * np.array([_RADII[limb] for limb, _ in names])
    inner = capsules(starts[..., :2], ends[..., :2], radii - _EDGE / 2)
    outer = capsules(starts[..., :2], ends[..., :2], radii + _EDGE / 2)
    parts = []
    for number, (limb, side) in enumerate(names):
        start, end = starts[:, number], ends[:, number]
        arm = limb in ("upper_arm", "forearm", "hand")
        # A whole arm or leg goes before or behind the trunk by its own depth; toes ahead of a shin are on top of it.
        nearness = (start[:, 2] + end[:, 2]) / 2
        bias = (_ARM if arm else _LEG) + 0.002 * LIMBS.index(limb)
        parts.append(_part(f"{limb}_{side}", inner[:, number], nearness, bias, start, end, edge=outer[:, number]))
    return parts


def _trunk(person: Identity, points: Points, *, skirt: bool) -> list[Part]:
    build, pelvis, neck = person.build, points["pelvis"], points["neck"]
    shoulders = [Circle(points[f"shoulder_{side}"], 0.042 * build) for side, _ in SIDES]
    hips = [Circle(points[f"hip_{side}"], 0.052 * build) for side, _ in SIDES]
    chest = pelvis + 0.68 * (neck - pelvis)
    waist = [Circle(circle.centre + 0.1 * (neck - pelvis), circle.radius) for circle in hips]
    torso = hulls([*shoulders, *waist, Circle(chest, 0.068 * build), Circle(neck, 0.035)])
    seat = [*hips, *waist]
    if skirt:
        knees = [points[f"knee_{side}"] for side, _ in SIDES]
        seat += [Circle(hip.centre + 0.72 * (knee - hip.centre), 0.062 * build)
                 for hip, knee in zip(hips, knees, strict=True)]  # fmt: skip
    flat = np.zeros(len(pelvis))
    throat = neck + 0.55 * (points["head"] - neck)
    throats = hulls([Circle(neck, 0.032), Circle(throat, 0.03)])
    return [
        _part("neck", throats, flat, _NECK, neck, throat),
        _part("pelvis", hulls(seat), flat, _SKIRT if skirt else _PELVIS, pelvis, neck),
        _part("torso", torso, chest[:, 2], _TORSO, pelvis, neck),
    ]


def _head(person: Identity, head: Head) -> list[Part]:
    """Return skull (with hair), face, ears, eyes, nose and mouth, ordered by where the head faces."""
    away = np.cos(np.radians(head.yaw)) < -0.2
    hair = {"curly": 1.28, "bald": 0.97}.get(person.hair_style, 1.08)
    skull = ellipse(head.at(0, 0.06, -0.06), hair * head.half_width, (hair - 0.02) * head.radius)
    front = head.at(0.0, -0.16, 0.26)
    face = ellipse(front, 0.86 * head.half_width, 0.86 * head.radius)
    placed = [("skull", skull, 1.0), ("face", face, 0.0 if away else 2.0)]
    if person.hair_style == "tied":
        bun = head.at(0.0, 0.95, -0.75)
        placed.append(("bun", ellipse(bun, 0.5 * head.radius, 0.5 * head.radius), 3.0 if away else 0.0))
    details = [("eye_left", EYES[:1], 0.13, 0.17), ("eye_right", EYES[1:], 0.13, 0.17), ("nose", NOSE, 0.13, 0.17)]
    for name, place, half_width, half_height in [*details, ("mouth", MOUTH, 0.3, 0.09)]:
        where, facing = head.on_face(place)
        if facing[0] > 0.1:
            squeezed = half_width * max(0.45, facing[0])
            shape = ellipse(where[:, 0], squeezed * head.radius, half_height * head.radius)
            placed.append((name, shape, 4.0))
    for side, sign in SIDES:
        ear = head.at(0.97 * sign, -0.05, -0.05)
        if (ear - head.centre)[0, 2] > -0.3 * head.radius and person.hair_style in ("short", "tied", "bald"):
            placed.append((f"ear_{side}", ellipse(ear, 0.16 * head.radius, 0.24 * head.radius), 3.5))
    # Within the head what is on top is fixed; in 1/1000, so that the head stays together.
    nearness = head.centre[:, 2]
    return [_part(name, shape, nearness, _HEAD + rank / 1000, head.centre, head.centre)
            for name, shape, rank in placed]  # fmt: skip
