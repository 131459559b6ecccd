"""Hide readable text in a clip before anything is made of it: in the target as in the conditions."""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, UInt8
from torch import Tensor

from regen_train.conditions import GRAY, fill_people
from regen_train.guard import Boxes, Detector

_REACH = 2
"""Frames on both sides whose readings are hidden too: readers lose text now and then."""

_MARGIN = 0.2
"""Of a reading's height, by which its box grows: letters bleed."""


@dataclass(frozen=True)
class Layer:
    """One source frame and where its people are, dilated; both with a leading axis of one frame."""

    picture: UInt8[Tensor, "1 h w 3"]
    people: Bool[Tensor, "1 h w"]


def hide_text(layers: Iterable[Layer], reader: Detector) -> Iterator[Layer]:
    """Replace every reading by the mean colour around it, holding five frames.

    The reader sees people filled gray, and people have no part in the colours: what is hidden, and by what, does not
    depend on any human pixel. Pixels of people are left as they are; they are filled later.

    Args:
        layers: Frames in order.
        reader: Finds text.
    """
    held: deque[tuple[Layer, list[tuple[int, int, int, int]]]] = deque(maxlen=2 * _REACH + 1)
    count, done = 0, 0
    for layer in layers:
        found = reader.detect(fill_people(layer.picture, layer.people))[0]
        held.append((layer, _areas(found, layer.picture.shape[1:3])))
        count += 1
        if count > _REACH:
            yield _hide(held, count - len(held), done)
            done += 1
    while done < count:
        yield _hide(held, count - len(held), done)
        done += 1


def _hide(held: Iterable[tuple[Layer, list[tuple[int, int, int, int]]]], first: int, place: int) -> Layer:
    near = [(layer, areas) for number, (layer, areas) in enumerate(held, start=first) if abs(number - place) <= _REACH]
    layer = next(layer for number, (layer, _) in enumerate(held, start=first) if number == place)
    picture = layer.picture.clone()
    for _, areas in near:
        for area in areas:
            _paint(picture[0], layer.people[0], area)
    return Layer(picture, layer.people)


def _areas(found: Boxes, size: tuple[int, ...]) -> list[tuple[int, int, int, int]]:
    """Return left, top, right and bottom of every reading, however weak, in whole pixels of the picture."""
    height, width = size
    areas = []
    for left, top, right, bottom in found.boxes.tolist():
        margin = _MARGIN * (bottom - top) + 1
        area = (
            max(0, int(left - margin)),
            max(0, int(top - margin)),
            min(width, int(right + margin) + 1),
            min(height, int(bottom + margin) + 1),
        )
        if area[0] < area[2] and area[1] < area[3]:
            areas.append(area)
    return areas


def _paint(picture: UInt8[Tensor, "h w 3"], people: Bool[Tensor, "h w"], area: tuple[int, int, int, int]) -> None:
    left, top, right, bottom = area
    edge = torch.zeros_like(people)
    edge[max(0, top - 2) : bottom + 2, max(0, left - 2) : right + 2] = True
    edge[top:bottom, left:right] = False
    around = picture[edge & ~people].long()
    colour = (around.sum(0) // len(around)).to(torch.uint8) if len(around) else torch.tensor(GRAY, dtype=torch.uint8)
    inside = picture[top:bottom, left:right]
    inside[:] = torch.where(people[top:bottom, left:right, None], inside, colour)
