"""Read and write video files, resample them by time, and bring them to the model's size."""

from regen_train.video.clip import Video, read_resampled, read_times, read_video
from regen_train.video.decode import Frame, VideoInfo, count_frames, decode_frames, probe_video
from regen_train.video.encode import write_gray, write_video
from regen_train.video.geometry import (
    CropPlan,
    map_keypoints,
    plan_crop,
    resize_and_crop,
    resize_frames,
    resize_mask_any,
)
from regen_train.video.gray import decode_gray, read_gray
from regen_train.video.resample import (
    ResamplePlan,
    pick_frames,
    plan_resample,
    resample_indices,
    source_fps,
    trim_length,
)

__all__ = [
    "CropPlan",
    "Frame",
    "ResamplePlan",
    "Video",
    "VideoInfo",
    "count_frames",
    "decode_frames",
    "decode_gray",
    "map_keypoints",
    "pick_frames",
    "plan_crop",
    "plan_resample",
    "probe_video",
    "read_gray",
    "read_resampled",
    "read_times",
    "read_video",
    "resample_indices",
    "resize_and_crop",
    "resize_frames",
    "resize_mask_any",
    "source_fps",
    "trim_length",
    "write_gray",
    "write_video",
]
