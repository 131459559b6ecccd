import json
import stat
from pathlib import Path

import pytest

from regen_train.preparation.salt import load_salt, salted
from regen_train.preparation.work import WorkEntry, WorkFolder

ENTRY = WorkEntry(payload=bytes(range(200)), info='{"fps": 7.5}')


def write(work: WorkFolder, fingerprint: str = "f") -> None:
    work.write("one", ENTRY, fingerprint=fingerprint)


def test_what_is_written_is_held(tmp_path: Path) -> None:
    work = WorkFolder(tmp_path)
    assert not work.holds("one", "f")
    write(work)
    assert work.holds("one", "f")
    assert work.read("one", fingerprint="f") == ENTRY
    assert not work.holds("one", "another setting")
    with pytest.raises(ValueError, match="missing, torn or made with other settings"):
        work.read("one", fingerprint="another setting")


@pytest.mark.parametrize("torn", ["one.safetensors", "one.json"])
@pytest.mark.parametrize("how", ["cut", "flipped", "gone", "empty"])
def test_a_torn_entry_counts_as_absent(tmp_path: Path, torn: str, how: str) -> None:
    work = WorkFolder(tmp_path)
    write(work)
    path = tmp_path / torn
    data = path.read_bytes()
    middle = len(data) // 2
    flipped = data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
    {
        "cut": lambda: path.write_bytes(data[:middle]),
        "flipped": lambda: path.write_bytes(flipped),
        "gone": path.unlink,
        "empty": lambda: path.write_bytes(b""),
    }[how]()
    assert not work.holds("one", "f")
    write(work)
    assert work.holds("one", "f")


def test_new_tensors_under_an_old_record_count_as_absent(tmp_path: Path) -> None:
    """A kill between the two renames of a changed entry."""
    work = WorkFolder(tmp_path)
    write(work)
    record = (tmp_path / "one.json").read_bytes()
    work.write("one", WorkEntry(b"other", "{}"), fingerprint="g")
    (tmp_path / "one.json").write_bytes(record)
    assert not work.holds("one", "f")
    assert not work.holds("one", "g")


def test_one_process_at_a_time_and_leftovers_go(tmp_path: Path) -> None:
    work = WorkFolder(tmp_path / "new")
    with work.lock():
        (work.path / ".one.json.77.tmp").write_text(json.dumps("half"))
        with pytest.raises(ValueError, match="another process"), WorkFolder(work.path).lock():
            pass
    with work.lock():
        assert not list(work.path.glob(".*"))


def test_the_salt_is_made_once_and_is_private(tmp_path: Path) -> None:
    path = tmp_path / "config" / "salt"
    salt = load_salt(path)
    assert len(salt) == 32
    assert load_salt(path) == salt
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in path.parent.iterdir()] == ["salt"]
    assert load_salt(tmp_path / "other") != salt


def test_the_salt_may_not_be_short_or_lie_in_the_dataset(tmp_path: Path) -> None:
    (tmp_path / "short").write_bytes(b"pepper")
    with pytest.raises(ValueError, match="at least 32 bytes, got 6"):
        load_salt(tmp_path / "short")
    with pytest.raises(ValueError, match="outside the dataset"):
        load_salt(tmp_path / "data" / ".work" / "salt", dataset=tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_salted_hashes_differ_by_salt_and_by_parts() -> None:
    hashes = {salted(b"a" * 32, "x", "y"), salted(b"b" * 32, "x", "y"), salted(b"a" * 32, "xy"), salted(b"a" * 32, "x")}
    assert len(hashes) == 4
    assert all(len(value) == 64 for value in hashes)
