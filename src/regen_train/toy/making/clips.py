"""What the toy's networks are trained on: drawn clips, their conditions, and where people are."""

import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Bool, UInt8
from torch import Tensor

from regen_train.preparation.settings import ConditionName
from regen_train.toy.composing import compose_drawn
from regen_train.toy.form import TOY_FORM, TOY_PEOPLE
from regen_train.toy.world import draw_clip, render

Kind = Literal["frames"] | ConditionName
KINDS: tuple[Kind, ...] = ("frames", *get_args(ConditionName))


@dataclass(frozen=True)
class TrainingClips:
    """Clips of one size.

    Args:
        frames: Pictures.
        human: Where people are, also in conditions; dilated as in the toy's datasets.
        kinds: What each clip is, of `KINDS`.
    """

    frames: UInt8[Tensor, "n t h w 3"]
    human: Bool[Tensor, "n t h w"]
    kinds: tuple[Kind, ...]


def draw_training_clips(count: int, *, seed: int, kinds: Sequence[Kind]) -> TrainingClips:
    """Draw clips of the toy's form on all cores; the same on any number of them.

    Args:
        count: How many.
        seed: Of the world.
        kinds: What clips are, in turns: names of `KINDS`.

    Raises:
        ValueError: A kind is unknown.
    """
    unknown = sorted(set(kinds) - set(KINDS))
    if unknown or not kinds:
        raise ValueError(f"kinds must be among {', '.join(KINDS)}, got {', '.join(unknown) or 'none'}")
    jobs = [(seed, number, kinds[number % len(kinds)]) for number in range(count)]
    with ProcessPoolExecutor(os.cpu_count(), initializer=torch.set_num_threads, initargs=(1,)) as pool:
        drawn = list(pool.map(_draw, jobs, chunksize=16))
    return TrainingClips(
        frames=torch.stack([torch.from_numpy(frames) for frames, _ in drawn]),
        human=torch.stack([torch.from_numpy(human) for _, human in drawn]),
        kinds=tuple(kind for _, _, kind in jobs),
    )


def _draw(job: tuple[int, int, Kind]) -> tuple[object, object]:
    seed, number, kind = job
    composed = compose_drawn(render(draw_clip(seed, number, TOY_FORM, TOY_PEOPLE)), () if kind == "frames" else (kind,))
    frames = composed.conditions.get(kind, composed.frames)
    return frames.numpy(), composed.mask.numpy()
