"""Mend masks before anything is made of them: join neighbours in time, fill holes. Repairs only ever add to a mask."""

from bisect import bisect_right
from collections import deque
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import groupby

import cv2
import numpy as np
import torch
from jaxtyping import Bool, UInt8
from torch import Tensor

from regen_train.schema import UNKNOWN_TRACK

_LOST_SHARE = 0.5


@dataclass(frozen=True)
class Repair:
    """What mending did to a clip's masks.

    Args:
        added: Pixels added, as a share of the pixels that were set.
        filled_frames: Frames in which holes were filled.
        rescued_frames: Frames whose mask had lost half of what their neighbours show.
    """

    added: float = 0.0
    filled_frames: tuple[int, ...] = ()
    rescued_frames: tuple[int, ...] = ()


@dataclass(frozen=True)
class RepairedFrame:
    """One mended mask and what was done to it.

    Args:
        index: Frame number.
        given: The mask as it came.
        mask: Track ids as in `regen_train.signals`; what was added is 255, person of unknown track.
        filled: Whether a hole was filled.
    """

    index: int
    given: UInt8[Tensor, "h w"]
    mask: UInt8[Tensor, "h w"]
    filled: bool


class RepairLog:
    """Count repairs as frames pass."""

    def __init__(self) -> None:
        self._before = self._after = 0
        self._filled: list[int] = []
        self._rescued: list[int] = []

    def note(self, frame: RepairedFrame) -> None:
        """Count one frame."""
        before, after = int((frame.given > 0).sum()), int((frame.mask > 0).sum())
        self._before += before
        self._after += after
        if frame.filled:
            self._filled.append(frame.index)
        if before < _LOST_SHARE * after:
            self._rescued.append(frame.index)

    def result(self) -> Repair:
        """Return the counts."""
        added = (self._after - self._before) / max(self._before, 1)
        return Repair(added, tuple(self._filled), tuple(self._rescued))


def repair_mask(
    mask: UInt8[Tensor, "t h w"] | Bool[Tensor, "t h w"], *, frames: int = 2, hole_share: float = 0.002
) -> tuple[UInt8[Tensor, "t h w"], Repair]:
    """Mend the masks of a clip.

    Args:
        mask: Person masks, by track id or plain.
        frames: Join each mask with those of so many neighbours on both sides.
        hole_share: Fill enclosed holes up to this share of the picture.

    Returns:
        The mended masks, of which the given ones are a part, and what was done.
    """
    log, mended = RepairLog(), []
    for frame in stream_repaired(_as_tracks(mask), frames=frames, hole_share=hole_share):
        log.note(frame)
        mended.append(frame.mask)
    return torch.stack(mended) if mended else _as_tracks(mask), log.result()


def stream_repaired(
    masks: Iterable[UInt8[Tensor, "h w"]], *, frames: int, hole_share: float, cuts: Collection[int] = ()
) -> Iterator[RepairedFrame]:
    """Mend masks as they come, holding ``2 * frames + 1`` of them.

    Args:
        masks: Of consecutive frames, from 0.
        frames: How many neighbours on both sides are joined.
        hole_share: Holes are filled up to this share of the picture.
        cuts: Frames at which a new scene begins; masks of one scene say nothing of another.
    """
    edges, start = sorted(cuts), 0
    for _, scene in groupby(enumerate(masks), key=lambda item: bisect_right(edges, item[0])):
        frame = None
        for frame in _stream_scene((mask for _, mask in scene), frames, hole_share):
            yield replace(frame, index=start + frame.index)
        start += 0 if frame is None else frame.index + 1


def _stream_scene(masks: Iterable[Tensor], frames: int, hole_share: float) -> Iterator[RepairedFrame]:
    window: deque[Tensor] = deque(maxlen=2 * frames + 1)
    count, done = 0, 0
    for mask in masks:
        window.append(mask)
        count += 1
        if count > frames:
            yield _mend(list(window), done, count, hole_share)
            done += 1
    while done < count:
        if done > frames:
            window.popleft()
        yield _mend(list(window), done, count, hole_share)
        done += 1


def fill_holes(mask: Bool[Tensor, "h w"], max_pixels: int) -> Bool[Tensor, "h w"]:
    """Fill background regions that the mask encloses, up to a size; regions at the border are not enclosed."""
    labels, stats = cv2.connectedComponentsWithStats((~mask).numpy().astype(np.uint8), connectivity=4)[1:3]
    height, width = mask.shape
    left, top = stats[:, cv2.CC_STAT_LEFT], stats[:, cv2.CC_STAT_TOP]
    right, bottom = left + stats[:, cv2.CC_STAT_WIDTH], top + stats[:, cv2.CC_STAT_HEIGHT]
    enclosed = (left > 0) & (top > 0) & (right < width) & (bottom < height)
    holes = enclosed & (stats[:, cv2.CC_STAT_AREA] <= max_pixels)
    holes[0] = False  # label 0 is the mask itself
    return mask | torch.from_numpy(holes[labels])


def _as_tracks(mask: Tensor) -> Tensor:
    return mask if mask.dtype == torch.uint8 else mask.to(torch.uint8) * UNKNOWN_TRACK


def _mend(window: list[Tensor], index: int, count: int, hole_share: float) -> RepairedFrame:
    # The window holds frames first..last of the clip; the one to mend stands at its place among them.
    first = count - len(window)
    own = window[index - first]
    people = own > 0
    joined = people.clone()
    for other in window:
        joined |= other > 0
    filled = fill_holes(joined, int(hole_share * joined.numel())) if hole_share > 0 and bool(joined.any()) else joined
    mask = own.where(people, filled.to(torch.uint8) * UNKNOWN_TRACK)
    holes = bool((filled != joined).any())
    return RepairedFrame(index, own, mask, holes)
