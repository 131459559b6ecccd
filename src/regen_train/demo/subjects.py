"""Held-out clips, composed as the training clips were, and ready to be painted and measured."""

from collections.abc import Sequence
from dataclasses import dataclass

from regen_train.conditions import ComposedClip
from regen_train.demo.settings import VARIANTS
from regen_train.toy.composing import compose_drawn
from regen_train.toy.heldout import ALONE, CROSSING, HeldOutClip, draw_held_out

_CROSSING_SEED = 1 << 20
"""Added to the seed, so that those who cross are others than those alone."""


@dataclass(frozen=True)
class Subject:
    """A held-out clip and its conditions.

    Args:
        held_out: The clip, its people elsewhere, and the others who are to be painted.
        composed: What was made of it; holds no pixel of a person but in ``frames``.
    """

    held_out: HeldOutClip
    composed: ComposedClip


@dataclass(frozen=True)
class Subjects:
    """All held-out clips.

    Args:
        alone: Of one person each; figures come from these.
        pairs: Of two who cross each other.
    """

    alone: Sequence[Subject]
    pairs: Sequence[Subject]

    @property
    def all(self) -> list[Subject]:
        """Those of one person, then those of two."""
        return [*self.alone, *self.pairs]


def draw_subjects(num_alone: int, num_pairs: int, *, seed: int) -> Subjects:
    """Draw held-out clips and compose their conditions.

    Args:
        num_alone: Clips of one person.
        num_pairs: Clips of two.
        seed: Of all draws.
    """
    alone = draw_held_out(num_alone, seed=seed, options=ALONE)
    pairs = draw_held_out(num_pairs, seed=seed + _CROSSING_SEED, options=CROSSING)
    return Subjects([_subject(clip) for clip in alone], [_subject(clip) for clip in pairs])


def _subject(held_out: HeldOutClip) -> Subject:
    return Subject(held_out, compose_drawn(held_out.original, VARIANTS))
