"""Conditions of drawn clips, by the code that prepares real ones, from the exact signals and without files."""

from collections.abc import Sequence

from regen_train.conditions import ComposedClip
from regen_train.preparation.compose import compose_window
from regen_train.preparation.settings import ConditionName
from regen_train.signals import Signals
from regen_train.toy.form import TOY_DATASET
from regen_train.toy.world import WorldClip
from regen_train.video import Frame, plan_crop


def compose_drawn(clip: WorldClip, conditions: Sequence[ConditionName]) -> ComposedClip:
    """Compose a drawn clip at its own size, dilated and drawn upon as `TOY_DATASET` says.

    Args:
        clip: Of any size that the toy can take.
        conditions: Which condition videos to make.
    """
    spec = clip.spec
    frames = (Frame(number, number / spec.fps, frame.numpy()) for number, frame in enumerate(clip.frames))
    crop = plan_crop(spec.height, spec.width, spec.height, spec.width)
    return compose_window(frames, _signals(clip), crop, settings=TOY_DATASET, conditions=conditions)


def _signals(clip: WorldClip) -> Signals:
    return Signals(
        mask=clip.mask,
        keypoints=clip.poses.keypoints,
        scores=clip.poses.scores,
        track=clip.poses.track,
        depth=clip.depth,
        caption=clip.caption,
        num_frames=len(clip.frames),
        source_sha256="",
        meta={},
    )
