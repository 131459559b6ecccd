"""A full disk while preparing: the file and the way on are named, and nothing half written stays."""

import contextlib
import resource
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from toy_dataset import make_sample

from regen_train.preparation.work import WorkEntry, WorkFolder
from regen_train.shards import ShardWriter
from regen_train.shards.space import needs_space

REMEDY = "File too large; encoded samples are kept: free some space and run the same command again"


@contextlib.contextmanager
def small_disk(num_bytes: int = 2048) -> Iterator[None]:
    """Let no file of this process grow further, as on a full disk; also not the one that pytest prints into."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def write_shards(folder: Path) -> None:
    with ShardWriter(folder, max_samples=1) as writer:
        for number in range(2):
            writer.write(make_sample(number))


@pytest.mark.parametrize("buffer", [1 << 24, 512], ids=["at the end of the shard", "within a sample"])
def test_a_shard_without_space_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, buffer: int) -> None:
    monkeypatch.setattr("regen_train.shards.writer.WRITE_BYTES", buffer)
    with pytest.raises(OSError, match=rf"{tmp_path}/shard-000000\.tar cannot be written: {REMEDY}$"), small_disk():
        write_shards(tmp_path)
    assert list(tmp_path.iterdir()) == []
    write_shards(tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize(("payload", "info", "name"), [(9000, 1, "safetensors"), (1, 9000, "json")])
def test_an_entry_without_space_is_named(tmp_path: Path, payload: int, info: int, name: str) -> None:
    work, entry = WorkFolder(tmp_path), WorkEntry(bytes(payload), "i" * info)
    with pytest.raises(OSError, match=rf"{tmp_path}/one\.{name} cannot be written: {REMEDY}$"), small_disk():
        work.write("one", entry, fingerprint="f")
    assert not work.holds("one", "f")
    work.write("one", entry, fingerprint="f")
    assert work.holds("one", "f")


def test_another_error_is_left_alone(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught, needs_space(tmp_path):
        (tmp_path / "nothing").read_bytes()
    assert "space" not in str(caught.value)
