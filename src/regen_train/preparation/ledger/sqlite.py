"""The ledger of one machine: a SQLite file, which a kill at any moment leaves whole."""

import dataclasses
import sqlite3
from collections.abc import Sequence
from pathlib import Path

from regen_train.preparation.ledger.rows import COLUMNS, FLOATS, INTEGERS, LedgerRow, row_of
from regen_train.shards.space import REMEDY

_KINDS = {name: "INTEGER" if name in INTEGERS else "REAL" if name in FLOATS else "TEXT" for name in COLUMNS}

_MAX_ASKED = 500
"""Keys in one question; SQLite takes a limited number of values."""

_FULL = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR})
"""How SQLite tells of a disk or a quota that is too small, and of disks that fail."""


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
            self._select("0")  # fails for a file of another version, which has other columns
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
            remedy = REMEDY if error.sqlite_errorcode & 0xFF in _FULL else "run the same command again"
            raise OSError(f"{self._path} cannot be written: {error}; {remedy}") from error

    def find(self, keys: Sequence[str]) -> dict[str, LedgerRow]:
        """Return what is known of these; see `Ledger`."""
        found: list[LedgerRow] = []
        for start in range(0, len(keys), _MAX_ASKED):
            some = keys[start : start + _MAX_ASKED]
            found += self._select(f"key IN ({', '.join('?' * len(some))})", *some)
        return {row.key: row for row in found}

    def rows(self) -> list[LedgerRow]:
        """Return everything."""
        return self._select("1")

    def close(self) -> None:
        """Bring everything to the disk; see `Ledger`."""
        self._database.close()

    def _select(self, where: str, *values: str) -> list[LedgerRow]:
        found = self._database.execute(f"SELECT {', '.join(COLUMNS)} FROM outcomes WHERE {where}", values)  # noqa: S608
        return [row_of(dict(zip(COLUMNS, values, strict=True))) for values in found]
