"""What YOLOX is given and what its answer means: boxes of people.

Source: Ge et al., "YOLOX", arXiv 2107.08430, and the export of its repository: one output [n, anchors, 5 + classes] of
centre offsets, logarithms of sizes, objectness and class scores, for strides 8, 16 and 32.
"""

import cv2
import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, Float32, UInt8

_STRIDES = (8, 16, 32)
_PADDING = 114
_PERSON = 0
"""COCO's first class."""


def letterbox(
    frame: UInt8[np.ndarray, "h w 3"], size: tuple[int, int]
) -> tuple[Float32[np.ndarray, "3 H W"], Float[np.ndarray, "2"]]:
    """Fit a picture into the top left of a gray one, its aspect kept.

    Args:
        frame: RGB.
        size: Height and width of the result.

    Returns:
        BGR, 0 to 255, as YOLOX was trained on, and the factors of x and y by which the picture was scaled.
    """
    height, width = frame.shape[:2]
    scale = min(size[0] / height, size[1] / width)
    inner = max(1, int(height * scale)), max(1, int(width * scale))
    padded = np.full((*size, 3), _PADDING, np.uint8)
    padded[: inner[0], : inner[1]] = cv2.resize(frame, inner[::-1], interpolation=cv2.INTER_LINEAR)
    picture = np.ascontiguousarray(rearrange(padded[..., ::-1], "h w c -> c h w"), dtype=np.float32)
    return picture, np.array([inner[1] / width, inner[0] / height])


def decode_people(
    output: Float[np.ndarray, "n c"], size: tuple[int, int]
) -> tuple[Float[np.ndarray, "n 4"], Float[np.ndarray, " n"]]:
    """Turn the raw output for one picture into boxes of people.

    Args:
        output: One row an anchor: x, y, width, height, objectness, and a score for each class.
        size: Height and width of the picture the model saw.

    Returns:
        Left, top, right, bottom of each anchor in pixels of that picture, and objectness times the score of "person".

    Raises:
        ValueError: There are not as many anchors as such a picture has.
    """
    grids = [np.mgrid[: size[0] // stride, : size[1] // stride].reshape(2, -1).T for stride in _STRIDES]
    corners = np.concatenate(grids)[:, ::-1]
    strides = np.repeat(_STRIDES, [len(grid) for grid in grids])[:, None]
    if len(output) != len(corners) or output.shape[1] < 6:
        raise ValueError(
            f"the detector must be YOLOX with raw output [n, {len(corners)}, 85] for {size[0]}x{size[1]}, got "
            f"{list(output.shape)} for a picture; take yolox_l.onnx of yzd-v/DWPose"
        )
    centres = (output[:, :2] + corners) * strides
    halves = np.exp(output[:, 2:4]) * strides / 2
    return np.concatenate([centres - halves, centres + halves], axis=1), output[:, 4] * output[:, 5 + _PERSON]


def suppress_overlaps(
    boxes: Float[np.ndarray, "n 4"], scores: Float[np.ndarray, " n"], *, min_score: float, max_iou: float
) -> tuple[Float32[np.ndarray, "k 4"], Float32[np.ndarray, " k"]]:
    """Keep the surest box of those that overlap by more than ``max_iou``, none below ``min_score``; surest first."""
    from torchvision.ops import nms

    likely = scores >= min_score
    found, sure = torch.from_numpy(boxes[likely]).float(), torch.from_numpy(scores[likely]).float()
    kept = nms(found, sure, max_iou)
    return found[kept].numpy(), sure[kept].numpy()
