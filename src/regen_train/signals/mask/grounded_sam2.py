"""Grounding DINO's boxes, detected anew every few frames, and SAM 2.1 to follow whoever is in them. Both ungated."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from regen_train.pretrained import DTYPES, Precision, PretrainedFolder
from regen_train.signals.mask.canvas import Canvas
from regen_train.signals.mask.files import MaskWindows
from regen_train.signals.mask.models import describe_model, find_model, transformers_classes
from regen_train.signals.mask.sam2 import Sam2Window
from regen_train.signals.mask.windows import OVERLAP, mask_windows

_ALTERNATIVES = "Sam3Masks (gated), MaskRcnnMasks, or MaskFiles (masks made elsewhere)"
_DUPLICATE = 0.8
"""Of two boxes with a larger intersection over union the surer is kept. High: people who embrace have boxes alike."""


@dataclass
class GroundedSam2Masks:
    """Find people with Grounding DINO every few frames, and follow them both ways with SAM 2.1, through transformers.

    Args:
        detector: Grounding DINO as a hub id or folder.
        tracker: SAM 2 or 2.1 video as a hub id or folder.
        detector_revision: Branch, tag or commit on the hub.
        tracker_revision: Branch, tag or commit on the hub.
        prompts: What to look for.
        detect_every: Frames from one detection to the next; whoever is in the picture for less may be missed. A
            window's last frame is looked at in any case.
        box_threshold: Least score of a box. Grounding DINO's authors take 0.35 for one thing per word; low here, since
            a background masked in vain costs little and a person missed is published.
        mask_threshold: Least probability of a pixel. SAM 2 itself takes 0.5; low for the same reason.
        max_hole: Largest hole that is filled, as a share of the frame's area.
        window: Frames held at once; whoever is on the first of the 4 frames that two windows share is followed on.
        dtype: Precision of the tracker. The detector stays in fp32: its boxes are few.

    Source: Liu et al., "Grounding DINO", arXiv 2303.05499; Ravi et al., "SAM 2", arXiv 2408.00714.
    """

    detector: str = "IDEA-Research/grounding-dino-base"
    tracker: str = "facebook/sam2.1-hiera-large"
    detector_revision: str | None = None
    tracker_revision: str | None = None
    prompts: tuple[str, ...] = ("person",)
    detect_every: int = 4
    box_threshold: float = 0.25
    mask_threshold: float = 0.3
    max_hole: float = 0.001
    window: int = 32
    dtype: Precision = "bf16"
    _folders: tuple[PretrainedFolder, PretrainedFolder] | None = field(
        default=None, init=False, repr=False, compare=False
    )
    _detector: Any = field(default=None, init=False, repr=False, compare=False)
    _detector_processor: Any = field(default=None, init=False, repr=False, compare=False)
    _tracker: Any = field(default=None, init=False, repr=False, compare=False)
    _tracker_processor: Any = field(default=None, init=False, repr=False, compare=False)

    VERSION = 1
    """Raised when the same weights and settings give another result."""

    def setup(self, device: str) -> None:
        """Load the weights; see `MaskSource`.

        Raises:
            FileNotFoundError: The weights cannot be had; says what to do.
            ValueError: A setting is wrong, they are of other models, or transformers is missing.
        """
        if not self.prompts or self.detect_every < 1:
            raise ValueError(
                f"prompts must name what to look for, and detect_every must be at least 1; got {self.prompts} and "
                f"{self.detect_every}"
            )
        detector_class, detector_processor, tracker_class, tracker_processor = transformers_classes(
            "GroundingDinoForObjectDetection",
            "GroundingDinoProcessor",
            "Sam2VideoModel",
            "Sam2VideoProcessor",
            alternatives=_ALTERNATIVES,
        )
        detector, tracker = (folder.path for folder in self._find())
        local = {"local_files_only": True}
        self._detector_processor = detector_processor.from_pretrained(detector, **local)
        self._tracker_processor = tracker_processor.from_pretrained(tracker, **local)
        safe = {**local, "use_safetensors": True}
        self._detector = detector_class.from_pretrained(detector, dtype=torch.float32, **safe).to(device).eval()
        self._tracker = tracker_class.from_pretrained(tracker, dtype=DTYPES[self.dtype], **safe).to(device).eval()

    def identity(self) -> dict[str, Any]:
        """Return what decides the masks; see `MaskSource`."""
        detector, tracker = self._find()
        weights = {"detector", "tracker", "detector_revision", "tracker_revision"}
        fields = [one.name for one in dataclasses.fields(self) if one.init and one.name not in weights]
        settings = {name: getattr(self, name) for name in fields}
        settings |= {"prompts": list(self.prompts), "overlap": OVERLAP}
        return {
            "extractor": "grounded_sam2",
            "version": self.VERSION,
            "detector": describe_model(detector),
            "tracker": describe_model(tracker),
            "settings": settings,
        }

    def masks(self, clip: Path, *, max_frames: int | None = None) -> MaskWindows:
        """Yield masks window by window; see `MaskSource`."""
        assert self._tracker is not None, "call setup first"
        yield from mask_windows(
            clip,
            self._paint_window,
            window=self.window,
            max_frames=max_frames,
            max_hole=self.max_hole,
            device=str(self._tracker.device),
        )

    @torch.inference_mode()
    def _paint_window(self, frames: UInt8[np.ndarray, "t h w 3"], canvas: Canvas) -> None:
        window = Sam2Window(self._tracker, self._tracker_processor, frames, canvas, mask_threshold=self.mask_threshold)
        last = len(frames) - 1
        for number in sorted({*range(0, last, self.detect_every), last}):
            window.add_boxes(number, self._detect(frames[number]))

    def _detect(self, frame: UInt8[np.ndarray, "h w 3"]) -> Float[Tensor, "n 4"]:
        """Return boxes of people in pixels, the surest first."""
        from torchvision.ops import clip_boxes_to_image, nms

        inputs = self._detector_processor(images=frame, text=[list(self.prompts)], return_tensors="pt")
        inputs = inputs.to(self._detector.device)
        found = self._detector_processor.post_process_grounded_object_detection(
            self._detector(**inputs),
            inputs["input_ids"],
            threshold=self.box_threshold,
            target_sizes=[frame.shape[:2]],
        )[0]
        boxes: Tensor = clip_boxes_to_image(found["boxes"].float().cpu(), frame.shape[:2])
        return boxes[nms(boxes, found["scores"].float().cpu(), _DUPLICATE)]

    def _find(self) -> tuple[PretrainedFolder, PretrainedFolder]:
        if self._folders is None:
            detector = find_model(
                self.detector, self.detector_revision, model_type="grounding-dino", alternatives=_ALTERNATIVES
            )
            tracker = find_model(
                self.tracker, self.tracker_revision, model_type="sam2_video", alternatives=_ALTERNATIVES
            )
            self._folders = (detector, tracker)
        return self._folders
