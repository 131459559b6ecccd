"""Ask the second opinions at hand, and say which are not."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jaxtyping import Bool, UInt8
from torch import Tensor

from regen_train.conditions import ComposedClip, pose_support
from regen_train.guard.detectors import Boxes, Detectors
from regen_train.guard.report import Finding, Severity
from regen_train.guard.seen import judge_condition, judge_faces, judge_people
from regen_train.guard.settings import GuardSettings
from regen_train.guard.text import caption_faults

SHOWS_BACKGROUND = frozenset({"structhuman", "edges"})
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
            "text": bool(SHOWS_BACKGROUND & set(conditions)),
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
            findings.append(judge_people(self.detectors.people.detect(frames), covered, numbers, self.settings))
        if self.detectors.faces is not None:
            findings.append(judge_faces(self.detectors.faces.detect(frames), covered, numbers, self.settings))
        return [finding for finding in findings if finding is not None]

    def judge_conditions(self, clip: ComposedClip) -> list[Finding]:
        """Return whom the detectors see again in finished conditions, outside what was filled and drawn."""
        filled = clip.mask | pose_support(clip.pose)
        findings = []
        for name, video in sorted(clip.conditions.items()):
            for kind, detector in (("person", self.detectors.people), ("face", self.detectors.faces)):
                if detector is not None:
                    boxes = detector.detect(video)
                    findings.append(judge_condition(boxes, filled, self.settings, kind=kind, condition=name))
        return [finding for finding in findings if finding is not None]

    def read_text(self, clip: ComposedClip) -> tuple[Finding | None, list[str]]:
        """Return whether text can be read in the background, and what it says.

        The words are for the caption check alone; they are never stored.
        """
        shown = sorted(SHOWS_BACKGROUND & set(clip.conditions))
        if self.detectors.text is None or not shown:
            return None, []
        read = self.detectors.text.detect(clip.conditions[shown[0]])
        frames, words = self._legible(read, clip.frames.shape[1])
        if not frames:
            return None, []
        message = {
            "review": "text can be read in the background: blur it with --guard.text blur, or use structall alone",
            "blur": "text can still be read in the background after blurring",
            "structall": "text can be read in the background: this window is for datasets with --conditions structall",
        }[self.settings.text]
        severity: Severity = "reject" if self.settings.text == "structall" else "review"
        return Finding("readable_text", severity, message, tuple(frames), {"readings": float(len(words))}), words

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
