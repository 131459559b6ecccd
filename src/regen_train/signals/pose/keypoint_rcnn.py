"""Keypoint R-CNN of torchvision: the body's 17 keypoints, ungated weights, no package beyond torchvision."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, Float32
from torch import Tensor

from regen_train.signals.hub_files import weights_sha256
from regen_train.signals.pose.files import NUM_KEYPOINTS, Poses
from regen_train.signals.pose.people import People, Tracker, stack_people
from regen_train.signals.windows import frame_windows
from regen_train.torchvision_weights import load_torchvision_weights

NUM_BODY = 17

_HUB_WEIGHTS = "keypointrcnn_resnet50_fpn_coco-fc266e95.pth"
_ALTERNATIVES = "DwPose (onnxruntime, whole body) or PoseFiles (poses made elsewhere)"
_VISIBLE_LOGIT = 2.0
_DRAWN_SCORE = 0.3


def score_of_logits(logits: Float32[np.ndarray, "..."]) -> Float32[np.ndarray, "..."]:
    """Map Keypoint R-CNN's keypoint scores to [0, 1].

    They are heat map maxima before the softmax over positions, not probabilities. A logistic curve keeps their order;
    it is placed so that 2, from which on such points are usually drawn, becomes 0.3, from which on we draw.
    """
    offset = math.log(_DRAWN_SCORE / (1 - _DRAWN_SCORE)) - _VISIBLE_LOGIT
    return (1 / (1 + np.exp(-(logits.astype(np.float64) + offset)))).astype(np.float32)


class KeypointRcnn:
    """Find the body's 17 keypoints with torchvision's Keypoint R-CNN; feet, face and hands stay absent.

    Args:
        weights: A ``.pth`` of tensors or a ``.safetensors`` with the model's state; None downloads torchvision's own
            (COCO_V1, 237 MB, BSD-3-Clause).
        min_box_score: Surer boxes than this are people, 0 to 1.
        min_size: The frame's short side is resized to so many pixels.
        window: Frames a window; bounds the memory.
        batch_size: Frames the model sees at once.

    Source: He et al., "Mask R-CNN", arXiv 1703.06870.
    """

    VERSION = 1
    """Raised when the same weights and settings give another result."""

    def __init__(
        self,
        weights: Path | None = None,
        *,
        min_box_score: float = 0.5,
        min_size: int = 800,
        window: int = 16,
        batch_size: int = 2,
    ) -> None:
        self.weights, self.min_box_score, self.min_size = weights, min_box_score, min_size
        self.window, self.batch_size = window, batch_size
        self._model: Any = None
        self._device = "cpu"

    def setup(self, device: str) -> None:
        """Load the weights; see `PoseSource`.

        Raises:
            FileNotFoundError: They are not there, or cannot be downloaded; says how to get them.
            ValueError: They are of another model.
        """
        from torchvision.models.detection import KeypointRCNN_ResNet50_FPN_Weights

        state = load_torchvision_weights(
            self.weights, KeypointRCNN_ResNet50_FPN_Weights.COCO_V1, model="Keypoint R-CNN", alternatives=_ALTERNATIVES
        )
        # the threshold drops unsure boxes before any work is done on their keypoints
        model = build_model(min_size=self.min_size, box_score_thresh=self.min_box_score)
        try:
            model.load_state_dict(state)
        except RuntimeError as error:
            where = self.weights or "torchvision's download"
            raise ValueError(f"{where} must hold the state of keypointrcnn_resnet50_fpn: {error}") from error
        self._model, self._device = model.to(device).eval(), device

    def identity(self) -> dict[str, Any]:
        """Return what decides the poses; see `PoseSource`."""
        name, checksums = f"torchvision {_HUB_WEIGHTS}", {}
        if self.weights is not None:
            name, checksums = self.weights.name, {self.weights.name: weights_sha256(self.weights)}
        weights = {"weights": name, "revision": None, "sha256": checksums}
        settings = {
            "min_box_score": self.min_box_score, "min_size": self.min_size, "batch_size": self.batch_size
        }  # fmt: skip
        return {"extractor": "keypoint_rcnn", "version": self.VERSION, **weights, "settings": settings}

    def poses(self, clip: Path, *, max_frames: int | None = None) -> Iterator[Poses]:
        """Yield keypoints window by window; see `PoseSource`."""
        assert self._model is not None, "call setup first"
        tracker = Tracker()
        for frames in frame_windows(clip, self.window, max_frames=max_frames):
            starts = range(0, len(frames), self.batch_size)
            found = [one for start in starts for one in self._detect(frames[start : start + self.batch_size])]
            yield stack_people([people_of(one, tracker) for one in found])

    @torch.inference_mode()
    def _detect(self, frames: np.ndarray) -> list[dict[str, Tensor]]:
        pictures = rearrange(torch.from_numpy(frames), "t h w c -> t c h w").to(self._device).float() / 255
        return list(self._model(list(pictures)))


def build_model(**settings: Any) -> Any:
    """Return an untrained Keypoint R-CNN built as torchvision builds the trained one.

    `keypointrcnn_resnet50_fpn(weights=None)` would have trainable batch norms with other buffers; with its published
    weights it has frozen ones, whose epsilon is set to 0.

    Args:
        **settings: For `torchvision.models.detection.KeypointRCNN`.
    """
    from torchvision.models.detection import KeypointRCNN
    from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
    from torchvision.ops import FrozenBatchNorm2d

    backbone = resnet_fpn_backbone(
        backbone_name="resnet50", weights=None, norm_layer=FrozenBatchNorm2d, trainable_layers=0
    )
    for module in backbone.modules():
        if isinstance(module, FrozenBatchNorm2d):
            module.eps = 0.0
    return KeypointRCNN(backbone, num_classes=2, **settings)


def people_of(found: Mapping[str, Float[Tensor, "..."] | Tensor], tracker: Tracker) -> People:
    """Turn what torchvision found in a frame into whole-body people.

    Args:
        found: ``boxes`` [n, 4], ``keypoints`` [n, 17, 3] and ``keypoints_scores`` [n, 17] in source pixels.
        tracker: Has numbered the people of the frames before.
    """
    count = len(found["boxes"])
    keypoints = np.full((count, NUM_KEYPOINTS, 2), np.nan, np.float32)
    scores = np.zeros((count, NUM_KEYPOINTS), np.float32)
    keypoints[:, :NUM_BODY] = found["keypoints"][..., :2].cpu().numpy()
    scores[:, :NUM_BODY] = score_of_logits(found["keypoints_scores"].cpu().numpy())
    return People(keypoints, scores, tracker.assign(found["boxes"].cpu().numpy()))
