"""Clips that nobody trained on: new people, what an attacker may know of them, and other people to paint."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from regen_train.toy.form import TOY_FORM, TOY_PEOPLE
from regen_train.toy.world import ClipFormat, ClipSpec, Person, WorldClip, WorldOptions, draw_clip, render

ALONE = replace(TOY_PEOPLE, min_people=1, max_people=1, story="apart")
"""One person in full view, so that every clip can be measured."""

CROSSING = replace(TOY_PEOPLE, min_people=2, max_people=2, story="crossing")
"""Two people who pass and hide each other."""

_HELD_OUT, _ELSEWHERE, _OTHERS = 1 << 40, 1 << 41, 1 << 42
"""Added to a seed: worlds that no training draws from."""


@dataclass(frozen=True)
class HeldOutClip:
    """A clip to anonymize, with what it is measured against.

    Args:
        original: People who are in no other clip.
        elsewhere: The same people in another room and in other motions: what an attacker knows of them.
        described: Other people in the original's motions and room; its caption is what is painted.
    """

    original: WorldClip
    elsewhere: WorldClip
    described: WorldClip


def draw_held_out(
    count: int, *, seed: int = 0, form: ClipFormat = TOY_FORM, options: WorldOptions = ALONE
) -> Iterator[HeldOutClip]:
    """Draw held-out clips; same arguments, same bytes.

    Args:
        count: How many.
        seed: Of all draws.
        form: Length, size and rate of all clips.
        options: What they show; a fixed number of people.

    Raises:
        ValueError: ``options`` leaves the number of people open, so that people could not be brought elsewhere.
    """
    if options.min_people != options.max_people:
        raise ValueError(
            f"options must fix the number of people, got {options.min_people} to {options.max_people}; "
            "draw held-out clips of one and of two people one after the other"
        )
    for number in range(count):
        original, elsewhere, others = (
            draw_clip(seed + part, number, form, options) for part in (_HELD_OUT, _ELSEWHERE, _OTHERS)
        )
        yield HeldOutClip(
            original=render(original),
            elsewhere=render(_with_people_of(elsewhere, original)),
            described=render(_with_people_of(original, others)),
        )


def _with_people_of(spec: ClipSpec, other: ClipSpec) -> ClipSpec:
    """Put other people into the motions and the room of a clip."""
    people = zip(spec.people, other.people, strict=True)
    return replace(spec, people=tuple(Person(new.identity, old.motion) for old, new in people))
