"""Mask R-CNN of torchvision: people frame by frame, ungated weights, no package beyond torchvision."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from jaxtyping import UInt8
from torch import Tensor

from regen_train.files import file_sha256
from regen_train.signals.mask.files import UNKNOWN_TRACK, MaskWindows
from regen_train.signals.mask.holes import fill_holes
from regen_train.signals.windows import frame_windows
from regen_train.torchvision_weights import load_torchvision_weights

_ALTERNATIVES = "Sam3Masks (gated), GroundedSam2Masks, or MaskFiles (masks made elsewhere)"
_HUB_WEIGHTS = "maskrcnn_resnet50_fpn_v2_coco-73cbd019.pth"
_COCO_CATEGORIES = 91
_PERSON = 1


@dataclass
class MaskRcnnMasks:
    """Find people with torchvision's Mask R-CNN (ResNet-50, FPN, version 2), each frame for itself.

    Every pixel of a person is 255: nobody is followed from frame to frame.

    Args:
        weights: A ``.pth`` of tensors or a ``.safetensors`` with the model's state; None downloads torchvision's own
            (COCO_V1, 177 MB, BSD-3-Clause).
        score_threshold: Least score of a person. Usually 0.5; low, since a background masked in vain costs little and
            a person missed is published.
        mask_threshold: Least probability of a pixel. Usually 0.5; low, since its masks are 28 x 28 a person.
        max_hole: Largest hole that is filled, as a share of the frame's area.
        short_side: Pixels to which the short side of a frame is resized; torchvision's own value finds small people.
        window: Frames held at once.
        batch_size: Frames the model sees at once.

    Source: He et al., "Mask R-CNN", arXiv 1703.06870; Li et al., arXiv 2111.11429.
    """

    weights: Path | None = None
    score_threshold: float = 0.25
    mask_threshold: float = 0.3
    max_hole: float = 0.001
    short_side: int = 800
    window: int = 16
    batch_size: int = 2
    _model: Any = field(default=None, init=False, repr=False, compare=False)
    _device: str = field(default="cpu", init=False, repr=False, compare=False)

    VERSION = 1
    """Raised when the same weights and settings give another result."""

    def setup(self, device: str) -> None:
        """Load the weights; see `MaskSource`.

        Raises:
            FileNotFoundError: They are not there, or cannot be downloaded; says how to get them.
            ValueError: They are of another model.
        """
        from torchvision.models.detection import MaskRCNN_ResNet50_FPN_V2_Weights, maskrcnn_resnet50_fpn_v2

        state = load_torchvision_weights(
            self.weights, MaskRCNN_ResNet50_FPN_V2_Weights.COCO_V1, model="Mask R-CNN", alternatives=_ALTERNATIVES
        )
        # the threshold drops unsure boxes before any work is done on their masks
        model = maskrcnn_resnet50_fpn_v2(
            weights=None,
            weights_backbone=None,
            num_classes=_COCO_CATEGORIES,
            min_size=self.short_side,
            box_score_thresh=self.score_threshold,
        )
        try:
            model.load_state_dict(state)
        except RuntimeError as error:
            where = self.weights or "torchvision's download"
            raise ValueError(f"{where} must hold the state of maskrcnn_resnet50_fpn_v2: {error}") from error
        self._model, self._device = model.to(device).eval(), device

    def identity(self) -> dict[str, Any]:
        """Return what decides the masks; see `MaskSource`."""
        # torchvision names its file by its checksum
        weights, revision = f"torchvision {_HUB_WEIGHTS}", "COCO_V1"
        if self.weights is not None:
            weights, revision = self.weights.name, file_sha256(self.weights)
        fields = [one.name for one in dataclasses.fields(self) if one.init and one.name not in {"weights", "window"}]
        settings = {name: getattr(self, name) for name in fields}
        known = {"extractor": "mask_rcnn", "version": self.VERSION, "weights": weights, "revision": revision}
        return {**known, "settings": settings}

    def masks(self, clip: Path, *, max_frames: int | None = None) -> MaskWindows:
        """Yield masks window by window; see `MaskSource`."""
        assert self._model is not None, "call setup first"
        for frames in frame_windows(clip, self.window, max_frames=max_frames):
            starts = range(0, len(frames), self.batch_size)
            people = torch.cat([self._find_people(frames[start : start + self.batch_size]) for start in starts])
            yield fill_holes(people, self.max_hole)

    @torch.inference_mode()
    def _find_people(self, frames: UInt8[np.ndarray, "t h w 3"]) -> UInt8[Tensor, "t h w"]:
        pictures = rearrange(torch.from_numpy(frames), "t h w c -> t c h w").to(self._device).float() / 255
        labels = torch.zeros(frames.shape[:3], dtype=torch.uint8)
        for label, found in zip(labels, self._model(list(pictures)), strict=True):
            people = found["masks"][found["labels"] == _PERSON, 0]
            label[(people >= self.mask_threshold).any(0).cpu()] = UNKNOWN_TRACK
        return labels
