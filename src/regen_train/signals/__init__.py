"""What is known of the people in a clip: masks, poses, depth, captions. One small Protocol each, and files for all."""

from regen_train.signals.caption import CaptionFiles, CaptionSource, MetadataCaptions, Qwen3VlCaptions
from regen_train.signals.depth import DepthAnythingV2, DepthFiles, DepthSource, VideoDepthAnything
from regen_train.signals.folder import Signals, load_signals, stream_signals, write_signals
from regen_train.signals.mask import (
    UNKNOWN_TRACK,
    GroundedSam2Masks,
    MaskFiles,
    MaskRcnnMasks,
    MaskSource,
    Sam3Masks,
)
from regen_train.signals.pose import NUM_KEYPOINTS, DwPose, KeypointRcnn, PoseFiles, Poses, PoseSource

__all__ = [
    "NUM_KEYPOINTS",
    "UNKNOWN_TRACK",
    "CaptionFiles",
    "CaptionSource",
    "DepthAnythingV2",
    "DepthFiles",
    "DepthSource",
    "DwPose",
    "GroundedSam2Masks",
    "KeypointRcnn",
    "MaskFiles",
    "MaskRcnnMasks",
    "MaskSource",
    "MetadataCaptions",
    "PoseFiles",
    "PoseSource",
    "Poses",
    "Qwen3VlCaptions",
    "Sam3Masks",
    "Signals",
    "VideoDepthAnything",
    "load_signals",
    "stream_signals",
    "write_signals",
]
