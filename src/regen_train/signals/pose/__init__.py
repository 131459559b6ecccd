"""Whole-body keypoints: files, and the extractors that make them."""

from regen_train.signals.pose.dwpose import DwPose
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
from regen_train.signals.pose.keypoint_rcnn import KeypointRcnn

__all__ = [
    "FILE",
    "MAX_PEOPLE",
    "NUM_KEYPOINTS",
    "DwPose",
    "KeypointRcnn",
    "PoseFiles",
    "PoseSource",
    "Poses",
    "join_poses",
    "read_poses",
    "write_poses",
]
