"""Checkpoint files: whole or absent, found again, never unpickled."""

import contextlib
import logging
import resource
import signal
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from regen_train.checkpoint_io import (
    AtomicCheckpointIO,
    find_last_checkpoint,
    is_whole,
    list_checkpoints,
    read_checkpoint,
)


def _checkpoint(value: float) -> dict[str, object]:
    return {"state_dict": {"w": torch.full((1000,), value)}, "global_step": int(value)}


def test_a_checkpoint_reads_back_and_leaves_nothing_else(tmp_path: Path) -> None:
    io = AtomicCheckpointIO()
    io.save_checkpoint(_checkpoint(3), tmp_path / "run" / "step-000003.ckpt")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["step-000003.ckpt"]
    content = io.load_checkpoint(tmp_path / "run" / "step-000003.ckpt")
    assert torch.equal(content["state_dict"]["w"], torch.full((1000,), 3.0))


@contextlib.contextmanager
def small_disk() -> Iterator[None]:
    """Let no file of this process grow beyond 2 kB, as on a full disk; also not the one that pytest prints into."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2048, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_full_disk_leaves_the_earlier_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "step-000001.ckpt"
    path.write_bytes(b"earlier")
    with pytest.raises(OSError, match=r"could not write checkpoint .*step-000001.ckpt.*--ckpt_path last"), small_disk():
        AtomicCheckpointIO().save_checkpoint(_checkpoint(1), path)
    assert path.read_bytes() == b"earlier"
    assert list(tmp_path.iterdir()) == [path]


def test_the_newest_whole_checkpoint_is_found(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for step in (9, 10, 100):
        AtomicCheckpointIO().save_checkpoint(_checkpoint(step), tmp_path / f"step-{step:06d}.ckpt")
    whole = (tmp_path / "step-000100.ckpt").read_bytes()
    (tmp_path / "step-000100.ckpt").write_bytes(whole[: len(whole) // 2])
    assert [path.name for path in list_checkpoints(tmp_path)][-1] == "step-000100.ckpt"
    with caplog.at_level(logging.WARNING):
        assert find_last_checkpoint(tmp_path) == tmp_path / "step-000010.ckpt"
    assert "step-000100.ckpt is torn" in caplog.text
    with pytest.raises(ValueError, match="torn or not a checkpoint"):
        read_checkpoint(tmp_path / "step-000100.ckpt")


def test_one_flipped_byte_makes_a_checkpoint_torn(tmp_path: Path) -> None:
    path = tmp_path / "step-000001.ckpt"
    AtomicCheckpointIO().save_checkpoint(_checkpoint(1), path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert not is_whole(path)


def test_no_run_no_checkpoint(tmp_path: Path) -> None:
    assert find_last_checkpoint(tmp_path) is None
    assert find_last_checkpoint(tmp_path / "missing") is None
    with pytest.raises(FileNotFoundError, match="no such checkpoint"):
        read_checkpoint(tmp_path / "missing.ckpt")


class _Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (Path.touch, (Path("exploded"),))


def test_a_pickle_in_a_checkpoint_is_not_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": _Bomb()}, tmp_path / "bomb.ckpt")
    assert zipfile.is_zipfile(tmp_path / "bomb.ckpt")
    with pytest.raises(ValueError, match="more than tensors and plain values"):
        read_checkpoint(tmp_path / "bomb.ckpt")
    assert not (tmp_path / "exploded").exists()
