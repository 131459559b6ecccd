"""What masks and skeletons tell by themselves: measured frame by frame over a clip, judged window by window."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from regen_train.guard.masks import Vanishing, find_vanished, measure_flicker
from regen_train.guard.report import Finding
from regen_train.guard.settings import GuardSettings
from regen_train.guard.skeletons import Skeleton, distance_outside, longest_run, measure_skeletons

CONTEXT_FRAMES = 100
"""Masks that fail within so many frames of a window were made by an extractor that fails on this scene: 3 to 4 s."""


@dataclass(frozen=True)
class FrameSignals:
    """One frame's signals, as the gate looks at them.

    Args:
        frame: Frame number.
        given: The mask as it was extracted [h, w].
        mended: The mask after repair [h, w].
        radius: Pixels by which the mended mask grows before people are filled.
        keypoints: [p, 133, 2] in pixels.
        scores: [p, 133].
    """

    frame: int
    given: NDArray[np.bool_]
    mended: NDArray[np.bool_]
    radius: int | float
    keypoints: NDArray[np.float32]
    scores: NDArray[np.float32]


@dataclass
class SignalEvidence:
    """Measurements of a clip's masks and skeletons; small, whatever the clip's length.

    Args:
        settings: Thresholds.
    """

    settings: GuardSettings
    _skeletons: list[Skeleton] = field(default_factory=list)
    _given_events: list[Vanishing] = field(default_factory=list)
    _mended_events: list[Vanishing] = field(default_factory=list)
    _masked: dict[int, bool] = field(default_factory=dict)
    _areas: dict[int, int] = field(default_factory=dict)
    _added: dict[int, int] = field(default_factory=dict)
    _flicker: dict[int, float] = field(default_factory=dict)
    _before: FrameSignals | None = None
    _earlier: FrameSignals | None = None

    def add(self, now: FrameSignals) -> None:
        """Measure the next frame."""
        outside = distance_outside(now.mended) - now.radius
        self._skeletons += measure_skeletons(now.frame, now.keypoints, now.scores, outside, self.settings)
        self._masked[now.frame] = bool(now.mended.any())
        self._areas[now.frame] = int(now.given.sum())
        self._added[now.frame] = int(now.mended.sum()) - self._areas[now.frame]
        if self._before is not None:
            last = self._before
            self._given_events += find_vanished(last.frame, last.given, now.frame, now.given, self.settings)
            self._mended_events += find_vanished(last.frame, last.mended, now.frame, now.mended, self.settings)
            if self._earlier is not None:
                flicker = measure_flicker(self._earlier.given, last.given, now.given, self.settings)
                self._flicker |= {} if flicker is None else {last.frame: flicker}
        self._earlier = self._before
        self._before = now

    def begin_scene(self) -> None:
        """Say that the next frame is the first of another scene: masks need not go on from the one before."""
        self._before = self._earlier = None

    def has_people(self, frames: Sequence[int]) -> bool:
        """Return whether a mask or a skeleton shows anybody in these frames."""
        wanted = set(frames)
        return any(self._masked.get(frame, False) for frame in wanted) or any(
            skeleton.frame in wanted for skeleton in self._skeletons
        )

    def judge(self, first: int, last: int) -> list[Finding]:
        """Return what these frames, ends included, give reason to say."""
        skeletons = [skeleton for skeleton in self._skeletons if first <= skeleton.frame <= last]
        findings = [
            *self._unmasked(skeletons, last - first + 1),
            self._doubtful(skeletons),
            self._vanishing(first, last),
            self._flickering(first, last),
            self._rescues(first, last),
            self._without_skeleton(skeletons, first, last),
        ]
        return [finding for finding in findings if finding is not None]

    def _unmasked(self, skeletons: list[Skeleton], num_frames: int) -> list[Finding]:
        unmasked = [s for s in skeletons if s.exposed_share >= self.settings.exposed_reject]
        findings = []
        for check, message, chosen in (
            (
                "mask_missing",
                "nothing is masked, but skeletons show people",
                _where(unmasked, self._masked, masked=False),
            ),
            (
                "people_outside_mask",
                "most of a skeleton lies outside the mask",
                _where(unmasked, self._masked, masked=True),
            ),
        ):
            if not chosen:
                continue
            run = longest_run([s for s in chosen if s.plausible])
            sure = run >= min(self.settings.person_frames, num_frames)
            kind = "it moves and is built as a person" if sure else "it may be a phantom of the pose model: look"
            findings.append(
                Finding(
                    check,
                    "reject" if sure else "review",
                    f"{message}; {kind}",
                    _frames(chosen),
                    {"exposed_share": max(s.exposed_share for s in chosen), "frames_in_a_row": run},
                )
            )
        return findings

    def _doubtful(self, skeletons: list[Skeleton]) -> Finding | None:
        low, high = self.settings.exposed_review, self.settings.exposed_reject
        chosen = [
            s
            for s in skeletons
            if s.exposed_share < high and (s.open_parts or (s.exposed_share >= low and s.exposed > 1))
        ]
        if not chosen:
            return None
        parts = sorted({part for s in chosen for part in s.open_parts})
        what = f"{', '.join(parts)} may be open" if parts else "a limb may be open"
        message = f"some points of a skeleton lie outside the mask: {what}, or the pose may be wrong"
        measured = {"exposed_share": max(s.exposed_share for s in chosen)}
        return Finding("points_outside_mask", "review", message, _frames(chosen), measured)

    def _vanishing(self, first: int, last: int) -> Finding | None:
        near = [e for e in self._given_events if first - CONTEXT_FRAMES <= e.frame <= last + CONTEXT_FRAMES]
        here = [e for e in self._given_events if first <= e.frame <= last]
        left = [e for e in self._mended_events if first <= e.frame <= last]
        measured = {"events": float(len(near)), "least_kept": min((e.kept for e in near), default=1.0)}
        if len(near) >= self.settings.unstable_events:
            message = "pieces of the mask come and go: it cannot be trusted in this scene; use another mask extractor"
            return Finding("mask_unstable", "reject", message, _event_frames(here or near), measured)
        if left:
            message = (
                "a piece of the mask appears or vanishes away from the border: somebody may be open before or after"
            )
            return Finding("mask_vanishes", "review", message, _event_frames(left), measured)
        if here:
            return Finding(
                "mask_vanishes", "note", "a dropped piece of the mask was mended", _event_frames(here), measured
            )
        return None

    def _flickering(self, first: int, last: int) -> Finding | None:
        near = {f: share for f, share in self._flicker.items() if first - CONTEXT_FRAMES <= f <= last + CONTEXT_FRAMES}
        mean = sum(near.values()) / max(len(near), 1)
        if mean < self.settings.flicker:
            return None
        message = "parts of the mask are gone for single frames: parts of people may be open"
        frames = tuple(f for f, share in near.items() if first <= f <= last and share >= self.settings.flicker)
        return Finding("mask_flickers", "review", message, frames, {"mean_flicker": mean})

    def _rescues(self, first: int, last: int) -> Finding | None:
        frames = tuple(frame for frame in self._areas if first <= frame <= last and self._is_rescued(frame))
        here = [frame for frame in self._areas if first <= frame <= last]
        added = sum(self._added[frame] for frame in here) / max(sum(self._areas[frame] for frame in here), 1)
        if not added:
            return None
        measured = {"added_share": added, "failed_frames": float(len(frames))}
        if _longest(frames) > self.settings.repair_frames:
            message = "so many masks in a row failed that joining their neighbours' cannot have mended them all"
            return Finding("mask_gap", "review", message, frames, measured)
        joined = "joined with their neighbours', " if self.settings.repair_frames else ""
        message = f"masks were mended: {joined}holes filled"
        return Finding("mask_mended", "note", message, frames, measured)

    def _is_rescued(self, frame: int) -> bool:
        # Farther than repair reaches, so that every frame of a gap that is too long is seen to be in it.
        reach = range(1, 2 * self.settings.repair_frames + 2)
        before = max((self._areas.get(frame - step, 0) for step in reach), default=0)
        after = max((self._areas.get(frame + step, 0) for step in reach), default=0)
        return self._areas[frame] < 0.5 * min(before, after)

    def _without_skeleton(self, skeletons: list[Skeleton], first: int, last: int) -> Finding | None:
        drawn = {skeleton.frame for skeleton in skeletons}
        frames = [f for f, masked in self._masked.items() if masked and first <= f <= last and f not in drawn]
        if not frames:
            return None
        return Finding("no_skeleton", "note", "somebody is masked and no skeleton is drawn", tuple(frames))


def _where(skeletons: list[Skeleton], masks: dict[int, bool], *, masked: bool) -> list[Skeleton]:
    return [skeleton for skeleton in skeletons if masks[skeleton.frame] is masked]


def _frames(skeletons: list[Skeleton]) -> tuple[int, ...]:
    return tuple(sorted({skeleton.frame for skeleton in skeletons}))


def _event_frames(events: list[Vanishing]) -> tuple[int, ...]:
    return tuple(sorted({event.frame for event in events}))


def _longest(frames: tuple[int, ...]) -> int:
    """Return the length of the longest run of consecutive numbers."""
    best = run = 0
    for place, frame in enumerate(frames):
        run = run + 1 if place and frame == frames[place - 1] + 1 else 1
        best = max(best, run)
    return best
