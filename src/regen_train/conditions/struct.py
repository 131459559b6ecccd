"""StructHuman and StructAll: what the generator sees instead of people, and the edges condition."""

import cv2
import numpy as np
import torch
from einops import repeat
from jaxtyping import Bool, Shaped, UInt8
from torch import Tensor

from regen_train.conditions.checks import check_tensors
from regen_train.conditions.depth import DepthFill, depth_without_people
from regen_train.conditions.masks import HumanFill, fill_people

POSE_THRESHOLD = 10
"""A pixel belongs to the drawn skeleton where its brightest channel is above this.

The darkest stroke of any style has a channel of 153, so on hard-edged drawings every threshold below that gives the
same pixels. The ``vace`` style fades at its edges; 10 of 255, the release's figure, keeps the fade but not the rounding
noise of resizing. The brightest channel, not the gray value, so that blue strokes count as much as green ones.
"""


def struct_human(
    frames: Shaped[Tensor, "..."], mask: Shaped[Tensor, "..."], pose: Shaped[Tensor, "..."], fill: HumanFill = "gray"
) -> UInt8[Tensor, "t h w 3"]:
    """Keep the background, replace people by a flat fill, draw their skeletons on top.

    Args:
        frames: The clip, uint8 [t, h, w, 3].
        mask: Where people are, bool [t, h, w].
        pose: Skeletons on black, uint8 [t, h, w, 3].
        fill: ``gray`` (128) or ``background_mean``, each frame's mean colour outside the mask.

    Returns:
        uint8 [t, h, w, 3]; equals ``frames`` outside mask and skeleton and does not depend on them inside.

    Raises:
        ValueError: An argument has the wrong type or shape; names all faults.
    """
    check_tensors({"frames": (frames, "video"), "mask": (mask, "mask"), "pose": (pose, "video")})
    if fill not in ("gray", "background_mean"):
        raise ValueError(f"fill must be 'gray' or 'background_mean', got {fill!r}")
    return _draw(fill_people(frames, mask, fill), pose)


def struct_all(
    depth: Shaped[Tensor, "..."], mask: Shaped[Tensor, "..."], pose: Shaped[Tensor, "..."], fill: DepthFill = "gray"
) -> UInt8[Tensor, "t h w 3"]:
    """Keep the background's depth only, replace people by a flat fill, draw their skeletons on top.

    Args:
        depth: Depth from `normalize_depth`, uint8 [t, h, w], or [t, h, w, 3] with equal channels; near = white.
        mask: Where people are, bool [t, h, w].
        pose: Skeletons on black, uint8 [t, h, w, 3].
        fill: ``gray`` (128) or ``depth_mean``, each frame's mean depth outside the mask. The release takes the mean
            over people too, which tells how near they stand; ours approximates it without that.

    Returns:
        uint8 [t, h, w, 3]; gray-scale wherever no skeleton is drawn.

    Raises:
        ValueError: An argument has the wrong type or shape, or depth is coloured; names all faults.
    """
    check_tensors({"depth": (depth, "depth"), "mask": (mask, "mask"), "pose": (pose, "video")})
    return _draw(depth_without_people(depth, mask, fill), pose)


def pose_support(pose: UInt8[Tensor, "t h w 3"], threshold: int = POSE_THRESHOLD) -> Bool[Tensor, "t h w"]:
    """Return where skeletons are drawn: the brightest channel is above ``threshold``."""
    return pose.amax(dim=-1) > threshold


def edges(
    frames: UInt8[Tensor, "t h w 3"], *, low_threshold: int = 100, high_threshold: int = 200
) -> UInt8[Tensor, "t h w 3"]:
    """Return white Canny edges on black. Give it frames whose people are filled already.

    Args:
        frames: Output of `fill_people`, never the clip itself.
        low_threshold: Gradient above which an edge is followed on.
        high_threshold: Gradient above which an edge begins.
    """
    lines = [
        cv2.Canny(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), low_threshold, high_threshold)
        for frame in frames.cpu().numpy()
    ]
    stacked = torch.from_numpy(np.stack(lines)) if lines else frames[..., 0].cpu()
    return repeat(stacked, "t h w -> t h w c", c=3).to(frames.device)


def _draw(base: Tensor, pose: Tensor) -> Tensor:
    return torch.where(pose_support(pose)[..., None], pose, base)
