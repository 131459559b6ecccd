"""Detector of faces: YuNet through OpenCV, small enough to look at every frame on a CPU."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, UInt8

from regen_train.files import file_sha256
from regen_train.guard.detectors import Boxes, Frames

_VERSION = 1
_HUB_ID = "opencv/face_detection_yunet"
_FILE = "face_detection_yunet_2023mar.onnx"
_MAX_OVERLAP = 0.3
"""Of two boxes with a larger intersection over union the surer one is kept; YuNet's authors' value."""
_MAX_CANDIDATES = 5000


@dataclass
class YuNetFaces:
    """Faces found by YuNet (Wu et al. 2023, Machine Intelligence Research 20), MIT licence, 340 kB.

    YuNet finds faces of 10 to 300 pixels, so each frame is looked at in several sizes: large faces are found in the
    small picture, far ones in the large.

    Args:
        model: The .onnx file (2023mar, or 2026may with free sizes); None takes 2023mar from the hub.
        threshold: Least score of a face. On real clips, boxes from 0.5 up were faces or heads; far below they are
            hair and lens flares.
        long_sides: Sizes, as pixels of the long side, at which a frame is searched.
    """

    model: Path | None = None
    threshold: float = 0.5
    long_sides: tuple[int, ...] = (640, 1280)
    _detector: Any = field(default=None, init=False, repr=False, compare=False)

    def setup(self, device: str) -> None:
        """Load the weights; see `regen_train.guard.Detector`. OpenCV runs on the CPU whatever the device.

        Raises:
            FileNotFoundError: The file is not there and cannot be downloaded; says what to do.
            ValueError: OpenCV cannot read the file.
        """
        import cv2

        path = self._path()
        try:
            self._detector = cv2.FaceDetectorYN.create(
                str(path), "", (320, 320), self.threshold, _MAX_OVERLAP, _MAX_CANDIDATES
            )
        except cv2.error as error:
            raise ValueError(f"OpenCV {cv2.__version__} cannot read {path} as a YuNet model: {error}") from error

    def identity(self) -> dict[str, Any]:
        """Return what decides the result; see `regen_train.guard.Detector`."""
        return {
            "detector": type(self).__name__,
            "version": _VERSION,
            "weights": file_sha256(self._path()),
            "threshold": self.threshold,
            "long_sides": list(self.long_sides),
        }

    def detect(self, frames: Frames) -> list[Boxes]:
        """Return faces by frame; see `regen_train.guard.Detector`."""
        return [self._detect(frame.numpy()) for frame in frames]

    def _detect(self, frame: UInt8[np.ndarray, "h w 3"]) -> Boxes:
        import cv2

        bgr = cv2.cvtColor(frame, cv2.COLOR_RGB2BGR)
        found = np.concatenate([self._at_size(bgr, long_side) for long_side in self.long_sides])
        # NMSBoxes takes left, top, width, height
        kept = cv2.dnn.NMSBoxes(found[:, :4].tolist(), found[:, 4].tolist(), self.threshold, _MAX_OVERLAP)
        faces = torch.from_numpy(found[np.asarray(kept, dtype=np.int64).reshape(-1)])
        left_top, size = faces[:, :2], faces[:, 2:4]
        return Boxes(torch.cat([left_top, left_top + size], dim=1), faces[:, 4])

    def _at_size(self, bgr: UInt8[np.ndarray, "h w 3"], long_side: int) -> Float32[np.ndarray, "n 5"]:
        """Return left, top, width, height in pixels of the given picture, and score."""
        import cv2

        height, width = bgr.shape[:2]
        scale = long_side / max(height, width)
        size = max(1, round(width * scale)), max(1, round(height * scale))
        picture = cv2.resize(bgr, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
        self._detector.setInputSize(size)
        faces = self._detector.detect(picture)[1]
        if faces is None:
            return np.zeros((0, 5), dtype=np.float32)
        per_pixel = np.array([width / size[0], height / size[1]] * 2 + [1], dtype=np.float32)
        # behind the box stand five landmarks, which we do not need
        return np.asarray(faces[:, [0, 1, 2, 3, 14]] * per_pixel, dtype=np.float32)

    def _path(self) -> Path:
        if self.model is not None:
            if not self.model.is_file():
                raise FileNotFoundError(f"no YuNet model at {self.model}; {_remedy()}")
            return self.model
        from huggingface_hub import errors, hf_hub_download

        try:
            return Path(hf_hub_download(_HUB_ID, _FILE))
        except (errors.HfHubHTTPError, errors.LocalEntryNotFoundError, OSError) as error:
            raise FileNotFoundError(f"{_FILE} of {_HUB_ID} cannot be downloaded; {_remedy()}") from error


def _remedy() -> str:
    return (
        f"fetch it with `hf download {_HUB_ID} {_FILE} --local-dir FOLDER` and pass the file; "
        "without it the gate says that faces were not looked for"
    )
