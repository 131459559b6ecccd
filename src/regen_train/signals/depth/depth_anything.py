"""Depth Anything V2, frame by frame, on one scale for the clip."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor

from regen_train.pretrained import PretrainedFolder, model_revision, read_config, resolve_model
from regen_train.signals.depth.files import DepthWindows
from regen_train.signals.depth.running import FrameAligner
from regen_train.signals.windows import frame_windows

_ALTERNATIVES = "VideoDepthAnything (with its repository installed) or DepthFiles (depth made elsewhere)"


class DepthAnythingV2:
    """Estimate depth with Depth Anything V2 through transformers, frames aligned to one scale.

    The model sees one frame at a time and chooses scale and shift anew for each; `FrameAligner` removes that, so that
    a resting background rests.

    Licences: the Small weights are Apache-2.0; Base and Large (``Depth-Anything-V2-Base-hf``, ``-Large-hf``) are
    CC-BY-NC-4.0, not for commercial use.

    Args:
        pretrained: A hub id, or a folder with ``config.json``, ``preprocessor_config.json`` and safetensors.
        revision: Branch, tag or commit on the hub; None for its main branch.
        window: Frames a window; bounds the memory.
        batch_size: Frames the model sees at once.

    Source: Yang et al., "Depth Anything V2", arXiv 2406.09414.
    """

    VERSION = 1
    """Raised when the same weights and settings give another result."""

    def __init__(
        self,
        pretrained: str = "depth-anything/Depth-Anything-V2-Small-hf",
        revision: str | None = None,
        *,
        window: int = 16,
        batch_size: int = 4,
    ) -> None:
        self.pretrained, self.revision = pretrained, revision
        self.window, self.batch_size = window, batch_size
        self._folder: PretrainedFolder | None = None
        self._model: Any = None
        self._processor: Any = None

    def setup(self, device: str) -> None:
        """Load the weights; see `DepthSource`.

        Raises:
            FileNotFoundError: The weights are not there; says how to get them.
            ValueError: They are of another model, or of one that tells metric depth.
        """
        from transformers import AutoImageProcessor, AutoModelForDepthEstimation

        folder = self._find()
        config = read_config(folder.path / "config.json")
        kind = (config.get("model_type"), config.get("depth_estimation_type", "relative"))
        if kind != ("depth_anything", "relative"):
            raise ValueError(
                f"{self.pretrained!r} must be a Depth Anything model of relative depth, got model_type {kind[0]!r} and "
                f"depth_estimation_type {kind[1]!r}, which tells far = large; take "
                f"depth-anything/Depth-Anything-V2-Small-hf, or use {_ALTERNATIVES}"
            )
        if not (folder.path / "preprocessor_config.json").is_file():
            raise FileNotFoundError(
                f"{folder.path} lacks preprocessor_config.json; copy it from the model's repository"
            )
        self._processor = AutoImageProcessor.from_pretrained(folder.path, backend="torchvision")
        model = AutoModelForDepthEstimation.from_pretrained(folder.path, use_safetensors=True)
        self._model = model.to(device).eval()

    def identity(self) -> dict[str, Any]:
        """Return what decides the depth; see `DepthSource`."""
        folder = self._find()
        weights = {"weights": folder.name, "revision": model_revision(folder)}
        settings = {"batch_size": self.batch_size, "alignment": "key frames, scale and shift"}
        return {"extractor": "depth_anything_v2", "version": self.VERSION, **weights, "settings": settings}

    def depth(self, clip: Path, *, max_frames: int | None = None) -> DepthWindows:
        """Yield aligned inverse depth, window by window; see `DepthSource`."""
        assert self._model is not None, "call setup first"
        aligner = FrameAligner()
        for frames in frame_windows(clip, self.window, max_frames=max_frames):
            starts = range(0, len(frames), self.batch_size)
            depth = torch.cat([self._estimate(frames[start : start + self.batch_size]) for start in starts])
            yield torch.stack([aligner.align(frame) for frame in depth])

    @torch.inference_mode()
    def _estimate(self, frames: UInt8[np.ndarray, "t h w 3"]) -> Float[Tensor, "t h w"]:
        height, width = frames.shape[1:3]
        pictures = rearrange(torch.from_numpy(frames), "t h w c -> t c h w")
        inputs = self._processor(images=list(pictures), return_tensors="pt")
        depth = self._model(**inputs.to(self._model.device)).predicted_depth[:, None].float()
        # the processor resizes by pixel edges, not centres of corner pixels; so do we on the way back
        return torch.nn.functional.interpolate(depth, (height, width), mode="bilinear", align_corners=False)[:, 0].cpu()

    def _find(self) -> PretrainedFolder:
        try:
            self._folder = self._folder or resolve_model(self.pretrained, self.revision)
        except FileNotFoundError as error:
            raise FileNotFoundError(f"{error}; or use {_ALTERNATIVES}") from error
        return self._folder
