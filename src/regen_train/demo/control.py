"""Change one colour word of a caption, and see whether that colour changes and nothing else of the person."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from regen_train.demo.measure import people_colours
from regen_train.demo.subjects import Subject
from regen_train.evaluation import REGIONS, Interval, colour_correlation, mean_interval
from regen_train.toy.world import Garment, Paint, WorldClip, render
from regen_train.toy.world.identity import keyed_random
from regen_train.toy.world.palette import CLOTHES

_SHIRT = REGIONS.index("shirt")
_FAR = 120
"""Levels that the new colour is away from the old one, over all channels together."""


@dataclass(frozen=True)
class Recoloured:
    """A clip whose caption asks for another shirt.

    Args:
        subject: The clip; its caption is the changed one.
        old: The word that stood there.
        new: The word that stands there now.
    """

    subject: Subject
    old: str
    new: str


@dataclass(frozen=True)
class CaptionControl:
    """What became of the colours, painted from the same condition and noise.

    Args:
        shirt: Correlation of how the shirt changed with how it should have changed.
        shirt_change: Levels of 255 by which the shirt changed, mean over channels and people.
        other_change: The same for hair, skin, lower garment and shoes.
    """

    shirt: Interval
    shirt_change: Interval
    other_change: Interval


def recolour(subjects: Sequence[Subject], *, seed: int) -> list[Recoloured]:
    """Change the word for the shirt's colour in each clip's new caption.

    Args:
        subjects: Clips of one person each.
        seed: Of the new colours.
    """
    return [_recolour(subject, seed, number) for number, subject in enumerate(subjects)]


def measure_control(
    changed: Sequence[Recoloured],
    before: Sequence[UInt8[Tensor, "t h w 3"]],
    after: Sequence[UInt8[Tensor, "t h w 3"]],
    subjects: Sequence[Subject],
) -> CaptionControl:
    """Measure what one word changed.

    Args:
        changed: The clips with their changed captions.
        before: Painted by the captions as they were.
        after: Painted by the changed ones, from the same noise.
        subjects: The clips with the captions as they were.
    """
    originals = [subject.held_out.original for subject in subjects]
    found = _looked(after, originals) - _looked(before, originals)
    described = [subject.held_out.described for subject in subjects]
    recoloured = [item.subject.held_out.described for item in changed]
    wanted = _looked([clip.frames for clip in recoloured], recoloured) - _looked(
        [clip.frames for clip in described], described
    )
    moved = found.abs().mean(-1)
    others = [number for number in range(len(REGIONS)) if number != _SHIRT]
    return CaptionControl(
        shirt=colour_correlation(found, wanted)["shirt"],
        shirt_change=_mean_of_seen(moved[:, _SHIRT]),
        other_change=_mean_of_seen(moved[:, others].nanmean(1)),
    )


def _recolour(subject: Subject, seed: int, number: int) -> Recoloured:
    described = subject.held_out.described
    (person,) = described.spec.people
    shirt = person.identity.shirt
    paint = _far_paint(shirt.paint, seed, number)
    garment = Garment(paint, shirt.pattern, paint if shirt.pattern == "plain" else shirt.second)
    other = replace(person, identity=replace(person.identity, shirt=garment))
    clip = render(replace(described.spec, people=(other,)))
    return Recoloured(
        replace(subject, held_out=replace(subject.held_out, described=clip)), shirt.paint.name, paint.name
    )


def _far_paint(old: Paint, seed: int, number: int) -> Paint:
    far = [name for name, rgb in CLOTHES.items() if np.linalg.norm(np.subtract(rgb, CLOTHES[old.name])) > _FAR]
    name = far[int(keyed_random(seed, number, "other shirt").integers(len(far)))]
    return Paint(name, CLOTHES[name])


def _looked(videos: Sequence[Tensor], truths: Sequence[WorldClip]) -> Tensor:
    return torch.stack([people_colours(video, truth)[0] for video, truth in zip(videos, truths, strict=True)])


def _mean_of_seen(values: Tensor) -> Interval:
    return mean_interval(values[~values.isnan()].tolist())
