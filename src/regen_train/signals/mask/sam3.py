"""SAM 3 video: people found by words, on every frame, and followed."""

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
from regen_train.signals.mask.logits import masks_of_logits
from regen_train.signals.mask.models import describe_model, find_model, transformers_classes
from regen_train.signals.mask.windows import OVERLAP, mask_windows

_ALTERNATIVES = "GroundedSam2Masks or MaskRcnnMasks (both ungated), or MaskFiles (masks made elsewhere)"
_MAX_TRACKED = 32
"""Objects followed in a window; each costs some 7 MB a frame. Of more, all are masked where they are detected."""


@dataclass
class Sam3Masks:
    """Find people with SAM 3 video through transformers, detecting on every frame.

    What SAM 3 does to give clean tracks loses people, so it is undone: objects that its tracker doubts are not removed
    or suppressed, and what the detector sees but does not start a track for (whoever overlaps somebody by a tenth, or
    is below the threshold for new tracks) is masked on its frame all the same. The mask is the union of all raw
    logits. SAM 3's own hole filling and suppression of duplicates need compiled kernels fetched at run time; they are
    off, so that all machines agree.

    The weights are gated: their licence is accepted at https://huggingface.co/facebook/sam3.

    Args:
        pretrained: A hub id, or a folder with a model and its processor.
        revision: Branch, tag or commit on the hub.
        prompts: What to look for. Two words for one thing find more than one; a person found twice is one track.
        score_threshold: Least score of a detection that is masked on its frame. SAM 3 itself takes 0.5; low here,
            since a background masked in vain costs little and a person missed is published.
        track_threshold: Least score of a detection that is followed to other frames. SAM 3 itself takes 0.7. Higher
            than the other: a mistake that is followed spoils a whole window.
        mask_threshold: Least probability of a pixel. SAM 3 itself takes 0.5; low, since its masks are 288 x 288 and
            thin parts such as fingers become unsure.
        max_hole: Largest hole that is filled, as a share of the frame's area.
        reverse: Also runs each window backwards, so that whoever is found late is masked before; takes twice as long.
        window: Frames held at once; tracks end with a window where nobody is seen in the 4 frames that two share.
        dtype: Precision of the weights.

    Source: Carion et al., "SAM 3: Segment Anything with Concepts", arXiv 2511.16719.
    """

    pretrained: str = "facebook/sam3"
    revision: str | None = None
    prompts: tuple[str, ...] = ("person", "human")
    score_threshold: float = 0.25
    track_threshold: float = 0.5
    mask_threshold: float = 0.3
    max_hole: float = 0.001
    reverse: bool = False
    window: int = 32
    dtype: Precision = "bf16"
    _folder: PretrainedFolder | None = field(default=None, init=False, repr=False, compare=False)
    _model: Any = field(default=None, init=False, repr=False, compare=False)
    _processor: Any = field(default=None, init=False, repr=False, compare=False)
    _device: str = field(default="cpu", init=False, repr=False, compare=False)
    _detected: list[Tensor] = field(default_factory=list, init=False, repr=False, compare=False)

    VERSION = 1
    """Raised when the same weights and settings give another result."""

    def setup(self, device: str) -> None:
        """Load the weights; see `MaskSource`.

        Raises:
            FileNotFoundError: The weights cannot be had; says what to do.
            ValueError: They are of another model, or transformers is missing.
        """
        if not self.prompts:
            raise ValueError("prompts must name what to look for, such as person; got none")
        config_class, model_class, processor_class = transformers_classes(
            "Sam3VideoConfig", "Sam3VideoModel", "Sam3VideoProcessor", alternatives=_ALTERNATIVES
        )
        folder = self._find()
        config = config_class.from_pretrained(folder.path, local_files_only=True)
        config.update(self._overrides())
        model = model_class.from_pretrained(
            folder.path, config=config, dtype=DTYPES[self.dtype], local_files_only=True, use_safetensors=True
        )
        self._model, self._device = model.to(device).eval(), device
        self._processor = processor_class.from_pretrained(folder.path, local_files_only=True)
        self._model.detector_model.register_forward_hook(self._note_detections)

    def identity(self) -> dict[str, Any]:
        """Return what decides the masks; see `MaskSource`."""
        weights = {"pretrained", "revision"}
        fields = [one.name for one in dataclasses.fields(self) if one.init and one.name not in weights]
        settings = {name: getattr(self, name) for name in fields}
        settings |= {"prompts": list(self.prompts), "overlap": OVERLAP, "max_tracked": _MAX_TRACKED}
        return {"extractor": "sam3", "version": self.VERSION, **describe_model(self._find()), "settings": settings}

    def masks(self, clip: Path, *, max_frames: int | None = None) -> MaskWindows:
        """Yield masks window by window; see `MaskSource`."""
        assert self._model is not None, "call setup first"
        yield from mask_windows(
            clip,
            self._paint_window,
            window=self.window,
            max_frames=max_frames,
            max_hole=self.max_hole,
            device=self._device,
        )

    def _overrides(self) -> dict[str, Any]:
        return {
            # the session drops tracks within the hot start, and `build_outputs` then mixes up masks and ids
            "hotstart_delay": 0,
            "suppress_overlapping_based_on_recent_occlusion_threshold": 0.0,
            # both would fetch compiled kernels from the hub where the package `kernels` is installed
            "det_nms_thresh": 0.0,
            "fill_hole_area": 0,
            # on a window's first frame every detection starts a track, whatever new_det_thresh says
            "score_threshold_detection": self.track_threshold,
            "new_det_thresh": self.track_threshold,
            "max_num_objects": _MAX_TRACKED,
        }

    def _note_detections(self, module: Any, inputs: Any, output: Any) -> None:
        """Keep the masks of all detections that are sure enough; SAM 3 calls its detector once a frame and prompt."""
        scores = (output.pred_logits.float().sigmoid() * output.presence_logits.float().sigmoid())[0]
        self._detected.append(output.pred_masks[0][scores >= self.score_threshold])

    @torch.inference_mode()
    def _paint_window(self, frames: UInt8[np.ndarray, "t h w 3"], canvas: Canvas) -> None:
        self._paint_pass(frames, canvas, range(len(frames)))
        if self.reverse:
            self._paint_pass(frames, canvas, range(len(frames) - 1, -1, -1))

    def _paint_pass(self, frames: UInt8[np.ndarray, "t h w 3"], canvas: Canvas, order: range) -> None:
        # backwards is forwards through the frames turned round, which leaves the library's own order alone
        session = self._processor.init_video_session(
            video=frames[np.array(order)],
            inference_device=self._device,
            processing_device="cpu",
            video_storage_device="cpu",
            dtype=DTYPES[self.dtype],
        )
        self._processor.add_text_prompt(session, list(self.prompts))
        for step, frame in enumerate(order):
            self._detected.clear()
            found = self._model(inference_session=session, frame_idx=step).obj_id_to_mask
            for number, logits in sorted(found.items()):
                self._paint(canvas, frame, logits, name=(order.step, number))
            for logits in self._detected:
                self._paint(canvas, frame, logits, name=None)

    def _paint(
        self, canvas: Canvas, frame: int, logits: Float[Tensor, "n h_low w_low"], *, name: tuple[int, int] | None
    ) -> None:
        size = canvas.labels.shape[1:]
        for one in logits:  # one by one: many people at full size would not fit
            canvas.paint(frame, masks_of_logits(one[None], (size[0], size[1]), self.mask_threshold)[0], name)

    def _find(self) -> PretrainedFolder:
        self._folder = self._folder or find_model(
            self.pretrained, self.revision, model_type="sam3_video", alternatives=_ALTERNATIVES
        )
        return self._folder
