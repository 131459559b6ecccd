"""Detector of readable text: RapidOCR, whose models come with its package."""

import importlib.metadata
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from jaxtyping import UInt8

from regen_train.guard.detectors import Boxes, Frames

_VERSION = 1
_MISSING = (
    "RapidOcrText needs the package rapidocr from 3.10 on, whose wheel holds its models: `pip install 'rapidocr>=3.10' "
    "onnxruntime`; without it the gate says that text was not looked for"
)


@dataclass
class RapidOcrText:
    """Text found and read by RapidOCR with the PP-OCRv6 models (Apache-2.0), Latin and Chinese script.

    Args:
        threshold: Least score of a reading. Low: of letters too blurred for OCR somebody who knows the place may still
            make sense; but below it bricks and leaves are read too.
        min_characters: Letters and digits of the shortest reading that counts. One alone names nobody, and is what
            OCR makes of edges and marks.
    """

    threshold: float = 0.5
    min_characters: int = 2
    _reader: Any = field(default=None, init=False, repr=False, compare=False)

    def setup(self, device: str) -> None:
        """Load the models; see `regen_train.guard.Detector`.

        Raises:
            ValueError: rapidocr or onnxruntime is not installed; says what to do.
        """
        try:
            rapidocr = import_module("rapidocr")
            import_module("onnxruntime")
        except ImportError as error:
            raise ValueError(f"{_MISSING} ({error})") from error
        if not any((Path(str(rapidocr.__file__)).parent / "models").glob("*rec*.onnx")):
            raise ValueError(f"{_MISSING} (this version would download them)")
        kind, _, number = device.partition(":")
        self._reader = rapidocr.RapidOCR(
            params={
                "Global.log_level": "error",
                "Global.text_score": self.threshold,
                "EngineConfig.onnxruntime.use_cuda": kind == "cuda",
                "EngineConfig.onnxruntime.cuda_ep_cfg.device_id": int(number or 0),
            }
        )

    def identity(self) -> dict[str, Any]:
        """Return what decides the result; see `regen_train.guard.Detector`. The models belong to the package."""
        try:
            version = importlib.metadata.version("rapidocr")
        except importlib.metadata.PackageNotFoundError as error:
            raise ValueError(_MISSING) from error
        return {
            "detector": type(self).__name__,
            "version": _VERSION,
            "weights": "rapidocr",
            "revision": version,
            "threshold": self.threshold,
            "min_characters": self.min_characters,
        }

    def detect(self, frames: Frames) -> list[Boxes]:
        """Return lines of text and what they read, by frame; see `regen_train.guard.Detector`."""
        return [self._detect(frame.numpy()) for frame in frames]

    def _detect(self, frame: UInt8[np.ndarray, "h w 3"]) -> Boxes:
        result = self._reader(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
        if result.boxes is None or not len(result.boxes):
            return Boxes(torch.zeros(0, 4), torch.zeros(0))
        corners = torch.from_numpy(np.asarray(result.boxes, dtype=np.float32))
        boxes = torch.cat([corners.amin(1), corners.amax(1)], dim=1)
        scores = torch.tensor(result.scores, dtype=torch.float32)
        texts = getattr(result, "txts", None)
        if texts is None:  # text is seen, but none of it can be read
            return Boxes(boxes, scores, ("",) * len(boxes))
        kept = [number for number, text in enumerate(texts) if sum(map(str.isalnum, text)) >= self.min_characters]
        return Boxes(boxes[kept], scores[kept], tuple(texts[number] for number in kept))
