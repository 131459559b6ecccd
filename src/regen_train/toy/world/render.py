"""Draw a clip: the same spec gives the same bytes."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Shaped, UInt8
from numpy.typing import NDArray
from torch import Tensor

from regen_train.signals import Poses
from regen_train.toy.world.body import Array, pose_body
from regen_train.toy.world.caption import describe
from regen_train.toy.world.figure import LABELS_PER_PERSON, PARTS, figure_parts, part_colours, part_patterns
from regen_train.toy.world.head import Head
from regen_train.toy.world.keypoints import whole_body
from regen_train.toy.world.motion import ground_row
from regen_train.toy.world.raster import DOTS, DrawnPart, View, paint_body, prepare_parts, shrink_max, shrink_mean
from regen_train.toy.world.room import Room, inverse_depth, paint_room
from regen_train.toy.world.spec import MAX_PEOPLE, ClipSpec

HIDDEN_SCORE = 0.2
"""Of points behind another person, a thing or furniture, or on a face turned away: below what drawing asks for."""

_THING = 255
_FOCAL = 1.2
"""Distance of the camera from a person of size 1, in nominal heights; sets how much an arm's reach changes depth."""


@dataclass(frozen=True)
class WorldClip:
    """A drawn clip and the exact truth of it.

    Args:
        frames: RGB.
        mask: 0 nobody, else 1 + the number of the person who has most of the pixel (the nearer, if equal). Set
            wherever a person has any of the pixel, so outside it no pixel depends on who is in the clip.
        visible: For each person, where any of the pixel is theirs; neighbours share pixels at their border.
        poses: 133 points a person. Score 1 where in the frame, also behind the person's own limbs; 0.2 where hidden
            by another person, a thing or furniture, or on the side of the head turned away; NaN and 0 outside the
            frame or before the person comes and after they go. ``track`` is the number in ``mask``.
        depth: Inverse depth of the nearest thing in a pixel, uint16, near = large, one scale for all clips.
        caption: What is seen, in words.
        identities: Name of each person's identity.
        spec: What was drawn.
    """

    frames: UInt8[Tensor, "t h w 3"]
    mask: UInt8[Tensor, "t h w"]
    visible: Bool[Tensor, "p t h w"]
    poses: Poses
    depth: Shaped[Tensor, "t h w"]
    caption: str
    identities: tuple[str, ...]
    spec: ClipSpec


@dataclass(frozen=True)
class _Body:
    """A person ready to be painted."""

    drawn: list[DrawnPart]
    view: View
    size: int | float
    present: Sequence[bool]
    keypoints: Array
    turned_away: NDArray[np.bool_]


def render(spec: ClipSpec) -> WorldClip:
    """Draw a clip."""
    room = paint_room(spec.scene, spec.height, spec.width, DOTS)
    bodies = [_body(spec, number) for number in range(len(spec.people))]
    labels = [_paint_labels(spec, room, bodies, frame) for frame in range(spec.num_frames)]
    painter = _Pixels(spec, room, bodies)
    frames, masks, visible, depths = zip(*(painter.frame(at, frame) for frame, at in enumerate(labels)), strict=True)
    return WorldClip(
        frames=torch.from_numpy(np.stack(frames)),
        mask=torch.from_numpy(np.stack(masks)),
        visible=torch.from_numpy(np.stack(visible, axis=1)),
        poses=_poses(spec, bodies, labels, room),
        depth=torch.from_numpy(np.stack(depths)),
        caption=describe(spec),
        identities=tuple(person.identity.name for person in spec.people),
        spec=spec,
    )


def _body(spec: ClipSpec, number: int) -> _Body:
    who, motion = spec.people[number].identity, spec.people[number].motion
    reach = None
    if spec.passed is not None and number in (spec.passed.giver, spec.passed.taker):
        reach = spec.passed_path()[1 + (number == spec.passed.taker)]
    points = pose_body(who, motion, spec.times, reach)
    head = Head(points["head"], 0.088 * who.head, motion.yaw)
    columns = spec.place(number) * spec.width * DOTS - 0.5
    row = ground_row(motion.size) * spec.height * DOTS - 0.5
    view = View(np.stack([columns, np.full_like(columns, row)], axis=-1), motion.size * spec.height * DOTS)
    keypoints, turned_away = whole_body(points, head)
    drawn = prepare_parts(figure_parts(who, points, head), view, part_patterns(who), 1 + number * LABELS_PER_PERSON)
    return _Body(drawn, view, motion.size, spec.present(number), keypoints, turned_away)


def _paint_labels(spec: ClipSpec, room: Room, bodies: Sequence[_Body], frame: int) -> NDArray[np.uint8]:
    """Paint people, things and furniture from far to near; 0 is the room."""
    labels = np.zeros(room.depth.shape, np.uint8)
    order = sorted((body.size, number) for number, body in enumerate(bodies) if body.present[frame])
    passed = spec.passed
    thing_after = passed and max((bodies[number].size, number) for number in (passed.giver, passed.taker))
    # Furniture is in the room's picture: where it hides somebody, the room shows.
    covers = sorted(room.front, key=lambda cover: cover[0].size)
    for size, number in order:
        while covers and covers[0][0].size <= size:
            labels[covers.pop(0)[1]] = 0
        paint_body(labels, bodies[number].drawn, frame)
        if (size, number) == thing_after:
            _paint_thing(labels, spec, bodies, frame)
    for _, where in covers:
        labels[where] = 0
    return labels


def _paint_thing(labels: NDArray[np.uint8], spec: ClipSpec, bodies: Sequence[_Body], frame: int) -> None:
    assert spec.passed is not None
    view = bodies[spec.passed.giver].view
    column, row = (round(float(value)) for value in view.dots(spec.passed_path()[0][:, None])[frame, 0])
    radius = round(0.055 * view.scale)
    if spec.passed.kind == "ball":
        cv2.circle(labels, (column, row), radius, _THING, cv2.FILLED)
    else:
        cv2.rectangle(labels, (column - radius, row - radius), (column + radius, row + radius), _THING, cv2.FILLED)


class _Pixels:
    """Turns labels into pixels."""

    def __init__(self, spec: ClipSpec, room: Room, bodies: Sequence[_Body]) -> None:
        self.room, self.bodies = room, bodies
        self.colours = np.zeros((256, 1, 3), np.uint8)
        self.owners = np.zeros((256, 1, MAX_PEOPLE), np.uint8)
        for number, person in enumerate(spec.people):
            labels = slice(1 + number * LABELS_PER_PERSON, 1 + (number + 1) * LABELS_PER_PERSON)
            self.colours[labels, 0] = part_colours(person.identity)
            # The mean of a pixel's dots is then the number of dots.
            self.owners[labels, 0, number] = DOTS**2
        if spec.passed is not None:
            self.colours[_THING] = spec.passed.paint.rgb
        self.empty, self.empty_depth = shrink_mean(room.colour), shrink_max(room.depth)
        # Of two who have as much of a pixel, the nearer gets it.
        self.nearness = np.argsort(np.argsort([body.size for body in bodies], kind="stable"), kind="stable")

    def frame(self, labels: NDArray[np.uint8], frame: int) -> tuple[NDArray[np.generic], ...]:
        """Return picture, mask, visibility of each person, and depth of a frame."""
        picture, depth = self.empty.copy(), self.empty_depth.copy()
        mask = np.zeros(depth.shape, np.uint8)
        visible = np.zeros((len(self.bodies), *depth.shape), bool)
        rows, columns = _span(np.any(labels, 1)), _span(np.any(labels, 0))
        if rows is None or columns is None:
            return picture, mask, visible, depth
        dots = tuple(slice(DOTS * span.start, DOTS * span.stop) for span in (rows, columns))
        near, area = labels[dots], (rows, columns)
        bare = np.equal(near, 0).astype(np.uint8)
        thrice = cv2.merge([near, near, near])
        picture[area] = shrink_mean(cv2.copyTo(self.room.colour[dots], bare, cv2.LUT(thrice, self.colours)))
        counts = shrink_mean(cv2.LUT(thrice, self.owners))
        visible[(slice(None), *area)] = np.moveaxis(counts > 0, -1, 0)[: len(self.bodies)]
        mask[area] = self._owner(counts)
        deep = cv2.LUT(near, self._depths(frame)[:, None])
        depth[area] = shrink_max(cv2.copyTo(self.room.depth[dots], bare, deep))
        return picture, mask, visible, depth

    def _owner(self, counts: NDArray[np.uint8]) -> NDArray[np.uint8]:
        ranked = counts.astype(np.int16) * (MAX_PEOPLE + 1)
        ranked[..., : len(self.bodies)] += np.asarray(self.nearness, np.int16)
        return np.where(counts.any(-1), ranked.argmax(-1) + 1, 0).astype(np.uint8)

    def _depths(self, frame: int) -> NDArray[np.uint16]:
        sizes = np.zeros(256)
        sizes[_THING] = max((body.size for body in self.bodies), default=0.5) * 1.05
        for body in self.bodies:
            for item in body.drawn:
                # Somebody of size s stands focal / s away; a part nearer than the body's middle looks larger.
                nearer = _FOCAL / body.size - float(item.part.nearness[frame])
                sizes[item.label : item.label + 3] = _FOCAL / nearer
        return inverse_depth(sizes)


def _span(used: NDArray[np.bool_]) -> slice | None:
    """Return the pixels, in a row or column, from the first to the last that has a used dot."""
    where = np.flatnonzero(used)
    return slice(int(where[0]) // DOTS, int(where[-1]) // DOTS + 1) if len(where) else None


def _poses(spec: ClipSpec, bodies: Sequence[_Body], labels: Sequence[NDArray[np.uint8]], room: Room) -> Poses:
    shape = (spec.num_frames, len(bodies), 133)
    keypoints, scores = np.full((*shape, 2), np.nan, np.float32), np.zeros(shape, np.float32)
    front = np.zeros(room.depth.shape, bool)
    for _, where in room.front:
        front |= where
    for number, body in enumerate(bodies):
        first = 1 + number * LABELS_PER_PERSON
        places = body.view.dots(body.keypoints[..., :2])
        for frame in np.flatnonzero(body.present).tolist():
            dots = places[frame]
            column, row = np.round(dots).astype(int).T
            inside = (column >= 0) & (column < spec.width * DOTS) & (row >= 0) & (row < spec.height * DOTS)
            column, row = np.clip(column, 0, spec.width * DOTS - 1), np.clip(row, 0, spec.height * DOTS - 1)
            label, covered = labels[frame][row, column], front[row, column]
            own = (label >= first) & (label < first + LABELS_PER_PERSON)
            # A point at the very edge may lie on a dot of the room beside the body.
            shown = (own | ((label == 0) & ~covered)) & ~body.turned_away
            keypoints[frame, number, inside] = ((dots + 0.5) / DOTS - 0.5)[inside]
            scores[frame, number] = np.where(inside, np.where(shown, 1.0, HIDDEN_SCORE), 0.0)
    track = torch.arange(1, len(bodies) + 1).expand(spec.num_frames, len(bodies)).contiguous()
    return Poses(torch.from_numpy(keypoints), torch.from_numpy(scores), track)


assert MAX_PEOPLE * LABELS_PER_PERSON < _THING, PARTS
