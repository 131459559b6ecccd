"""What the gate says of a clip: a verdict, and every finding behind it with frames and measurements."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Verdict = Literal["accept", "review", "reject"]
Severity = Literal["note", "review", "reject"]

_RANK: dict[str, int] = {"note": 0, "review": 1, "reject": 2}
_VERDICTS: tuple[Verdict, ...] = ("accept", "review", "reject")
_SHOWN_FRAMES = 8


@dataclass(frozen=True)
class Finding:
    """One thing that the gate noticed.

    Args:
        check: Which check it was, such as ``people_outside_mask``; stable, for filters and counts.
        severity: ``note`` changes nothing, ``review`` asks a person, ``reject`` keeps the clip out.
        message: What is wrong and what to do, without file names.
        frames: Frame numbers it was noticed on, ascending.
        measured: The numbers behind it, by name.
    """

    check: str
    severity: Severity
    message: str
    frames: tuple[int, ...] = ()
    measured: Mapping[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        """Return message, frames and numbers in one line."""
        where = f" (frames {format_frames(self.frames)})" if self.frames else ""
        numbers = ", ".join(f"{name} {value:g}" for name, value in self.measured.items())
        return f"{self.message}{where}" + (f" [{numbers}]" if numbers else "")

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain JSON."""
        measured = {name: round(float(value), 4) for name, value in self.measured.items()}
        return {
            "check": self.check,
            "severity": self.severity,
            "message": self.message,
            "frames": list(self.frames),
            "measured": measured,
        }


@dataclass(frozen=True)
class GuardReport:
    """What the gate found in a clip, or in a window of one.

    Args:
        findings: Everything noticed, the gravest first.
        num_frames: How many frames were looked at.
        checked: Second opinions that took part, by kind, with what identifies them; None for each that was absent.
        has_people: Whether anybody was seen at all, by mask, skeleton or detector.
    """

    findings: tuple[Finding, ...]
    num_frames: int
    checked: Mapping[str, Any] = field(default_factory=dict)
    has_people: bool = True

    @property
    def verdict(self) -> Verdict:
        """``reject`` or ``review`` if any finding asks for it, else ``accept``."""
        return _VERDICTS[max((_RANK[finding.severity] for finding in self.findings), default=0)]

    @property
    def reasons(self) -> tuple[str, ...]:
        """The findings that decided the verdict, in words; empty for ``accept``."""
        decided = "note" if self.verdict == "accept" else self.verdict
        return tuple(str(f) for f in self.findings if f.severity == decided and decided != "note")

    def summary(self) -> str:
        """Return the verdict and its reasons in one line."""
        return self.verdict + (f": {'; '.join(self.reasons)}" if self.reasons else "")

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain JSON, as a sample keeps it."""
        return {
            "verdict": self.verdict,
            "has_people": self.has_people,
            "num_frames": self.num_frames,
            "findings": [finding.to_dict() for finding in self.findings],
            "checked": dict(self.checked),
        }


def sort_findings(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Return findings with the gravest first, otherwise in the order given."""
    return tuple(sorted(findings, key=lambda finding: -_RANK[finding.severity]))


def format_frames(frames: Iterable[int], *, at_most: int = _SHOWN_FRAMES) -> str:
    """Return frame numbers as runs, such as ``3-7, 12``; lists of more than ``at_most`` runs are cut."""
    runs: list[list[int]] = []
    for frame in sorted(set(frames)):
        if runs and frame == runs[-1][1] + 1:
            runs[-1][1] = frame
        else:
            runs.append([frame, frame])
    texts = [str(first) if first == last else f"{first}-{last}" for first, last in runs]
    more = f" and {len(texts) - at_most} more runs" if len(texts) > at_most else ""
    return ", ".join(texts[:at_most]) + more
