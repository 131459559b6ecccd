"""What became of the clips and windows of the last run, from its record and the ledger.

Shown are the windows of the last run that came to its end, and they alone: the record names the clips it saw and, for
each, its rows in the ledger. Rows of older settings, of clips that were not there then, and of a run that was killed
since belong to no page.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from regen_train.preparation.jobs import ClipResult, WindowResult
from regen_train.preparation.ledger import LedgerRow, read_ledger
from regen_train.preparation.preview.items import Reason, VerdictName, reasons_of_report
from regen_train.preparation.probe import Probed
from regen_train.preparation.record import RunClip, RunRecord
from regen_train.preparation.work import WorkFolder

_VERDICTS: Mapping[str, VerdictName] = {"ok": "accept", "review": "review", "rejected": "reject", "failed": "failed"}


@dataclass(frozen=True)
class WindowOutcome:
    """What became of a window.

    Args:
        key: Of its sample.
        fingerprint: Of all that its sample, or what was judged, was made from.
        span: Numbers of its first and last source frame.
        verdict: The gate's, or released by a person.
        reasons: Why.
        notes: More to know.
    """

    key: str
    fingerprint: str
    span: tuple[int, int]
    verdict: VerdictName
    reasons: tuple[Reason, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class ClipOutcome:
    """What became of a clip.

    Args:
        name: The file's name.
        recorded: What the run's record says of it.
        probed: What the run found the file to be; None where it found nothing.
        windows: Its windows, in order; none if it was refused.
        refused: Why it gave nothing.
        notes: More to know: the size of its windows first.
    """

    name: str
    recorded: RunClip
    probed: Probed | None = None
    windows: tuple[WindowOutcome, ...] = ()
    refused: Reason | None = None
    notes: tuple[str, ...] = ()


def outcomes_of_run(work: WorkFolder, record: RunRecord) -> list[ClipOutcome]:
    """Return what became of every clip of a run, by name.

    Args:
        work: The run's work folder; only read.
        record: Of the run.

    Raises:
        ValueError: The ledger is damaged.
    """
    wanted = {key for clip in record.clips.values() for key in clip.rows.values()}
    rows = {row.key: row for row in read_ledger(work.path) if row.key in wanted}
    return [_outcome(name, clip, rows) for name, clip in sorted(record.clips.items())]


def _outcome(name: str, clip: RunClip, rows: Mapping[str, LedgerRow]) -> ClipOutcome:
    found = {stage: rows[key] for stage, key in clip.rows.items() if key in rows}
    if clip.refused:
        failed = [row for row in found.values() if row.status == "failed"]
        return ClipOutcome(name, clip, refused=_refusal(clip.refused, failed[-1] if failed else None))
    if not {"probe", "encode"} <= found.keys():
        lost = Reason("ledger_lost", message="the ledger has lost what became of it; run the same preparation again")
        return ClipOutcome(name, clip, refused=lost)
    result = ClipResult.parse(found["encode"].result)
    windows = tuple(_window_outcome(window) for window in result.windows)
    probed = Probed.parse(found["probe"].result)
    return ClipOutcome(name, clip, probed, windows, notes=(result.bucket, *result.notes))


def _refusal(reason: str, row: LedgerRow | None) -> Reason:
    """Return why a clip gave nothing; the check is the stage that it failed in."""
    if row is None:
        return Reason("refused", message=reason)
    measured = {} if row.fault == "input" else {"attempts": float(row.attempts)}
    message = reason if row.fault in {"", "input"} else f"{row.fault}: {reason}"
    return Reason(f"{row.stage}_failed", measured=measured, message=message)


def _window_outcome(window: WindowResult) -> WindowOutcome:
    report = window.verdict
    released = window.status == "ok" and report.get("verdict") == "review"
    verdict = "released" if released else _VERDICTS[window.status]
    notes = () if report.get("has_people", True) else ("nobody is seen",)
    span = window.first_frame, window.last_frame
    return WindowOutcome(window.key, window.fingerprint, span, verdict, reasons_of_report(report), notes)
