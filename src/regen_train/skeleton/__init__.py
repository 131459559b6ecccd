"""Keypoints to pictures: the skeletons that conditions carry."""

from regen_train.skeleton.draw import draw_pose
from regen_train.skeleton.styles import SkeletonStyle, default_line_width

__all__ = ["SkeletonStyle", "default_line_width", "draw_pose"]
