"""Fill small holes in masks: a background that somebody encloses is more often a fault of the mask than background."""

import cv2
import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from regen_train.signals.mask.files import UNKNOWN_TRACK


def fill_holes(labels: UInt8[Tensor, "t h w"], max_share: float) -> UInt8[Tensor, "t h w"]:
    """Fill the background that people enclose, up to a size.

    A hole is a 4-connected area of 0 that does not touch the frame's border. It becomes the track that alone
    surrounds it; where several do, or an unknown one, it becomes 255.

    Args:
        labels: 0 nobody, 1 to 254 track, 255 person.
        max_share: Largest hole, as a share of the frame's area; 0 fills none.

    Returns:
        A new tensor; no label other than 0 changes.
    """
    filled = labels.cpu().numpy().copy()
    if max_share > 0:
        for frame in filled:
            _fill_frame(frame, int(max_share * frame.size))
    return torch.from_numpy(filled)


def _fill_frame(frame: UInt8[np.ndarray, "h w"], max_area: int) -> None:
    count, areas, stats, _ = cv2.connectedComponentsWithStats((frame == 0).astype(np.uint8), connectivity=4)
    height, width = frame.shape
    left, top = stats[:, cv2.CC_STAT_LEFT], stats[:, cv2.CC_STAT_TOP]
    right, bottom = left + stats[:, cv2.CC_STAT_WIDTH], top + stats[:, cv2.CC_STAT_HEIGHT]
    enclosed = (left > 0) & (top > 0) & (right < width) & (bottom < height)
    small = stats[:, cv2.CC_STAT_AREA] <= max_area
    before = frame.copy()  # two holes may touch at a corner, and must not see each other filled
    for number in range(1, count):  # component 0 is where people are
        if enclosed[number] and small[number]:
            # a hole touches no border, so that the box with a margin of 1 lies within the frame
            box = slice(top[number] - 1, bottom[number] + 1), slice(left[number] - 1, right[number] + 1)
            hole = areas[box] == number
            around = np.unique(before[box][cv2.dilate(hole.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0])
            around = around[around > 0]
            frame[box][hole] = around[0] if len(around) == 1 else UNKNOWN_TRACK
