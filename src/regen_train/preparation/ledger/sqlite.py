"""The ledger of one machine: a SQLite file, which a kill at any moment leaves whole."""

import dataclasses
import sqlite3
from collections.abc import Sequence
from pathlib import Path

from regen_train.preparation.ledger.rows import COLUMNS, FLOATS, INTEGERS, LedgerRow, row_of
from regen_train.shards.space import REMEDY

_KINDS = {name: "INTEGER" if name in INTEGERS else "REAL" if name in FLOATS else "TEXT" for name in COLUMNS}


class SqliteLedger:
    """Rows in a SQLite file; every `record` is a transaction.

    Written ahead and not synced: a killed process loses nothing, a power cut may lose the last rows, whose outputs are
    then found all the same.

    Args:
        path: The file; created if missing.

    Raises:
        ValueError: There is something else at ``path``.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._database = sqlite3.connect(path)
        columns = ", ".join(f"{name} {kind}" for name, kind in _KINDS.items())
        try:
            self._database.execute("PRAGMA journal_mode=WAL")
            self._database.execute("PRAGMA synchronous=NORMAL")
            self._database.execute(f"CREATE TABLE IF NOT EXISTS outcomes ({columns}, PRIMARY KEY (key))")
            self._database.commit()
        except sqlite3.DatabaseError as error:
            self._database.close()
            raise ValueError(f"{path} is no ledger: {error}; move it away, it only tells what was done") from error

    def record(self, rows: Sequence[LedgerRow]) -> None:
        """Keep rows; see `Ledger`."""
        places = ", ".join("?" * len(COLUMNS))
        try:
            with self._database:
                self._database.executemany(
                    f"INSERT OR REPLACE INTO outcomes ({', '.join(COLUMNS)}) VALUES ({places})",  # noqa: S608
                    [dataclasses.astuple(row) for row in rows],
                )
        except sqlite3.OperationalError as error:
            raise OSError(f"{self._path} cannot be written: {error}; {REMEDY}") from error

    def failures(self, stage: str) -> dict[str, LedgerRow]:
        """Return what failed in a stage; see `Ledger`."""
        return {row.key: row for row in self._select("stage = ? AND status = 'failed'", stage)}

    def rows(self) -> list[LedgerRow]:
        """Return everything."""
        return self._select("1")

    def close(self) -> None:
        """Bring everything to the disk; see `Ledger`."""
        self._database.close()

    def _select(self, where: str, *values: str) -> list[LedgerRow]:
        found = self._database.execute(f"SELECT {', '.join(COLUMNS)} FROM outcomes WHERE {where}", values)  # noqa: S608
        return [row_of(dict(zip(COLUMNS, values, strict=True))) for values in found]
