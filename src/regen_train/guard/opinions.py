"""Ask the second opinions at hand, and say which are not."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, UInt8
from torch import Tensor

from regen_train.conditions import ComposedClip, pose_support
from regen_train.guard.detectors import Boxes, Detector, Detectors
from regen_train.guard.report import Finding, Severity
from regen_train.guard.seen import judge_condition, judge_faces, judge_people
from regen_train.guard.settings import GuardSettings
from regen_train.guard.text import caption_faults

SHOWS_BACKGROUND = frozenset({"structhuman", "background", "edges"})
"""Conditions in which lettering of the scene can be read."""

_ABSENT = {
    "people": "no detector of people looked at the clip: name one, such as --people TorchvisionPeople",
    "faces": "no detector of faces looked at the clip: name one, such as --faces YuNetFaces",
    "text": "nothing looked for readable text in the background: name a reader, such as --text RapidOcrText",
    "names": "nothing looked for names in the caption: name a finder, such as --names TransformersNames",
}


def absent_severity(settings: GuardSettings) -> Severity:
    """Return what something unchecked weighs."""
    return "note" if settings.when_absent == "accept" else settings.when_absent


_READABLE = {
    "review": "text can be read in the background: blur it with --guard.text blur, or use structall alone",
    "blur": "text can still be read in the background after it was hidden",
    "structall": "text can be read in the background: prepare this clip for a dataset with --conditions [structall]",
}
_FRAMES_READ = 5
"""Of the clip itself; captions are made from eight."""


def detect(detector: Detector, frames: UInt8[Tensor, "t h w 3"]) -> list[Boxes]:
    """Return what a detector finds in each frame.

    Raises:
        ValueError: It answered something that cannot be: nothing seen must never be the reading of a broken answer.
    """
    found = detector.detect(frames)
    broken = [
        place
        for place, boxes in enumerate(found)
        if len(boxes.scores) != len(boxes)
        or not bool(torch.isfinite(boxes.boxes).all() and torch.isfinite(boxes.scores).all())
        or len(boxes.labels) not in (0, len(boxes))
    ]
    if len(found) != len(frames) or broken:
        raise ValueError(
            f"{type(detector).__name__} answered {len(found)} of {len(frames)} frames, with values that are not finite "
            f"or do not belong together in frames {broken[:5]}; run it in a higher precision, or name another detector"
        )
    return found


@dataclass(frozen=True)
class Opinions:
    """The second opinions of a run.

    Args:
        detectors: Those at hand.
        settings: Thresholds and policies.
    """

    detectors: Detectors
    settings: GuardSettings

    def setup(self, device: str) -> None:
        """Load the weights of all that are there."""
        for detector in vars(self.detectors).values():
            if detector is not None:
                detector.setup(device)

    def identity(self) -> dict[str, Any]:
        """Return who takes part, by kind; None for each that is absent."""
        return {kind: None if d is None else d.identity() for kind, d in vars(self.detectors).items()}

    def judge_absent(self, conditions: Sequence[str], *, has_caption: bool) -> list[Finding]:
        """Return a finding for each opinion that would have counted and is missing; its weight is ``when_absent``."""
        counts = {
            "people": True,
            "faces": True,
            "text": has_caption or bool(SHOWS_BACKGROUND & set(conditions)),
            "names": has_caption,
        }
        missing = [kind for kind, detector in vars(self.detectors).items() if detector is None and counts[kind]]
        severity = absent_severity(self.settings)
        return [Finding(f"unchecked_{kind}", severity, _ABSENT[kind]) for kind in missing]

    def judge_source(
        self, frames: UInt8[Tensor, "t h w 3"], covered: Bool[Tensor, "t h w"], numbers: Sequence[int]
    ) -> list[Finding]:
        """Return whom the detectors see in the clip and the dilated mask leaves open."""
        findings = []
        if self.detectors.people is not None:
            findings.append(judge_people(detect(self.detectors.people, frames), covered, numbers, self.settings))
        if self.detectors.faces is not None:
            findings.append(judge_faces(detect(self.detectors.faces, frames), covered, numbers, self.settings))
        return [finding for finding in findings if finding is not None]

    def judge_conditions(self, clip: ComposedClip) -> list[Finding]:
        """Return whom the detectors see again in finished conditions, outside what was filled and drawn."""
        filled = clip.mask | pose_support(clip.pose)
        findings = []
        for name, video in sorted(clip.conditions.items()):
            for kind, detector in (("person", self.detectors.people), ("face", self.detectors.faces)):
                if detector is not None:
                    boxes = detect(detector, video)
                    findings.append(judge_condition(boxes, filled, self.settings, kind=kind, condition=name))
        return [finding for finding in findings if finding is not None]

    def judge_text(self, clip: ComposedClip) -> list[Finding]:
        """Return whether text can be read in a condition that shows the background."""
        findings = []
        for name in sorted(SHOWS_BACKGROUND & set(clip.conditions)):
            if self.detectors.text is None:
                continue
            read = detect(self.detectors.text, clip.conditions[name])
            frames, words = self._legible(read, clip.frames.shape[1])
            if frames:
                message = f"{_READABLE[self.settings.text]} ({name})"
                severity: Severity = "reject" if self.settings.text == "structall" else "review"
                measured = {"readings": float(len(words))}
                findings.append(Finding("readable_text", severity, message, tuple(frames), measured))
        return findings

    def read_words(self, frames: UInt8[Tensor, "t h w 3"]) -> list[str]:
        """Return what can be read in some frames of the clip itself, people's clothes included, for `judge_caption`.

        The words are never stored.
        """
        if self.detectors.text is None:
            return []
        spread = torch.linspace(0, len(frames) - 1, min(len(frames), _FRAMES_READ)).round().long()
        return self._legible(detect(self.detectors.text, frames[spread]), frames.shape[1])[1]

    def judge_caption(self, caption: str, readings: Sequence[str]) -> list[Finding]:
        """Return what in a caption tells who somebody is. The words themselves are not repeated."""
        names = [] if self.detectors.names is None else self.detectors.names.find(caption)
        kinds = sorted({fault.kind for fault in caption_faults(caption, names=names, ocr=readings)})
        if not kinds:
            return []
        message = f"the caption holds what tells who somebody is ({', '.join(kinds)}): write it anew without"
        return [Finding("caption_identifies", "review", message, (), {"kinds": float(len(kinds))})]

    def _legible(self, read: Sequence[Boxes], height: int) -> tuple[list[int], list[str]]:
        frames, words = [], []
        for frame, found in enumerate(read):
            tall = (found.boxes[:, 3] - found.boxes[:, 1]) >= self.settings.text_height * height
            sure = found.scores >= self.settings.text_score
            legible = [
                word for word, ok in zip(found.labels, (tall & sure).tolist(), strict=True)
                if ok and sum(letter.isalnum() for letter in word) > 1
            ]  # fmt: skip
            frames += [frame] if legible else []
            words += legible
        return frames, words
