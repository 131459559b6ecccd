"""Video Depth Anything: depth of whole stretches of a clip at once, where its repository is installed."""

import contextlib
import importlib
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from regen_train.pretrained import PretrainedFolder
from regen_train.signals.depth.files import DepthWindows
from regen_train.signals.depth.running import join_windows
from regen_train.signals.hub_files import describe_weights, find_files
from regen_train.video import decode_frames

Encoder = Literal["vits", "vitb", "vitl"]

_ARCHITECTURES: dict[str, dict[str, Any]] = {
    "vits": {"features": 64, "out_channels": [48, 96, 192, 384]},
    "vitb": {"features": 128, "out_channels": [96, 192, 384, 768]},
    "vitl": {"features": 256, "out_channels": [256, 512, 1024, 1024]},
}

_ALTERNATIVES = "DepthAnythingV2 (transformers, no further package) or DepthFiles (depth made elsewhere)"
_REMEDY = (
    "VideoDepthAnything needs the package video_depth_anything, which PyPI does not have: "
    "`git clone https://github.com/DepthAnything/Video-Depth-Anything`, `pip install easydict`, and put the clone's "
    f"folder on PYTHONPATH; or use {_ALTERNATIVES}"
)


class VideoDepthAnything:
    """Estimate depth with Video Depth Anything, which looks at 32 frames at once and so flickers least.

    Long clips go through in windows that overlap; each is fitted to the one before on the frames both have.

    Licences: the Small weights are Apache-2.0; Base and Large (``depth-anything/Video-Depth-Anything-Base``,
    ``-Large``) are CC-BY-NC-4.0, not for commercial use.

    Args:
        pretrained: A hub id, or a folder with ``video_depth_anything_ENCODER.pth`` (read as tensors only).
        revision: Branch, tag or commit on the hub; None for its main branch.
        encoder: ``vits`` for Small, ``vitb`` for Base, ``vitl`` for Large.
        input_size: Short side, in pixels, of what the model sees; a multiple of 14.
        window: Frames a window; bounds the memory. 22n + 10 wastes nothing.
        overlap: Frames two windows share.

    Source: Chen et al., "Video Depth Anything", arXiv 2501.12375; github.com/DepthAnything/Video-Depth-Anything.
    """

    VERSION = 1
    """Raised when the same weights and settings give another result."""

    def __init__(
        self,
        pretrained: str = "depth-anything/Video-Depth-Anything-Small",
        revision: str | None = None,
        *,
        encoder: Encoder = "vits",
        input_size: int = 518,
        window: int = 98,
        overlap: int = 10,
    ) -> None:
        if not window > overlap >= 1:
            raise ValueError(f"window must be above overlap and overlap at least 1, got {window} and {overlap}")
        self.pretrained, self.revision, self.encoder = pretrained, revision, encoder
        self.input_size, self.window, self.overlap = input_size, window, overlap
        self._folder: PretrainedFolder | None = None
        self._model: Any = None
        self._device = torch.device("cpu")

    def setup(self, device: str) -> None:
        """Load the weights; see `DepthSource`.

        Raises:
            ValueError: The package is not importable, or the weights do not fit the encoder.
            FileNotFoundError: The weights are not there; says how to get them.
        """
        try:
            module = importlib.import_module("video_depth_anything.video_depth")
        except ImportError as error:
            raise ValueError(f"{_REMEDY} (import failed: {error})") from error
        path = self._find().path / self._file
        model = module.VideoDepthAnything(encoder=self.encoder, **_ARCHITECTURES[self.encoder])
        try:
            model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True), strict=True)
        except Exception as error:  # torch tells of damage, pickles and misfits in a dozen types
            raise ValueError(f"{path} must hold the weights of encoder {self.encoder!r}: {error}") from error
        self._device = torch.device(device)
        self._model = model.to(device).eval()

    def identity(self) -> dict[str, Any]:
        """Return what decides the depth; see `DepthSource`."""
        settings = {"input_size": self.input_size, "window": self.window, "overlap": self.overlap}
        weights = describe_weights(self._find(), [self._file])
        return {"extractor": "video_depth_anything", "version": self.VERSION, **weights, "settings": settings}

    def depth(self, clip: Path, *, max_frames: int | None = None) -> DepthWindows:
        """Yield inverse depth on one scale, window by window; see `DepthSource`."""
        assert self._model is not None, "call setup first"
        windows = self._overlapping(clip, max_frames)
        yield from join_windows((self._estimate(frames) for frames in windows), self.overlap)

    @property
    def _file(self) -> str:
        return f"video_depth_anything_{self.encoder}.pth"

    def _overlapping(self, clip: Path, max_frames: int | None) -> Iterator[list[Any]]:
        frames = (frame.rgb for frame in decode_frames(clip, max_frames=max_frames))
        window = list(islice(frames, self.window))
        while window:
            yield window
            new = list(islice(frames, self.window - self.overlap))
            window = [*window[-self.overlap :], *new] if new else []

    @torch.inference_mode()
    def _estimate(self, frames: list[Any]) -> Float[Tensor, "t h w"]:
        # the repository hands the device's name to autocast, which knows kinds of devices only: choose the card here
        numbered = self._device.type == "cuda" and self._device.index is not None
        with torch.cuda.device(self._device) if numbered else contextlib.nullcontext():
            depth, _ = self._model.infer_video_depth(
                np.stack(frames), -1, input_size=self.input_size, device=self._device.type, fp32=True
            )
        return torch.from_numpy(np.ascontiguousarray(depth, dtype=np.float32))

    def _find(self) -> PretrainedFolder:
        self._folder = self._folder or find_files(
            self.pretrained, [self._file], revision=self.revision, alternatives=_ALTERNATIVES
        )
        return self._folder
