"""What the toy's networks are trained on: drawn clips, their conditions, and where people are."""

import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import torch
from jaxtyping import Bool, UInt8
from torch import Tensor

from regen_train.conditions import (
    depth_without_people,
    dilate,
    edges,
    fill_people,
    normalize_depth,
    struct_all,
    struct_human,
)
from regen_train.skeleton import draw_pose
from regen_train.toy.form import TOY_DILATION, TOY_FORM, TOY_LINE_WIDTH, TOY_PEOPLE
from regen_train.toy.world import WorldClip, draw_clip, render

KINDS = ("frames", "structhuman", "structall", "background", "depth", "pose", "edges")


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
    kinds: tuple[str, ...]


def draw_training_clips(count: int, *, seed: int, kinds: Sequence[str]) -> TrainingClips:
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


def compose(clip: WorldClip, kind: str) -> tuple[UInt8[Tensor, "t h w 3"], Bool[Tensor, "t h w"]]:
    """Return a drawn clip, or a condition made of it as data preparation makes it, and where people are in it."""
    human = dilate(clip.mask > 0, TOY_DILATION)
    height, width = clip.frames.shape[1:3]
    pose = draw_pose(clip.poses.keypoints, clip.poses.scores, height, width, line_width=TOY_LINE_WIDTH)
    makers = {
        "frames": lambda: clip.frames,
        "structhuman": lambda: struct_human(clip.frames, human, pose),
        "structall": lambda: struct_all(normalize_depth(clip.depth, human), human, pose),
        "background": lambda: fill_people(clip.frames, human),
        "depth": lambda: depth_without_people(normalize_depth(clip.depth, human), human),
        "pose": lambda: pose,
        "edges": lambda: edges(fill_people(clip.frames, human)),
    }
    return makers[kind](), human


def _draw(job: tuple[int, int, str]) -> tuple[object, object]:
    seed, number, kind = job
    frames, human = compose(render(draw_clip(seed, number, TOY_FORM, TOY_PEOPLE)), kind)
    return frames.numpy(), human.numpy()
