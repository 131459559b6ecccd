"""Run one stage over clips: only what the ledger does not answer, and every outcome into the ledger."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from regen_train.preparation.engines import Engine, Fault, Finished, Job, Stage
from regen_train.preparation.jobs import ClipResult
from regen_train.preparation.ledger import FaultKind, Ledger, LedgerRow
from regen_train.preparation.probe import Probed
from regen_train.preparation.progress import StageProgress
from regen_train.preparation.report import PreparationReport
from regen_train.shards import fingerprint_of

_FAULTS: Mapping[str, FaultKind] = {"input": "input", "error": "error", "crash": "crash", "timeout": "timeout"}
"""Faults that a ledger keeps; the others end the run."""


@dataclass
class StageRunner:
    """Runs stages, and keeps what became of every clip.

    Args:
        ledger: Where outcomes are kept.
        engine: What does the work.
        max_attempts: How often a clip is tried on which a worker died or failed unforeseen.
        report: What was done, for the person at the screen.
        rows: Clip to the key of its row in the ledger, by stage.
    """

    ledger: Ledger
    engine: Engine
    max_attempts: int = 2
    report: PreparationReport = field(default_factory=PreparationReport)
    rows: dict[str, dict[str, str]] = field(default_factory=dict)

    def run(
        self,
        stage: Stage,
        jobs: Sequence[tuple[str, str, str, Any]],
        is_there: Callable[[LedgerRow, Any], bool] = lambda outcome, job: True,
    ) -> dict[str, LedgerRow]:
        """Do the jobs, each a key, a clip's name and checksum, and the job itself, that the ledger does not answer."""
        for key, clip, *_ in jobs:  # the ledger may know the same file under an older name
            self.rows.setdefault(clip, {})[stage.name] = key
        known = self.ledger.find([key for key, *_ in jobs])
        by_key = {key: job for key, _, _, job in jobs}
        kept = {
            key: outcome
            for key, outcome in known.items()
            if (outcome.status == "ok" and is_there(outcome, by_key[key]))
            or (outcome.status == "failed" and not self._is_worth_another_try(outcome))
        }
        todo = [job for job in jobs if job[0] not in kept]
        if not todo:
            return kept
        with StageProgress(stage.name, len(todo)) as progress:
            tasks = [
                Job(key, clip, sha256, task, attempts=known[key].attempts if _has_failed(known, key) else 0)
                for key, clip, sha256, task in todo
            ]
            for finished in self.engine.run(stage, tasks, max_attempts=self.max_attempts):
                outcome = _outcome(stage.name, finished)
                self.ledger.record([outcome, *_window_outcomes(outcome)])
                self.report.note(outcome)
                progress.update(outcome)
                kept[outcome.key] = outcome
        return kept

    def _is_worth_another_try(self, outcome: LedgerRow) -> bool:
        """A fault of the clip stays one; a worker that died may not die again."""
        return outcome.fault != "input" and outcome.attempts < self.max_attempts


def _has_failed(known: Mapping[str, LedgerRow], key: str) -> bool:
    return key in known and known[key].status == "failed"


def _outcome(stage: str, finished: Finished) -> LedgerRow:
    job, attempt = finished.job, finished.attempt
    row = LedgerRow(
        key=job.key,
        stage=stage,
        clip=job.clip,
        source_sha256=job.source_sha256,
        status="ok",
        attempts=finished.attempts,
        seconds=attempt.seconds,
        device=attempt.device,
        time=time.time(),
    )
    if isinstance(attempt.result, Fault):
        fault = attempt.result
        return replace(row, status="failed", reason=fault.reason, fault=_FAULTS[fault.kind], trace=fault.trace)
    value = attempt.result.value
    text = value.dump() if isinstance(value, Probed | ClipResult) else str(value)
    return replace(row, result=text, source_sha256=attempt.result.source_sha256 or job.source_sha256)


def _window_outcomes(outcome: LedgerRow) -> list[LedgerRow]:
    """Return a row for each window of an encoded clip."""
    if outcome.stage != "encode" or outcome.status != "ok":
        return []
    return [
        LedgerRow(
            key=fingerprint_of({"clip": outcome.key, "window": window.key}),
            stage="window",
            clip=outcome.clip,
            source_sha256=outcome.source_sha256,
            first_frame=window.first_frame,
            last_frame=window.last_frame,
            status=window.status,
            reason=window.reason,
            device=outcome.device,
            verdict=json.dumps(window.verdict, sort_keys=True),
            result=window.key,
            time=outcome.time,
        )
        for window in ClipResult.parse(outcome.result).windows
    ]
