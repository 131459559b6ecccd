"""The ledger: latest rows win, kills lose nothing that matters, damage and full disks are told in words."""

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from test_full_disk import small_disk

from regen_train.preparation.ledger import (
    Ledger,
    LedgerRow,
    ParquetLedger,
    SqliteLedger,
    open_ledger,
    read_ledger,
    summarize_ledger,
    to_table,
)
from regen_train.preparation.ledger.parquet import newest, read_parts

ROW = LedgerRow(key="a", stage="mask", clip="walk.mp4", source_sha256="0" * 64, status="ok", seconds=0.5, time=1.0)
FAILED = replace(ROW, key="b", clip="torn.mp4", status="failed", reason="damaged", fault="input", trace="...", time=2.0)
WINDOW = replace(
    ROW, key="c", stage="window", first_frame=0, last_frame=8, status="review", verdict='{"a": 1}', result="k"
)


@pytest.fixture(params=["sqlite", "parquet"])
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Ledger:
    return open_ledger(tmp_path, request.param)


def test_rows_come_back_as_they_were(ledger: Ledger, tmp_path: Path) -> None:
    ledger.record([ROW, FAILED])
    ledger.record([WINDOW])
    assert ledger.find(["b", "c", "unknown"]) == {"b": FAILED, "c": WINDOW}
    assert ledger.find([]) == {}
    ledger.close()
    assert read_ledger(tmp_path) == [FAILED, ROW, WINDOW]
    assert summarize_ledger(read_ledger(tmp_path)) == {"mask": {"failed": 1, "ok": 1}, "window": {"review": 1}}


def test_the_latest_row_of_a_key_wins(ledger: Ledger, tmp_path: Path) -> None:
    ledger.record([FAILED])
    ledger.record([replace(FAILED, status="ok", attempts=2, time=3.0)])
    assert ledger.find(["b"])["b"].status == "ok"
    ledger.close()
    (row,) = read_ledger(tmp_path)
    assert (row.status, row.attempts) == ("ok", 2)


def test_a_ledger_is_opened_again(ledger: Ledger, tmp_path: Path) -> None:
    ledger.record([FAILED])
    ledger.close()
    again = open_ledger(tmp_path, "sqlite" if isinstance(ledger, SqliteLedger) else "parquet")
    assert again.find(["b"]) == {"b": FAILED}
    again.record([ROW])
    again.close()
    assert len(read_ledger(tmp_path)) == 2


def test_any_number_of_keys_is_found(ledger: Ledger) -> None:
    rows = [replace(ROW, key=str(number)) for number in range(1700)]
    ledger.record(rows)
    assert len(ledger.find([row.key for row in rows[:1234]])) == 1234
    ledger.close()


def test_writers_of_a_job_array_do_not_meet(tmp_path: Path) -> None:
    writers = [open_ledger(tmp_path, "parquet", writer=f"{number}-of-2") for number in (1, 2)]
    for writer, row in zip(writers, (ROW, FAILED), strict=True):
        writer.record([row])
    assert writers[0].find(["a", "b"]) == {"a": ROW}  # the other's rows wait for their part
    for writer in writers:
        writer.close()
    assert sorted(path.name for path in (tmp_path / "ledger").iterdir()) == [
        "part-1-of-2-000000.parquet",
        "part-2-of-2-000000.parquet",
    ]
    assert read_ledger(tmp_path) == [FAILED, ROW]


def test_parts_are_joined_when_they_become_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("regen_train.preparation.ledger.parquet._ROWS_A_PART", 1)
    monkeypatch.setattr("regen_train.preparation.ledger.parquet._MAX_PARTS", 3)
    ledger = ParquetLedger(tmp_path)
    for number in range(10):
        ledger.record([replace(ROW, key=str(number % 7), time=float(number))])
        assert len(list(tmp_path.glob("*.parquet"))) <= 3
    ledger.close()
    assert len(list(tmp_path.glob("*.parquet"))) == 1
    assert {row.key: row.time for row in read_parts(tmp_path)} == {str(n % 7): float(n) for n in range(3, 10)}


def test_rows_that_a_kill_left_twice_are_one() -> None:
    old, new = replace(ROW, time=1.0, attempts=1), replace(ROW, time=2.0, attempts=2)
    assert newest([new, old]) == newest([old, new, old]) == [new]


def test_rows_make_a_table() -> None:
    table = to_table([ROW, WINDOW])
    assert table.column("first_frame").to_pylist() == [None, 0]
    assert str(table.schema.field("seconds").type) == "double"
    assert to_table([]).schema == table.schema


_KILLER = """
import os, signal, sys
from pathlib import Path
from regen_train.preparation.ledger import LedgerRow, open_ledger
ledger = open_ledger(Path(sys.argv[1]), "sqlite")
for number in range(100):
    ledger.record([LedgerRow(key=str(number), stage="s", clip="c", source_sha256="", status="ok")])
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_kill_9_loses_no_recorded_row(tmp_path: Path) -> None:
    killed = subprocess.run([sys.executable, "-c", _KILLER, str(tmp_path)], env=os.environ)  # noqa: PLW1510
    assert killed.returncode == -signal.SIGKILL
    assert len(read_ledger(tmp_path)) == 100


def test_what_is_no_ledger_is_named(tmp_path: Path) -> None:
    (tmp_path / "ledger").mkdir()
    (tmp_path / "ledger" / "part-main-000000.parquet").write_bytes(b"no parquet")
    with pytest.raises(ValueError, match=r"part-main-000000\.parquet is no part of a ledger"):
        read_ledger(tmp_path)
    (tmp_path / "ledger" / "part-main-000000.parquet").unlink()
    (tmp_path / "ledger.sqlite").write_bytes(b"no database" * 100)
    with pytest.raises(ValueError, match=r"ledger\.sqlite is no ledger"):
        read_ledger(tmp_path)
    (tmp_path / "ledger.sqlite").unlink()
    with contextlib.closing(sqlite3.connect(tmp_path / "ledger.sqlite")) as database:
        database.execute("CREATE TABLE outcomes (key TEXT, stage TEXT)")
    with pytest.raises(ValueError, match=r"ledger\.sqlite is no ledger: no such column: clip"):
        open_ledger(tmp_path, "sqlite")


def test_a_ledger_that_another_process_writes_is_no_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda path: connect(path, timeout=0.0))
    ledger = open_ledger(tmp_path, "sqlite")
    with contextlib.closing(connect(tmp_path / "ledger.sqlite")) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(OSError, match="cannot be written: database is locked; run the same command again"):
            ledger.record([ROW])
    ledger.record([ROW])
    ledger.close()


def test_parts_that_are_joined_while_read_are_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = ParquetLedger(tmp_path)
    for row in (ROW, FAILED):
        writer.record([row])
        writer._flush()
    read, count = Path.read_bytes, 0

    def join_first(path: Path) -> bytes:
        nonlocal count
        count += 1
        if count == 1:
            writer.close()
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", join_first)
    assert {row.key for row in read_parts(tmp_path)} == {"a", "b"}


def test_a_full_disk_is_told_with_the_way_on(ledger: Ledger) -> None:
    rows = [replace(ROW, key=str(number), reason=os.urandom(500).hex()) for number in range(600)]
    with (
        pytest.raises(OSError, match=r"cannot be written: .*; encoded samples are kept: free some space"),
        small_disk(),
    ):
        ledger.record(rows)
    ledger.record([ROW])
    ledger.close()
