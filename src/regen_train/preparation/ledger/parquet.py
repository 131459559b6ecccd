"""The ledger of many machines: parquet files in one folder, each writer's own, joined when read."""

import io
import re
import time
from collections.abc import Iterable, Sequence, Set
from pathlib import Path
from typing import Any

from regen_train.files import write_atomically
from regen_train.preparation.ledger.rows import COLUMNS, FLOATS, INTEGERS, LedgerRow, row_of
from regen_train.shards.space import needs_space

_ROWS_A_PART = 64
_SECONDS_A_PART = 5.0
"""What a killed writer may lose of its explanations, never of its outputs."""

_MAX_PARTS = 50
_READS = 5
_NAME = re.compile(r"part-([A-Za-z0-9]+(?:-of-[0-9]+)?)-([0-9]{6})\.parquet")


class ParquetLedger:
    """Rows in ``part-WRITER-NUMBER.parquet``; parts are written often, and joined when they become many.

    Args:
        folder: Where the parts of all writers lie.
        writer: Whose parts this ledger writes; nobody else may write under that name.
    """

    def __init__(self, folder: Path, *, writer: str = "main") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._writer = folder, writer
        self._waiting: list[LedgerRow] = []
        self._written = time.monotonic()
        self._next = max((number for number, _ in self._own_parts()), default=-1) + 1

    def record(self, rows: Sequence[LedgerRow]) -> None:
        """Keep rows; see `Ledger`."""
        self._waiting += rows
        if len(self._waiting) >= _ROWS_A_PART or time.monotonic() - self._written > _SECONDS_A_PART:
            self._flush()

    def find(self, keys: Sequence[str]) -> dict[str, LedgerRow]:
        """Return what is known of these, whoever wrote it; see `Ledger`."""
        wanted = set(keys)
        waiting = [row for row in self._waiting if row.key in wanted]
        return {row.key: row for row in newest([*read_parts(self._folder, wanted), *waiting])}

    def close(self) -> None:
        """Bring everything to the disk, in one part; see `Ledger`."""
        self._flush()
        if len(self._own_parts()) > 1:
            self._compact()

    def _flush(self) -> None:
        if self._waiting:
            self._write(self._waiting)
            self._waiting = []
            if len(self._own_parts()) > _MAX_PARTS:
                self._compact()
        self._written = time.monotonic()

    def _compact(self) -> None:
        """Join the writer's parts; a kill on the way leaves rows twice, which reading makes one."""
        parts = self._own_parts()
        self._write(newest(row for _, path in parts for row in _read_part(path)))
        for _, path in parts:
            path.unlink()

    def _write(self, rows: Sequence[LedgerRow]) -> None:
        path = self._folder / f"part-{self._writer}-{self._next:06d}.parquet"
        with needs_space(path):
            write_atomically(path, _encode(rows))
        self._next += 1

    def _own_parts(self) -> list[tuple[int, Path]]:
        found = [(_NAME.fullmatch(path.name), path) for path in self._folder.glob("part-*.parquet")]
        return sorted((int(match[2]), path) for match, path in found if match and match[1] == self._writer)


def read_parts(folder: Path, keys: Set[str] | None = None) -> list[LedgerRow]:
    """Return the rows of all parts, of every writer, in the order in which each wrote them.

    Args:
        folder: Where the parts lie.
        keys: Rows wanted; None wants all.

    Raises:
        ValueError: A part is damaged.
    """
    for _ in range(_READS):
        rows: list[LedgerRow] = []
        try:
            for path in sorted(folder.glob("part-*.parquet")):
                rows += _read_part(path, keys)
        except FileNotFoundError:  # its writer has just joined it into one that the list does not have yet
            continue
        return rows
    raise ValueError(f"{folder} changes faster than it can be read; try again")


def newest(rows: Iterable[LedgerRow]) -> list[LedgerRow]:
    """Return the latest row of each key."""
    latest: dict[str, LedgerRow] = {}
    for row in rows:
        known = latest.get(row.key)
        if known is None or row.time >= known.time:
            latest[row.key] = row
    return list(latest.values())


def to_table(rows: Sequence[LedgerRow]) -> Any:
    """Return rows as a `pyarrow.Table`."""
    import pyarrow as pa

    kinds = {name: pa.int64() if name in INTEGERS else pa.float64() if name in FLOATS else pa.string()
             for name in COLUMNS}  # fmt: skip
    return pa.table({name: pa.array([getattr(row, name) for row in rows], kind) for name, kind in kinds.items()})


def _encode(rows: Sequence[LedgerRow]) -> bytes:
    import pyarrow.parquet as pq

    sink = io.BytesIO()
    pq.write_table(to_table(rows), sink, compression="zstd")
    return sink.getvalue()


def _read_part(path: Path, keys: Set[str] | None = None) -> list[LedgerRow]:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    data = path.read_bytes()
    try:
        table = pq.read_table(io.BytesIO(data))
        if keys is not None:  # before rows become objects, of which a large run has millions
            table = table.filter(pc.is_in(table["key"], pa.array(sorted(keys), pa.string())))
        return [row_of(values) for values in table.to_pylist()]
    except (pa.ArrowException, OSError, KeyError) as error:
        raise ValueError(
            f"{path} is no part of a ledger: {error}; move it away, it only tells what was done"
        ) from error
