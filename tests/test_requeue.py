"""A SLURM job that is told to make room puts itself back into the queue."""

import logging
import os
from pathlib import Path

import pytest

from regen_train.callbacks.requeue import requeue_slurm_job


@pytest.fixture
def queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file in which a stand-in of scontrol notes what it was told."""
    for name in list(os.environ):
        if name.startswith("SLURM_"):
            monkeypatch.delenv(name)
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    write_scontrol(tmp_path / "bin", f'echo "$@" >> {tmp_path / "queue"}')
    return tmp_path / "queue"


def write_scontrol(folder: Path, body: str) -> None:
    """Write a command of that name."""
    (folder / "scontrol").write_text(f"#!/bin/sh\n{body}\n")
    (folder / "scontrol").chmod(0o755)


def test_names_the_job_or_the_task_of_an_array(queue: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    requeue_slurm_job()
    assert not queue.exists(), "outside SLURM there is no queue"
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    requeue_slurm_job()
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "15")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "2")
    requeue_slurm_job()
    assert queue.read_text() == "requeue 17\nrequeue 15_2\n"


@pytest.mark.parametrize("exists", [True, False])
def test_a_failure_says_what_to_do(
    queue: Path, exists: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    if exists:
        write_scontrol(queue.parent / "bin", "echo no such job >&2; exit 1")
    else:
        monkeypatch.setenv("PATH", "")
    caplog.set_level(logging.WARNING)
    requeue_slurm_job()
    told = "no such job" if exists else "No such file or directory"
    assert "scontrol requeue 17 failed: " in caplog.text
    assert told in caplog.text
    assert "submit the job again by hand" in caplog.text
