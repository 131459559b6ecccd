"""Depth of every pixel: files, and the extractors that make them."""

from regen_train.signals.depth.depth_anything import DepthAnythingV2
from regen_train.signals.depth.files import FILE, DepthFiles, DepthSource, DepthWindows, read_depth, write_depth
from regen_train.signals.depth.video_depth_anything import VideoDepthAnything
from regen_train.signals.depth.writing import write_depth_stream

__all__ = [
    "FILE",
    "DepthAnythingV2",
    "DepthFiles",
    "DepthSource",
    "DepthWindows",
    "VideoDepthAnything",
    "read_depth",
    "write_depth",
    "write_depth_stream",
]
