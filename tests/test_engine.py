"""Engines: a worker that dies, hangs or errs costs an attempt of one job; what is no job's fault stops the run."""

import errno
import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from regen_train.preparation.engines import (
    Engine,
    Fault,
    Finished,
    Job,
    LocalEngine,
    Processed,
    RayEngine,
    StorageError,
    pick_devices,
)


@dataclass
class Doing:
    """Does what its task says; ``notes`` counts attempts, across processes."""

    notes: Path
    setup_error: str = ""
    uses_device: bool = True
    name: str = "doing"
    _is_ready: bool = False

    def setup(self, device: str) -> None:
        if self.setup_error:
            raise FileNotFoundError(self.setup_error)
        self._is_ready = True
        with (self.notes / "setups").open("a") as file:
            file.write(f"{device} {os.getpid()}\n")

    def process(self, task: Any) -> Processed:
        assert self._is_ready
        what, _, name = str(task).partition(" ")
        with (self.notes / f"job{name}").open("a") as file:
            file.write("x")
        count = len((self.notes / f"job{name}").read_text())
        {
            "double": lambda: None,
            "threads": lambda: None,
            "refuse": lambda: _raise(ValueError(f"{name} is no clip")),
            "err": lambda: _raise(RuntimeError("out of memory")),
            "err-once": lambda: _raise(RuntimeError("out of memory")) if count == 1 else None,
            "die": lambda: os.kill(os.getpid(), signal.SIGKILL),
            "die-once": lambda: os.kill(os.getpid(), signal.SIGKILL) if count == 1 else None,
            "hang": lambda: time.sleep(60),
            "full": lambda: _raise(OSError(errno.ENOSPC, "No space left on device")),
            "store": lambda: _raise(StorageError("work cannot be written")),
        }[what]()
        return Processed(torch.get_num_threads() if what == "threads" else 2 * int(name or 0))


def _raise(error: Exception) -> None:
    raise error


def jobs_of(*tasks: str) -> list[Job]:
    return [Job(key=task, clip=task, source_sha256="", task=task) for task in tasks]


def run(engine: Engine, stage: Doing, jobs: Sequence[Job], max_attempts: int = 2) -> dict[str, Finished]:
    return {done.job.clip: done for done in engine.run(stage, jobs, max_attempts=max_attempts)}


def fault_of(done: Finished) -> Fault:
    assert isinstance(done.attempt.result, Fault)
    return done.attempt.result


HERE = LocalEngine(num_workers=0)
FAULTS = ("double 1", "refuse 2", "err 3", "err-once 4", "double 5")


def check_faults(done: dict[str, Finished]) -> None:
    assert set(done) == set(FAULTS)
    assert {task: done[task].attempts for task in FAULTS} == dict(zip(FAULTS, (1, 1, 2, 2, 1), strict=True))
    assert done["double 5"].attempt.result == Processed(10)
    assert done["err-once 4"].attempt.result == Processed(8)
    assert (fault_of(done["refuse 2"]).kind, fault_of(done["refuse 2"]).reason) == ("input", "2 is no clip")
    assert (fault_of(done["err 3"]).kind, fault_of(done["err 3"]).reason) == ("error", "RuntimeError: out of memory")
    assert "_raise" in fault_of(done["err 3"]).trace


def test_in_this_process_faults_are_the_clips_own(tmp_path: Path) -> None:
    check_faults(run(HERE, Doing(tmp_path), jobs_of(*FAULTS)))
    assert len((tmp_path / "setups").read_text().splitlines()) == 1


def test_threads_are_pinned_and_given_back(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    for threads in (1, 3):
        done = run(LocalEngine(num_workers=0, threads=threads), Doing(tmp_path), jobs_of("threads"))
        assert done["threads"].attempt.result == Processed(threads)
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(
    ("task", "error", "words"),
    [("full", OSError, "No space left"), ("store", OSError, "work cannot be written")],
)
def test_what_cannot_be_written_stops_the_run(tmp_path: Path, task: str, error: type, words: str) -> None:
    with pytest.raises(error, match=words):
        run(HERE, Doing(tmp_path), jobs_of(task, "double 1"))
    assert not (tmp_path / "job1").exists()


def test_a_stage_that_cannot_start_stops_the_run(tmp_path: Path) -> None:
    for engine in (HERE, LocalEngine(num_workers=1)):
        with pytest.raises(ValueError, match="doing cannot start on cpu: no weights at nowhere"):
            run(engine, Doing(tmp_path, setup_error="no weights at nowhere"), jobs_of("double 1"))


def test_an_interrupt_is_no_fault_of_a_clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(self: Doing, task: Any) -> Processed:
        raise KeyboardInterrupt

    monkeypatch.setattr(Doing, "process", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(HERE, Doing(tmp_path), jobs_of("double 1"))


def test_a_process_that_dies_costs_an_attempt(tmp_path: Path) -> None:
    done = run(LocalEngine(num_workers=1, threads=1), Doing(tmp_path), jobs_of("die-once 7", "double 5"))
    assert {task: found.attempts for task, found in done.items()} == {"die-once 7": 2, "double 5": 1}
    assert [done[task].attempt.result for task in ("die-once 7", "double 5")] == [Processed(14), Processed(10)]


@pytest.mark.slow
def test_processes_survive_crashes_and_hangs(tmp_path: Path) -> None:
    tasks = (*FAULTS, "die 6", "die-once 7", "hang 8", "threads")
    done = run(LocalEngine(num_workers=2, threads=1, timeout=2.0), Doing(tmp_path), jobs_of(*tasks))
    check_faults({task: done[task] for task in FAULTS})
    assert fault_of(done["die 6"]).kind == "crash"
    assert "killed" in fault_of(done["die 6"]).reason
    assert done["die-once 7"].attempt.result == Processed(14)
    assert (done["die 6"].attempts, done["die-once 7"].attempts, done["hang 8"].attempts) == (2, 2, 2)
    assert fault_of(done["hang 8"]).kind == "timeout"
    assert "--timeout" in fault_of(done["hang 8"]).reason
    assert done["threads"].attempt.result == Processed(1)


class Unstartable(Doing):
    """Cannot even be unpickled by a worker."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        raise ImportError("no such module there")


def test_workers_that_cannot_start_stop_the_run(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="worker processes on cpu end as soon as they start"):
        run(LocalEngine(num_workers=1), Unstartable(tmp_path), jobs_of("double 1"))


def test_attempts_of_earlier_runs_count(tmp_path: Path) -> None:
    job = Job(key="k", clip="c", source_sha256="", task="err 1", attempts=2)
    (done,) = HERE.run(Doing(tmp_path), [job], max_attempts=3)
    assert done.attempts == 3
    assert (tmp_path / "job1").read_text() == "x"


@pytest.mark.slow
def test_workers_that_die_on_every_clip_stop_the_run(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="8 attempts in a row ended with a dead worker, the last so: the worker died"):
        run(LocalEngine(num_workers=1), Doing(tmp_path), jobs_of(*(f"die {number}" for number in range(20))))


def test_devices_are_checked() -> None:
    assert pick_devices(["cpu", "cpu"]) == ("cpu", "cpu")
    assert pick_devices(["auto"]) == (
        tuple(f"cuda:{number}" for number in range(torch.cuda.device_count())) or ("cpu",)
    )
    with pytest.raises(ValueError, match=r"devices must be among auto, cpu.*; got cuda:77, tpu"):
        pick_devices(["cuda:77", "tpu"])


def test_ray_is_asked_for_by_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(ValueError, match=r"pip install -c constraints.txt '\.\[ray\]'; or use --engine local"):
        run(RayEngine(), Doing(tmp_path), jobs_of("double 1"))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_ray_survives_crashes_and_hangs(tmp_path: Path) -> None:
    import ray

    path = {"env_vars": {"PYTHONPATH": str(Path(__file__).parent)}}  # actors import the stage from this file
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False, runtime_env=path)
    try:
        tasks = (*FAULTS, "die 6", "die-once 7", "hang 8", "threads")
        done = run(RayEngine(num_actors=2, threads=1, timeout=5.0), Doing(tmp_path), jobs_of(*tasks))
        with pytest.raises(ValueError, match="no actor fits: one needs 64 CPU"):
            run(RayEngine(num_cpus=64.0), Doing(tmp_path), jobs_of("double 1"))
    finally:
        ray.shutdown()
    check_faults({task: done[task] for task in FAULTS})
    assert [fault_of(done[task]).kind for task in ("die 6", "hang 8")] == ["crash", "timeout"]
    assert done["die-once 7"].attempt.result == Processed(14)
    assert done["threads"].attempt.result == Processed(1)
