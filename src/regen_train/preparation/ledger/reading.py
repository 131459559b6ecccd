"""Read a work folder's ledger, whoever wrote it."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from regen_train.preparation.ledger.parquet import newest, read_parts
from regen_train.preparation.ledger.rows import LedgerRow
from regen_train.preparation.ledger.sqlite import SqliteLedger


def read_ledger(work: Path) -> list[LedgerRow]:
    """Return the latest row of each key, by clip, frames and stage; `parquet.to_table` makes a table of them.

    Args:
        work: The work folder, such as ``DATASET/.work``.

    Raises:
        ValueError: A ledger is damaged.
    """
    rows = read_parts(work / "ledger")
    path = work / "ledger.sqlite"
    if path.is_file():
        ledger = SqliteLedger(path)
        rows += ledger.rows()
        ledger.close()
    return sorted(newest(rows), key=lambda row: (row.clip, row.stage, row.first_frame or 0, row.key))


def summarize_ledger(rows: Iterable[LedgerRow]) -> dict[str, dict[str, int]]:
    """Return, by stage, how many rows have each status."""
    counts: dict[str, Counter[str]] = {}
    for row in rows:
        counts.setdefault(row.stage, Counter())[row.status] += 1
    return {stage: dict(sorted(found.items())) for stage, found in sorted(counts.items())}
