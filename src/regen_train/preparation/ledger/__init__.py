"""The ledger: what became of every clip and window, stage by stage, and why. It explains; the outputs are the truth."""

from pathlib import Path

from regen_train.preparation.ledger.parquet import ParquetLedger, to_table
from regen_train.preparation.ledger.reading import read_ledger, summarize_ledger
from regen_train.preparation.ledger.rows import FaultKind, Ledger, LedgerKind, LedgerRow, Status
from regen_train.preparation.ledger.sqlite import SqliteLedger

__all__ = [
    "FaultKind",
    "Ledger",
    "LedgerKind",
    "LedgerRow",
    "ParquetLedger",
    "SqliteLedger",
    "Status",
    "open_ledger",
    "read_ledger",
    "summarize_ledger",
    "to_table",
]


def open_ledger(work: Path, kind: LedgerKind, *, writer: str = "main") -> Ledger:
    """Open the ledger of a work folder for writing; one process writes under a name.

    Args:
        work: The work folder.
        kind: ``sqlite`` for one machine; ``parquet`` for many that share a file system, where SQLite's locks fail.
        writer: Who writes, such as one of the runs of a job array.
    """
    return SqliteLedger(work / "ledger.sqlite") if kind == "sqlite" else ParquetLedger(work / "ledger", writer=writer)
