"""What every caption of ours passes: no names, contacts, plates, numbers, nor text that stands in the picture."""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8

from regen_train.guard.detectors import Detector, NameFinder
from regen_train.guard.redaction import redact
from regen_train.guard.text import TextFinding, caption_faults


@dataclass(frozen=True)
class CaptionFilter:
    """The patterns of `regen_train.guard.text`, with the helpers at hand.

    Args:
        names: Finds names of persons; None finds none, and the gate says so.
        text: Reads text in frames; None reads none, and the gate says so.
    """

    names: NameFinder | None = None
    text: Detector | None = None

    def setup(self, device: str) -> None:
        """Load the helpers' weights."""
        for helper in (self.names, self.text):
            if helper is not None:
                helper.setup(device)

    def identity(self) -> dict[str, Any]:
        """Return, as plain JSON, what decides what is found."""
        return {
            "names": None if self.names is None else self.names.identity(),
            "text": None if self.text is None else self.text.identity(),
        }

    def read(self, frames: Sequence[UInt8[np.ndarray, "h w 3"]]) -> list[str]:
        """Return the lines of text in frames, each once; none without a reader."""
        if self.text is None:
            return []
        found = (self.text.detect(torch.from_numpy(np.ascontiguousarray(frame))[None])[0] for frame in frames)
        return list(dict.fromkeys(line for boxes in found for line in boxes.labels))

    def faults(self, caption: str, read: Sequence[str]) -> list[TextFinding]:
        """Return what identifies somebody in a caption.

        Args:
            caption: As `plain` returns it.
            read: Lines of text in the picture, from `read`.
        """
        names = [] if self.names is None else self.names.find(caption)
        return caption_faults(caption, names=names, ocr=read)

    def clean(self, caption: str, read: Sequence[str]) -> str | None:
        """Return the caption without what identifies somebody, or None where that cannot be taken out."""
        caption = plain(caption)
        findings = self.faults(caption, read)
        redacted = redact(caption, findings)
        # a finder of names may see others once the first are gone
        return None if redacted is None or (findings and self.faults(redacted, read)) else redacted


def plain(caption: str) -> str:
    """Return a caption on one line, accents composed and characters that are not seen left out."""
    shown = (" " if character.isspace() else character for character in unicodedata.normalize("NFC", caption))
    return " ".join("".join(c for c in shown if unicodedata.category(c) not in ("Cf", "Cc")).split())


def kinds(findings: Sequence[TextFinding]) -> str:
    """Say what kinds of things were found, without repeating them: errors end up in logs."""
    words = {"readable": "text of the picture", "url": "web address", "plate": "licence plate"}
    found = [words.get(finding.kind, finding.kind) for finding in findings]
    return ", ".join(f"{found.count(kind)} x {kind}" for kind in dict.fromkeys(found))
