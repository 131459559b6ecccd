"""Paint what an extractor finds, object by object, into labelled masks, and tell who is who."""

from collections.abc import Hashable
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, UInt8
from torch import Tensor

from regen_train.signals.mask.files import UNKNOWN_TRACK

MIN_SHARED = 0.5
"""Share of the smaller of two masks that must lie in the other for both to be one person. Whoever stands behind
somebody shows beside them, not in them, so that masks of two people share little."""


@dataclass
class Canvas:
    """The masks of a window: a union that only grows, with a track id wherever one is sure.

    One person is often found more than once: under two prompts, forwards and backwards, in the frames that two windows
    share. An object is therefore taken for whom it lies upon when it is first painted, and else becomes a new track.

    Args:
        labels: 0 nobody, 1 to 254 track, 255 person of unknown track. Painted in place.
        next_track: The first track id not given yet; from 255 on, objects are of unknown track.
    """

    labels: UInt8[Tensor, "t h w"]
    next_track: int = 1
    _tracks: dict[Hashable, int] = field(default_factory=dict)

    def paint(self, frame: int, mask: Bool[Tensor, "h w"], name: Hashable | None = None) -> None:
        """Add somebody to a frame; pixels that two tracks claim become 255.

        Args:
            frame: Number in the window.
            mask: Where they are, of the same device as the labels; may be empty.
            name: Tells objects of one extractor apart, from frame to frame; None for one that is not tracked, who gets
                the track they lie upon, or 255.
        """
        if not mask.any():
            return
        labels = self.labels[frame]
        track = self._tracks.get(name) if name is not None else None
        if track is None:
            track = self._track_below(labels, mask)
        if track is None:
            track = UNKNOWN_TRACK if name is None else self._new_track()
        if name is None:
            labels[mask & (labels == 0)] = track
            return
        self._tracks[name] = track
        contested = mask & (labels != 0) & (labels != track)
        labels[mask & (labels == 0)] = track
        labels[contested] = UNKNOWN_TRACK

    def tracks_on(self, frame: int) -> list[int]:
        """Return the tracks to be seen on a frame, without 255."""
        return [
            track
            for track in torch.bincount(self.labels[frame].flatten().long()).nonzero().flatten().tolist()
            if 0 < track < UNKNOWN_TRACK
        ]

    def follow(self, track: int, name: Hashable) -> None:
        """Say that an object is somebody who has a track already."""
        self._tracks[name] = track

    def _new_track(self) -> int:
        track = min(self.next_track, UNKNOWN_TRACK)
        self.next_track = track + 1
        return track

    def _track_below(self, labels: UInt8[Tensor, "h w"], mask: Bool[Tensor, "h w"]) -> int | None:
        below = torch.bincount(labels[mask].long(), minlength=256)[1:UNKNOWN_TRACK]
        track = int(below.argmax()) + 1
        smaller = min(int(mask.sum()), int((labels == track).sum()))
        return track if int(below.max()) > 0 and int(below.max()) >= MIN_SHARED * smaller else None
