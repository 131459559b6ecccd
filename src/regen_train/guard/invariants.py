"""What every finished condition must be, pixel by pixel; exact comparisons, for nothing may leak."""

import torch
from jaxtyping import Bool, UInt8
from torch import Tensor

from regen_train.conditions import GRAY, ComposedClip, DepthFill, HumanFill, pose_support
from regen_train.guard.report import Finding

_WITH_SKELETON = frozenset({"structhuman", "structall"})
_FILLED = frozenset({"structhuman", "structall", "depth"})


def check_conditions(clip: ComposedClip, *, fill: HumanFill = "gray", depth_fill: DepthFill = "gray") -> list[Finding]:
    """Return where finished conditions break their promise.

    Where a skeleton is drawn both structs equal it; elsewhere under the mask they and depth are flat; outside both
    structhuman equals the clip, and structall and depth are gray-scale.

    Args:
        clip: A composed window.
        fill: What replaces people in structhuman.
        depth_fill: What replaces people in structall and depth.
    """
    drawn = pose_support(clip.pose)
    findings = []
    for name in sorted(_FILLED & set(clip.conditions)):
        video = clip.conditions[name]
        over = drawn & (name in _WITH_SKELETON)
        under = clip.mask & ~over
        gray = (fill if name == "structhuman" else depth_fill) == "gray"
        checks = {
            "is not the skeleton where one is drawn": over & (video != clip.pose).any(-1),
            "is not flat under the mask": under & (video != _flat_values(video, under, gray=gray)).any(-1),
        }
        if name == "structhuman":
            checks["is not the clip outside the mask"] = ~clip.mask & ~over & (video != clip.frames).any(-1)
        else:
            checks["is coloured where no skeleton is drawn"] = ~over & (video != video[..., :1]).any(-1)
        findings += [_finding(f"{name} {fault}", bad) for fault, bad in checks.items() if bool(bad.any())]
    return findings


def _finding(message: str, bad: Bool[Tensor, "t h w"]) -> Finding:
    frames = tuple(torch.nonzero(bad.flatten(1).any(1)).flatten().tolist())
    return Finding("condition_broken", "reject", message, frames, {"pixels": float(bad.sum())})


def _flat_values(
    video: UInt8[Tensor, "t h w 3"], under: Bool[Tensor, "t h w"], *, gray: bool
) -> UInt8[Tensor, "t 1 1 3"]:
    """Return the one value that each frame must have under the mask."""
    values = video.new_full((len(video), 1, 1, 3), GRAY)
    if not gray:
        for value, frame, area in zip(values, video, under, strict=True):
            value[:] = frame[area][0] if bool(area.any()) else GRAY
    return values
