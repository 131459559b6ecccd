"""What a preparation did, for the person at the screen."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from regen_train.preparation.jobs import ClipResult, WindowResult
from regen_train.preparation.ledger import LedgerRow
from regen_train.preparation.survey import Verdict

_MAX_ROWS = 100


@dataclass
class PreparationReport:
    """One row a clip, counts of windows, and the time by step."""

    verdicts: list[Verdict] = field(default_factory=list)
    windows: Counter[str] = field(default_factory=Counter)
    made: int = 0
    kept: int = 0
    fresh: set[str] = field(default_factory=set)
    seconds: dict[str, float] = field(default_factory=dict)
    clips_by_stage: Counter[str] = field(default_factory=Counter)

    @property
    def num_samples(self) -> int:
        """Samples that the dataset gets."""
        return self.made + self.kept

    def refuse(self, clip: str, reason: str) -> None:
        """Note a clip that gives nothing."""
        self.verdicts.append(Verdict(clip, used=False, reason=reason))

    def note(self, outcome: LedgerRow) -> None:
        """Note what a stage took."""
        self.fresh.add(outcome.key)
        self.clips_by_stage[outcome.stage] += 1
        if outcome.stage == "encode" and outcome.status == "ok":
            spent = ClipResult.parse(outcome.result).seconds
        else:
            spent = {outcome.stage: outcome.seconds}
        for step, seconds in spent.items():
            self.seconds[step] = self.seconds.get(step, 0.0) + seconds

    def add_clip(self, clip: str, result: ClipResult, *, fresh: bool) -> None:
        """Note a clip whose windows were judged."""
        passed = [window for window in result.windows if window.status == "ok"]
        made = sum(window.made for window in passed) if fresh else 0
        self.made += made
        self.kept += len(passed) - made
        self.windows.update(window.status for window in result.windows)
        done = f"{len(passed)} of {result.bucket}, {made} encoded now"
        rest = _describe([window for window in result.windows if window.status != "ok"])
        reason = "; ".join(([done] if passed else []) + [*result.notes, *rest])
        self.verdicts.append(Verdict(clip, used=bool(passed), reason=reason, state=_state(result.windows)))

    def table(self) -> str:
        """Return a row for each clip, or, of very many, those that need a look."""
        rows = sorted(self.verdicts, key=lambda v: v.clip)
        shown = rows if len(rows) <= _MAX_ROWS else [row for row in rows if row.state != "used"][:_MAX_ROWS]
        left = len(rows) - len(shown)
        text = format_verdicts(shown)
        return text + (f"\n... and {left} more clips; the ledger has them all" if left else "")

    def totals(self) -> str:
        """Return samples, windows by verdict, and the time by step and clip."""
        names = {"ok": "passed", "review": "doubtful", "rejected": "rejected"}
        counts = ", ".join(f"{self.windows[s]} {name}" for s, name in names.items() if self.windows[s])
        refused = sum(row.state == "REFUSED" for row in self.verdicts)
        lines = [
            f"windows: {counts or 'none'}; clips refused: {refused}",
            f"{count_of(self.made, 'sample')} encoded, {self.kept} kept",
        ]
        clips = max(self.clips_by_stage.values(), default=0)
        if clips:
            spent = ", ".join(f"{step} {seconds:.1f} s" for step, seconds in self.seconds.items())
            each = sum(self.seconds.values()) / clips
            lines.append(f"{spent}; {each:.2f} s a clip")
        return "\n".join(lines)


def format_verdicts(verdicts: list[Verdict]) -> str:
    """Return the table of clips: name, verdict, reason."""
    rows = [(v.clip, v.state, v.reason) for v in sorted(verdicts, key=lambda v: v.clip)]
    wide = [max(len(row[column]) for row in [("clip", "verdict", ""), *rows]) for column in (0, 1)]
    lines = [f"{clip:{wide[0]}}  {verdict:{wide[1]}}  {reason}" for clip, verdict, reason in rows]
    return "\n".join([f"{'clip':{wide[0]}}  {'verdict':{wide[1]}}  reason", *lines])


def reason_of(outcome: LedgerRow) -> str:
    """Return why a clip failed; if that may not be its own fault, also how to have it tried again."""
    if outcome.fault in {"", "input"}:
        return outcome.reason
    tried = count_of(outcome.attempts, "time")
    return f"{outcome.reason} (tried {tried}; --max_attempts {outcome.attempts + 1} tries again)"


def count_of(number: int, noun: str) -> str:
    """Return ``1 sample`` or ``2 samples``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _state(windows: tuple[WindowResult, ...]) -> str:
    states = {window.status for window in windows}
    if states == {"ok"}:
        return "used"
    if "ok" in states:
        return "part"
    return "review" if "review" in states else "rejected"


def _describe(windows: Sequence[WindowResult]) -> list[str]:
    """Return what kept windows out, in words; windows that were kept out alike are told together."""
    alike: dict[str, list[str]] = {}
    for window in windows:
        alike.setdefault(f"{window.status}: {window.reason}", []).append(f"{window.first_frame}-{window.last_frame}")
    return [f"frames {', '.join(frames)} {reason}" for reason, frames in alike.items()]
