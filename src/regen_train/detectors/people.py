"""Detectors of people: a second opinion on where people are, from models that made none of the masks."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from regen_train.detectors.batches import batched
from regen_train.detectors.weights import describe_model, find_model
from regen_train.files import file_sha256
from regen_train.guard.detectors import Boxes, Frames
from regen_train.pretrained import PretrainedFolder
from regen_train.torchvision_weights import load_torchvision_weights

_VERSION = 1
_COCO_PERSON = 1
_COCO_CATEGORIES = 91


@dataclass
class TransformersPeople:
    """People found by an object detector of transformers, such as RT-DETR, DETR, D-FINE or YOLOS.

    Args:
        pretrained: Hub id or folder of a model for `AutoModelForObjectDetection`.
        revision: Branch, tag or commit on the hub.
        threshold: Least score of a box. Low: a false alarm costs a look, a person missed is published.
        labels: Names of the classes that are people, as the model's config has them; the case does not matter.
        batch_size: Frames a forward pass.
    """

    pretrained: str = "PekingU/rtdetr_v2_r50vd"
    revision: str | None = None
    threshold: float = 0.3
    labels: tuple[str, ...] = ("person",)
    batch_size: int = 4
    _model: Any = field(default=None, init=False, repr=False, compare=False)
    _processor: Any = field(default=None, init=False, repr=False, compare=False)

    def setup(self, device: str) -> None:
        """Load the weights; see `regen_train.guard.Detector`.

        Raises:
            FileNotFoundError: The weights cannot be had; says what to do.
            ValueError: The model knows none of the labels.
        """
        from transformers import AutoImageProcessor, AutoModelForObjectDetection

        folder = self._folder().path
        self._processor = AutoImageProcessor.from_pretrained(folder, local_files_only=True)
        model = AutoModelForObjectDetection.from_pretrained(folder, local_files_only=True, use_safetensors=True)
        self._model = model.to(device).eval()
        if not self._wanted():
            known = ", ".join(sorted(set(model.config.id2label.values()))[:20])
            raise ValueError(
                f"{self.pretrained} knows none of the labels {', '.join(self.labels)}; it knows {known}. "
                f"Set labels to its names of people, or take TorchvisionPeople"
            )

    def identity(self) -> dict[str, Any]:
        """Return what decides the result; see `regen_train.guard.Detector`."""
        return {
            "detector": type(self).__name__,
            "version": _VERSION,
            **describe_model(self._folder()),
            "threshold": self.threshold,
            "labels": list(self.labels),
        }

    @torch.inference_mode()
    def detect(self, frames: Frames) -> list[Boxes]:
        """Return people by frame; see `regen_train.guard.Detector`."""
        return [boxes for batch in batched(frames, self.batch_size) for boxes in self._detect(batch)]

    def _folder(self) -> PretrainedFolder:
        return find_model(self.pretrained, self.revision, alternatives="TorchvisionPeople")

    def _wanted(self) -> set[int]:
        names = {label.casefold() for label in self.labels}
        return {int(number) for number, name in self._model.config.id2label.items() if name.casefold() in names}

    def _detect(self, frames: Tensor) -> Iterator[Boxes]:
        inputs = self._processor(images=list(frames.numpy()), return_tensors="pt").to(self._model.device)
        sizes = [tuple(frames.shape[1:3])] * len(frames)
        found = self._processor.post_process_object_detection(
            self._model(**inputs), threshold=self.threshold, target_sizes=sizes
        )
        wanted = torch.tensor(sorted(self._wanted()), device=self._model.device)
        for result in found:
            people = torch.isin(result["labels"], wanted)
            yield Boxes(result["boxes"][people].float().cpu(), result["scores"][people].float().cpu())


@dataclass
class TorchvisionPeople:
    """People found by torchvision's Faster R-CNN (ResNet-50, FPN, version 2), trained on COCO; needs no hub.

    Args:
        weights: A state dict as .pth or .safetensors; None takes torchvision's own, downloaded once.
        threshold: Least score of a box. Faster R-CNN is surer of what it finds than a DETR, so a little higher there.
        short_side: Pixels to which the short side of a frame is resized; torchvision's own value finds small people.
        batch_size: Frames a forward pass.
    """

    weights: Path | None = None
    threshold: float = 0.4
    short_side: int = 800
    batch_size: int = 2
    _model: Any = field(default=None, init=False, repr=False, compare=False)
    _device: str = field(default="cpu", init=False, repr=False, compare=False)

    def setup(self, device: str) -> None:
        """Load the weights; see `regen_train.guard.Detector`.

        Raises:
            FileNotFoundError: The weights are not there and cannot be downloaded; says what to do.
            ValueError: The file holds weights of another model.
        """
        from torchvision.models.detection import FasterRCNN_ResNet50_FPN_V2_Weights, fasterrcnn_resnet50_fpn_v2

        model = fasterrcnn_resnet50_fpn_v2(
            weights=None,
            weights_backbone=None,
            num_classes=_COCO_CATEGORIES,
            min_size=self.short_side,
            box_score_thresh=self.threshold,
        )
        published = FasterRCNN_ResNet50_FPN_V2_Weights.COCO_V1
        state = load_torchvision_weights(
            self.weights, published, model="fasterrcnn_resnet50_fpn_v2", alternatives="TransformersPeople"
        )
        try:
            model.load_state_dict(state)
        except RuntimeError as error:
            raise ValueError(f"{self.weights} holds no weights of fasterrcnn_resnet50_fpn_v2: {error}") from error
        self._model, self._device = model.to(device).eval(), device

    def identity(self) -> dict[str, Any]:
        """Return what decides the result; see `regen_train.guard.Detector`."""
        return {
            "detector": type(self).__name__,
            "version": _VERSION,
            "weights": "COCO_V1" if self.weights is None else file_sha256(self.weights),
            "threshold": self.threshold,
            "short_side": self.short_side,
        }

    @torch.inference_mode()
    def detect(self, frames: Frames) -> list[Boxes]:
        """Return people by frame; see `regen_train.guard.Detector`."""
        return [boxes for batch in batched(frames, self.batch_size) for boxes in self._detect(batch)]

    def _detect(self, frames: Tensor) -> Iterator[Boxes]:
        pictures = frames.to(self._device).movedim(-1, 1).float() / 255
        for result in self._model(list(pictures)):
            people = result["labels"] == _COCO_PERSON
            yield Boxes(result["boxes"][people].cpu(), result["scores"][people].cpu())
