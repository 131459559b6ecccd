"""StructHuman, StructAll and their kin: what the generator sees instead of people. Pure functions on uint8 video.

The order from signals to a condition is fixed, for any other leaks: dilate the mask and fill people at source size;
resize and crop; fill again under the any-coverage resized mask; draw the skeleton last. The functions here fill and
draw on what they are given; none dilates or resizes on its own.

Source: ReGenHuman's release (github adamsunn/ReGenHuman, ``overlay.py``) for what the two conditions are. Unlike it,
masks are hard, and fills and depth scales never see a human pixel.
"""

from regen_train.conditions.composed import ComposedClip
from regen_train.conditions.depth import DepthFill, DepthMode, depth_without_people, normalize_depth
from regen_train.conditions.masks import GRAY, HumanFill, default_dilation, dilate, fill_people
from regen_train.conditions.struct import POSE_THRESHOLD, edges, pose_support, struct_all, struct_human
from regen_train.video import resize_mask_any

__all__ = [
    "GRAY",
    "POSE_THRESHOLD",
    "ComposedClip",
    "DepthFill",
    "DepthMode",
    "HumanFill",
    "default_dilation",
    "depth_without_people",
    "dilate",
    "edges",
    "fill_people",
    "normalize_depth",
    "pose_support",
    "resize_mask_any",
    "struct_all",
    "struct_human",
]
