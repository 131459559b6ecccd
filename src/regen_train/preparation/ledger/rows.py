"""What a ledger keeps, and what every ledger can do."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

Status = Literal["ok", "rejected", "review", "failed"]
FaultKind = Literal["", "input", "error", "crash", "timeout"]
LedgerKind = Literal["sqlite", "parquet"]


@dataclass(frozen=True)
class LedgerRow:
    """One outcome.

    Args:
        key: A hash over all that decides the outcome: source, frames, stage, its version, settings, weights.
        stage: Which stage.
        clip: The video file's name.
        source_sha256: The video file's checksum; empty where it could not be had.
        first_frame: First source frame of a window; None where the outcome is of the whole clip.
        last_frame: Last source frame of a window.
        status: ``ok``, ``rejected`` or ``review`` by the gate, or ``failed``.
        reason: Why, in words.
        fault: Of what kind a failure was: a fault of the ``input``, an ``error`` of the code or the device, a ``crash``
            of the worker, or a ``timeout``.
        trace: The end of the traceback, where there was one.
        attempts: How often it was tried, over all runs.
        seconds: How long the last attempt took.
        device: Where it ran.
        verdict: The gate's whole report as JSON; empty where none was made.
        result: What later stages need of it, as JSON.
        time: When it was written, seconds since 1970.
    """

    key: str
    stage: str
    clip: str
    source_sha256: str
    status: Status
    reason: str = ""
    first_frame: int | None = None
    last_frame: int | None = None
    fault: FaultKind = ""
    trace: str = ""
    attempts: int = 1
    seconds: float = 0.0
    device: str = ""
    verdict: str = ""
    result: str = ""
    time: float = 0.0


COLUMNS: tuple[str, ...] = tuple(field.name for field in dataclasses.fields(LedgerRow))
INTEGERS = frozenset({"first_frame", "last_frame", "attempts"})
FLOATS = frozenset({"seconds", "time"})


@runtime_checkable
class Ledger(Protocol):
    """Keeps the latest row of each key."""

    def record(self, rows: Sequence[LedgerRow]) -> None:
        """Keep rows; a key's older row gives way.

        Raises:
            OSError: They cannot be written, such as on a full disk.
        """
        ...

    def find(self, keys: Sequence[str]) -> dict[str, LedgerRow]:
        """Return, by key, what is known of these."""
        ...

    def close(self) -> None:
        """Bring everything to the disk."""
        ...


def row_of(values: dict[str, Any]) -> LedgerRow:
    """Return the row that a database or table gave."""
    return LedgerRow(**{name: values[name] for name in COLUMNS})
