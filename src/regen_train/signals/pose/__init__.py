"""Whole-body keypoints: files, and the extractors that make them."""

from regen_train.signals.pose.files import (
    FILE,
    MAX_PEOPLE,
    NUM_KEYPOINTS,
    PoseFiles,
    Poses,
    PoseSource,
    join_poses,
    read_poses,
    write_poses,
)

__all__ = [
    "FILE",
    "MAX_PEOPLE",
    "NUM_KEYPOINTS",
    "PoseFiles",
    "PoseSource",
    "Poses",
    "join_poses",
    "read_poses",
    "write_poses",
]
