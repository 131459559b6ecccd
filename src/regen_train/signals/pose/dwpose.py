"""DWPose: whole-body keypoints of every person, through onnxruntime."""

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8
from torch import Tensor

from regen_train.pretrained import PretrainedFolder
from regen_train.signals import mask as masks
from regen_train.signals.hub_files import describe_weights, find_files
from regen_train.signals.pose.files import MAX_PEOPLE, NUM_KEYPOINTS, Poses
from regen_train.signals.pose.onnx_model import OnnxModel
from regen_train.signals.pose.people import People, Tracker, boxes_of_mask, stack_people
from regen_train.signals.pose.simcc import cut_crop, decode_simcc, plan_crops
from regen_train.signals.pose.yolox import decode_people, letterbox, suppress_overlaps
from regen_train.signals.windows import frame_windows
from regen_train.video import decode_gray

DETECTOR_FILE = "yolox_l.onnx"
POSE_FILE = "dw-ll_ucoco_384.onnx"

_ALTERNATIVES = "KeypointRcnn (torchvision, body only) or PoseFiles (poses made elsewhere)"
_MAX_IOU = 0.45
"""Of two boxes that overlap more, one goes; YOLOX's own value."""

Boxes = tuple[np.ndarray, np.ndarray]
"""Boxes of one frame, float32 [n, 4], and the track of each, int64 [n]."""


class DwPose:
    """Find 133 keypoints a person with DWPose; people are found by YOLOX, or taken from masks.

    Args:
        pretrained: A hub id, or a folder, with ``dw-ll_ucoco_384.onnx`` and ``yolox_l.onnx``.
        revision: Branch, tag or commit on the hub; None for its main branch.
        mask_root: Holds one folder of signals a clip with ``mask.mkv``: each track, and each connected piece of
            unknown track, gives a box, and YOLOX is not needed. None finds people with YOLOX.
        min_box_score: Surer boxes than this are people, 0 to 1. Low finds more people, and more phantoms.
        window: Frames a window; bounds the memory.
        batch_size: Pictures a model sees at once.
        threads: Threads of onnxruntime on the CPU; 0 for as many as there are cores.

    Source: Yang et al., arXiv 2307.15880; github.com/IDEA-Research/DWPose (weights Apache-2.0).
    """

    VERSION = 1
    """Raised when the same weights and settings give another result."""

    def __init__(
        self,
        pretrained: str = "yzd-v/DWPose",
        revision: str | None = None,
        *,
        mask_root: Path | None = None,
        min_box_score: float = 0.3,
        window: int = 32,
        batch_size: int = 8,
        threads: int = 0,
    ) -> None:
        self.pretrained, self.revision, self.mask_root = pretrained, revision, mask_root
        self.min_box_score, self.window = min_box_score, window
        self.batch_size, self.threads = batch_size, threads
        self._folder: PretrainedFolder | None = None
        self._detector: OnnxModel | None = None
        self._pose: OnnxModel | None = None

    def setup(self, device: str) -> None:
        """Open the models; see `PoseSource`.

        Raises:
            FileNotFoundError: The weights are not there; says how to get them.
            ValueError: onnxruntime is missing, or a file is no such model.
        """
        folder = self._find().path
        self._pose = OnnxModel(folder / POSE_FILE, device, threads=self.threads, size=(384, 288))
        if self.mask_root is None:
            self._detector = OnnxModel(folder / DETECTOR_FILE, device, threads=self.threads, size=(640, 640))

    def identity(self) -> dict[str, Any]:
        """Return what decides the poses; with ``mask_root`` the masks do so too. See `PoseSource`."""
        settings: dict[str, Any] = {"batch_size": self.batch_size, "boxes": "masks"}
        if self.mask_root is None:
            settings |= {"boxes": "yolox", "min_box_score": self.min_box_score}
        weights = describe_weights(self._find(), self._files)
        return {"extractor": "dwpose", "version": self.VERSION, **weights, "settings": settings}

    def poses(self, clip: Path, *, max_frames: int | None = None) -> Iterator[Poses]:
        """Yield keypoints window by window; see `PoseSource`.

        Raises:
            FileNotFoundError: There is no clip, or no mask of it in ``mask_root``.
            ValueError: A file is damaged, or the mask is shorter than the clip or of another size.
        """
        assert self._pose is not None, "call setup first"
        masks_left = None if self.mask_root is None else decode_gray(self.mask_root / clip.stem / masks.FILE)
        tracker = Tracker()
        for frames in frame_windows(clip, self.window, max_frames=max_frames):
            if masks_left is None:
                found = [(boxes, tracker.assign(boxes)) for boxes in self._detect(frames)]
            else:
                found = _boxes_of_masks(list(islice(masks_left, len(frames))), frames, clip)
            yield stack_people(self._estimate(frames, found))

    def _detect(self, frames: UInt8[np.ndarray, "t h w 3"]) -> Iterator[Float32[np.ndarray, "n 4"]]:
        assert self._detector is not None
        size = self._detector.size
        for start in range(0, len(frames), self.batch_size):
            fitted = [letterbox(frame, size) for frame in frames[start : start + self.batch_size]]
            output = self._detector.run(np.stack([picture for picture, _ in fitted]))[0]
            for rows, (_, factors) in zip(output, fitted, strict=True):
                boxes, scores = decode_people(rows, size)
                kept, _ = suppress_overlaps(boxes, scores, min_score=self.min_box_score, max_iou=_MAX_IOU)
                yield (kept / np.tile(factors, 2)).astype(np.float32)[:MAX_PEOPLE]

    def _estimate(self, frames: UInt8[np.ndarray, "t h w 3"], found: Sequence[Boxes]) -> list[People]:
        assert self._pose is not None
        size = self._pose.size
        crops = np.concatenate([plan_crops(boxes, size) for boxes, _ in found])
        owners = np.repeat(np.arange(len(frames)), [len(tracks) for _, tracks in found])
        keypoints = np.full((len(crops), NUM_KEYPOINTS, 2), np.nan, np.float32)
        scores = np.zeros((len(crops), NUM_KEYPOINTS), np.float32)
        for start in range(0, len(crops), self.batch_size):
            part = slice(start, start + self.batch_size)
            pairs = zip(owners[part], crops[part], strict=True)
            outputs = self._pose.run(np.stack([cut_crop(frames[owner], crop, size) for owner, crop in pairs]))
            columns, rows = _checked(outputs)
            keypoints[part], scores[part] = decode_simcc(columns, rows, crops[part], size)
        return [
            People(keypoints[owners == number], scores[owners == number], tracks)
            for number, (_, tracks) in enumerate(found)
        ]

    @property
    def _files(self) -> list[str]:
        return [POSE_FILE] if self.mask_root is not None else [POSE_FILE, DETECTOR_FILE]

    def _find(self) -> PretrainedFolder:
        self._folder = self._folder or find_files(
            self.pretrained, self._files, revision=self.revision, alternatives=_ALTERNATIVES
        )
        return self._folder


def _checked(outputs: list[np.ndarray]) -> list[np.ndarray]:
    shapes = [list(output.shape) for output in outputs]
    if len(outputs) != 2 or any(len(shape) != 3 or shape[1] != NUM_KEYPOINTS for shape in shapes):
        raise ValueError(
            f"the pose model must answer with two outputs [n, {NUM_KEYPOINTS}, bins], of columns and rows, got "
            f"{shapes}; take {POSE_FILE} of yzd-v/DWPose"
        )
    return outputs


def _boxes_of_masks(window: Sequence[Tensor], frames: np.ndarray, clip: Path) -> list[Boxes]:
    if len(window) < len(frames):
        raise ValueError(f"the masks of {clip} end before the clip; make them anew, or pass max_frames")
    if window[0].shape != frames.shape[1:3]:
        raise ValueError(
            f"the masks of {clip} are {list(window[0].shape)} (height x width), its frames {list(frames.shape[1:3])}"
        )
    return [boxes_of_mask(mask.numpy(), masks.UNKNOWN_TRACK) for mask in window]
