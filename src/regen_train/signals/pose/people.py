"""The people of single frames, gathered into windows, and who of them is who over time."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from jaxtyping import Float, Float32, Int64, UInt8

from regen_train.signals.pose.files import MAX_PEOPLE, NUM_KEYPOINTS, Poses

UNKNOWN = -1
_FORGET_AFTER = 15
"""Frames after which somebody not seen counts as new."""

_MIN_AREA = 0.0002
"""Share of the picture below which a piece of a mask without tracks is no person of its own."""


@dataclass(frozen=True)
class People:
    """The people of one frame.

    Args:
        keypoints: (x, y) in source pixels, NaN where absent.
        scores: 0 to 1.
        track: Number of each person over time, -1 unknown.
    """

    keypoints: Float32[np.ndarray, "n 133 2"]
    scores: Float32[np.ndarray, "n 133"]
    track: Int64[np.ndarray, " n"]


def stack_people(frames: Sequence[People]) -> Poses:
    """Make one window of frames; where a frame has fewer people than another, the rest are absent."""
    most = max((len(frame.track) for frame in frames), default=0)
    keypoints = torch.full((len(frames), most, NUM_KEYPOINTS, 2), torch.nan)
    scores = torch.zeros(len(frames), most, NUM_KEYPOINTS)
    track = torch.full((len(frames), most), UNKNOWN, dtype=torch.int64)
    for number, frame in enumerate(frames):
        count = len(frame.track)
        keypoints[number, :count] = torch.from_numpy(frame.keypoints)
        scores[number, :count] = torch.from_numpy(frame.scores)
        track[number, :count] = torch.from_numpy(frame.track)
    return Poses(keypoints=keypoints, scores=scores, track=track)


class Tracker:
    """Number people over time: boxes of neighbouring frames that overlap most belong together, greedily.

    Args:
        min_iou: Boxes that overlap less are different people.
    """

    def __init__(self, min_iou: float = 0.3) -> None:
        self._min_iou = min_iou
        self._seen: dict[int, tuple[int, np.ndarray]] = {}
        self._frame = self._next = 0

    def assign(self, boxes: Float[np.ndarray, "n 4"]) -> Int64[np.ndarray, " n"]:
        """Return the number of each person of the next frame."""
        known = [track for track, (frame, _) in self._seen.items() if self._frame - frame <= _FORGET_AFTER]
        self._seen = {track: self._seen[track] for track in known}
        overlap = _iou(boxes, np.array([self._seen[track][1] for track in known]).reshape(-1, 4))
        tracks = np.full(len(boxes), UNKNOWN, np.int64)
        # the surest pair first; a stable sort, so that ties fall the same way everywhere
        for flat in np.argsort(-overlap, axis=None, kind="stable"):
            person, other = divmod(int(flat), max(1, len(known)))
            if overlap[person, other] < self._min_iou:
                break
            if tracks[person] == UNKNOWN and known[other] not in tracks:
                tracks[person] = known[other]
        for person in np.flatnonzero(tracks == UNKNOWN).tolist():
            tracks[person], self._next = self._next, self._next + 1
        self._seen.update({int(track): (self._frame, box) for track, box in zip(tracks, boxes, strict=True)})
        self._frame += 1
        return tracks


def boxes_of_mask(
    mask: UInt8[np.ndarray, "h w"], unknown: int
) -> tuple[Float32[np.ndarray, "n 4"], Int64[np.ndarray, " n"]]:
    """Return the box and the track of each person in a mask: one a track, one a connected piece of unknown track.

    Args:
        mask: 0 nobody, else a person by track.
        unknown: The value that stands for people of unknown track; their track becomes -1.
    """
    boxes, tracks = [], []
    for value in np.unique(mask[mask > 0]).tolist():
        picture = (mask == value).astype(np.uint8)
        if value == unknown:
            _, _, stats, _ = cv2.connectedComponentsWithStats(picture, connectivity=8)
            pieces = [piece for piece in stats[1:].tolist() if piece[4] >= _MIN_AREA * mask.size]
        else:
            pieces = [cv2.boundingRect(picture)]
        boxes += [[left, top, left + width, top + height] for left, top, width, height, *_ in pieces]
        tracks += [UNKNOWN if value == unknown else value] * len(pieces)
    boxes, tracks = boxes[:MAX_PEOPLE], tracks[:MAX_PEOPLE]
    return np.array(boxes, np.float32).reshape(-1, 4), np.array(tracks, np.int64)


def _iou(first: np.ndarray, second: np.ndarray) -> Float[np.ndarray, "n m"]:
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    shared = np.prod(np.maximum(high - low, 0), axis=-1, dtype=np.float64)
    areas = [
        np.prod(np.maximum(boxes[:, 2:] - boxes[:, :2], 0), axis=-1, dtype=np.float64) for boxes in (first, second)
    ]
    return np.asarray(shared / np.maximum(areas[0][:, None] + areas[1][None] - shared, 1e-9))
