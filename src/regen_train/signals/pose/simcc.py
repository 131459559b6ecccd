"""What a top-down SimCC model such as DWPose is given and what its answer means: keypoints of one person a crop.

Source: Li et al., "SimCC", arXiv 2107.03332; Yang et al., "Effective Whole-body Pose Estimation with Two-stages
Distillation" (DWPose), arXiv 2307.15880; padding, crop and normalisation as its models were trained with in MMPose.
"""

import cv2
import numpy as np
from einops import rearrange
from jaxtyping import Float, Float32, UInt8

_BOX_PADDING = 1.25
_MEAN = np.array([123.675, 116.28, 103.53], np.float32)
_DEVIATION = np.array([58.395, 57.12, 57.375], np.float32)


def plan_crops(boxes: Float[np.ndarray, "n 4"], size: tuple[int, int]) -> Float[np.ndarray, "n 4"]:
    """Return centre x, centre y, width and height of the region to cut out for each box.

    The box is padded by a quarter of its size and its shorter side then widened to the aspect of the model's input.

    Args:
        boxes: Left, top, right, bottom in pixels.
        size: Height and width of the model's input.
    """
    aspect = size[1] / size[0]
    left, top, right, bottom = boxes.astype(np.float64).T
    width, height = _BOX_PADDING * (right - left), _BOX_PADDING * (bottom - top)
    width = np.maximum(np.maximum(width, height * aspect), 1.0)
    return np.stack([(left + right) / 2, (top + bottom) / 2, width, width / aspect], axis=1)


def cut_crop(
    frame: UInt8[np.ndarray, "h w 3"], crop: Float[np.ndarray, "4"], size: tuple[int, int]
) -> Float32[np.ndarray, "3 H W"]:
    """Cut one planned region out of an RGB frame, black beyond its borders, normalised as the model wants it."""
    centre, extent = crop[:2], crop[2:]
    factor = size[1] / extent[0]
    shift = np.array([size[1], size[0]]) / 2 - factor * centre
    matrix = np.array([[factor, 0, shift[0]], [0, factor, shift[1]]])
    picture = cv2.warpAffine(frame, matrix, (size[1], size[0]), flags=cv2.INTER_LINEAR)
    return np.ascontiguousarray(rearrange((picture.astype(np.float32) - _MEAN) / _DEVIATION, "h w c -> c h w"))


def decode_simcc(
    columns: Float[np.ndarray, "n k x"],
    rows: Float[np.ndarray, "n k y"],
    crops: Float[np.ndarray, "n 4"],
    size: tuple[int, int],
) -> tuple[Float32[np.ndarray, "n k 2"], Float32[np.ndarray, "n k"]]:
    """Turn the model's two classifications, of column and of row, into points of the source.

    Args:
        columns: Score of each column; DWPose has two columns a pixel (split ratio 2).
        rows: Score of each row.
        crops: The regions the pictures were cut from, from `plan_crops`.
        size: Height and width of the model's input.

    Returns:
        (x, y) in pixels of the source, NaN where there is no point, and scores in [0, 1]: the smaller of the two
        highest scores, which may come out a little above 1 and is cut off there.
    """
    best = np.stack([columns.argmax(-1), rows.argmax(-1)], axis=-1).astype(np.float64)
    scores = np.minimum(columns.max(-1), rows.max(-1))
    share = best / [columns.shape[-1], rows.shape[-1]]
    extent = crops[:, None, 2:]
    points = crops[:, None, :2] + (share - 0.5) * extent
    points[~(scores > 0)] = np.nan
    return points.astype(np.float32), np.clip(np.nan_to_num(scores), 0, 1).astype(np.float32)
