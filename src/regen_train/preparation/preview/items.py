"""What the review page lists: an item per window of a clip, and one per clip that gave none. Pure data, no pictures."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

VerdictName = Literal["accept", "released", "review", "reject", "failed"]
Severity = Literal["note", "review", "reject"]
VERDICTS: tuple[VerdictName, ...] = get_args(VerdictName)
_IDENTIFIER = re.compile(r"[a-z][a-z0-9_]{0,39}")


@dataclass(frozen=True)
class Reason:
    """One thing that was found, or that went wrong.

    Args:
        check: What kind of reason it is; the page filters by it.
        severity: What it does to the verdict.
        frames: The source frames it was found on, counted from 0; empty if it concerns the whole clip.
        measured: What was measured, by name.
        message: What a person should know. May quote what the clip shows, such as text, or name files.
    """

    check: str
    severity: Severity = "reject"
    frames: tuple[int, ...] = ()
    measured: Mapping[str, float] = field(default_factory=dict)
    message: str = ""


@dataclass(frozen=True)
class PageItem:
    """One window of a clip, or a clip that gave none.

    Args:
        key: Its salted key, or, of a clip that gave none, a number.
        verdict: What became of it: the gate's verdict, released by a person, or failed in a stage.
        reasons: Why.
        name: The clip's file name; None on a page without source pixels.
        caption: What the clip is said to show; left out on a page without source pixels.
        span: The first and the last source frame; None where there is no window.
        notes: More to know, such as the size of the window.
        frames: The source frames of the pictures in each strip, left to right.
        ends: For each of them the next source frame that the window takes: those before it are not in the window.
        frame_size: Height and width of one picture in a strip, in pixels.
        strips: Strip name to its picture file, as a path from the page's folder. Empty if nothing could be drawn.
    """

    key: str
    verdict: VerdictName
    reasons: tuple[Reason, ...] = ()
    name: str | None = None
    caption: str = ""
    span: tuple[int, int] | None = None
    notes: tuple[str, ...] = ()
    frames: tuple[int, ...] = ()
    ends: tuple[int, ...] = ()
    frame_size: tuple[int, int] = (0, 0)
    strips: Mapping[str, str] = field(default_factory=dict)

    @property
    def flagged(self) -> frozenset[int]:
        """The source frames that any reason but a note names."""
        return frozenset(frame for reason in self.reasons if reason.severity != "note" for frame in reason.frames)

    @property
    def flags(self) -> dict[int, str]:
        """Place of a picture to the checks that name its frame, or one after it that the window leaves out."""
        flags = {}
        for place, (first, end) in enumerate(zip(self.frames, self.ends, strict=True)):
            named = [
                reason.check
                for reason in self.reasons
                if reason.severity != "note" and any(first <= frame < end for frame in reason.frames)
            ]
            if named:
                flags[place] = ", ".join(dict.fromkeys(named))
        return flags


def reasons_of_report(report: Mapping[str, Any]) -> tuple[Reason, ...]:
    """Return the findings of a guard report in its plain form, those that weigh most first.

    Raises:
        ValueError: It is no guard report.
    """
    weights = {name: place for place, name in enumerate(reversed(get_args(Severity)))}
    try:
        reasons = [
            Reason(
                check=str(finding["check"]),
                severity=finding["severity"],
                frames=tuple(int(frame) for frame in finding.get("frames", ())),
                measured={str(name): float(value) for name, value in finding.get("measured", {}).items()},
                message=str(finding.get("message", "")),
            )
            for finding in report.get("findings", ())
        ]
        return tuple(sorted(reasons, key=lambda reason: weights[reason.severity]))
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"this is no guard report: {error!r}; got {str(report)[:200]}") from error


def without_names(item: PageItem) -> PageItem:
    """Return the item without any free text.

    File names, captions and messages go, for a message may quote a path, a caption or what was read in the picture;
    kinds of reasons, frame numbers and measurements stay.
    """
    reasons = tuple(
        replace(
            reason,
            check=reason.check if _IDENTIFIER.fullmatch(reason.check) else "other",
            measured={name: value for name, value in reason.measured.items() if _IDENTIFIER.fullmatch(name)},
            message="",
        )
        for reason in item.reasons
    )
    return replace(item, name=None, caption="", reasons=reasons)
