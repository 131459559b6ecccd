"""Run an ONNX file of pictures in, arrays out."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

logger = logging.getLogger(__name__)

_REMEDY = (
    "DwPose needs onnxruntime: `pip install -c constraints.txt '.[prep]'`, for CUDA `pip install onnxruntime-gpu` in "
    "its place; or use KeypointRcnn (torchvision, body only) or PoseFiles (poses made elsewhere)"
)


class OnnxModel:
    """A model with one input of pictures, [n, 3, h, w].

    Args:
        path: The ONNX file.
        device: ``cpu``, ``cuda`` or ``cuda:N``; without onnxruntime's CUDA provider the CPU is taken, and that logged.
        threads: Threads of an operator on the CPU; 0 for as many as there are cores.
        size: Height and width to take where the file leaves them open.

    Raises:
        ValueError: onnxruntime is missing, or the file is no such model.
    """

    def __init__(self, path: Path, device: str, *, threads: int, size: tuple[int, int]) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise ValueError(_REMEDY) from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.use_deterministic_compute = True
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=_providers(onnxruntime, device))
        except Exception as error:  # onnxruntime has a class of its own for each way to fail
            raise ValueError(f"{path} cannot be opened as an ONNX model: {error}") from error
        inputs = self._session.get_inputs()
        if len(inputs) != 1 or len(inputs[0].shape) != 4 or inputs[0].shape[1] not in (3, None):
            found = ", ".join(f"{entry.name} {entry.shape}" for entry in inputs)
            raise ValueError(f"{path} must take one input of pictures [n, 3, h, w], takes {found}")
        self._name, (batch, _, height, width) = inputs[0].name, inputs[0].shape
        self._batch = batch if isinstance(batch, int) else None
        self.size: tuple[int, int] = (
            height if isinstance(height, int) else size[0],
            width if isinstance(width, int) else size[1],
        )

    def run(self, pictures: Float32[np.ndarray, "n 3 h w"]) -> list[np.ndarray]:
        """Return the outputs for pictures, in pieces of the batch the file was made for, the last one filled up."""
        step = self._batch or max(1, len(pictures))
        parts = []
        for start in range(0, len(pictures), step):
            piece = pictures[start : start + step]
            missing = np.zeros((self._batch - len(piece) if self._batch else 0, *piece.shape[1:]), np.float32)
            outputs = self._session.run(None, {self._name: np.concatenate([piece, missing])})
            parts.append([output[: len(piece)] for output in outputs])
        return [np.concatenate(outputs) for outputs in zip(*parts, strict=True)]


def _providers(onnxruntime: Any, device: str) -> list[Any]:
    if not device.startswith("cuda"):
        return ["CPUExecutionProvider"]
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        logger.warning("onnxruntime has no CUDA provider (`pip install onnxruntime-gpu`); poses run on the CPU")
        return ["CPUExecutionProvider"]
    number = int(device.partition(":")[2] or 0)
    # searching for the quickest algorithm may find another one, with other last digits, each time
    cuda = ("CUDAExecutionProvider", {"device_id": number, "cudnn_conv_algo_search": "DEFAULT"})
    return [cuda, "CPUExecutionProvider"]
