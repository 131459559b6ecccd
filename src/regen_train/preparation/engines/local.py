"""The local engine: this process, or worker processes on this machine's devices."""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from multiprocessing import get_context
from typing import Any

import cv2
import torch

from regen_train.preparation.engines.slots import Slot, check_fault, drive
from regen_train.preparation.engines.stage import Attempt, Fault, Finished, Job, Stage
from regen_train.preparation.engines.worker import Worker, attempt_in_process, prepare_in_process, start_in_process


@dataclass(frozen=True)
class LocalEngine:
    """Workers on this machine.

    Args:
        devices: Where stages with a model run; workers take turns among them.
        num_workers: Processes for stages with a model; 0 works in this process, where nothing guards against a crash.
        cpu_workers: Processes for stages without one.
        threads: CPU threads of a worker.
        timeout: Seconds after which an attempt is given up; None waits for ever.
    """

    devices: tuple[str, ...] = ("cpu",)
    num_workers: int = 1
    cpu_workers: int = 1
    threads: int = 2
    timeout: float | None = None

    def run(self, stage: Stage, jobs: Sequence[Job], *, max_attempts: int) -> Iterator[Finished]:
        """Work on the jobs; see `Engine`."""
        if self.num_workers == 0:
            return self._run_here(stage, jobs, max_attempts)
        wanted = self.num_workers if stage.uses_device else self.cpu_workers
        devices = self.devices if stage.uses_device else ("cpu",)
        slots: list[Slot] = [
            _ProcessSlot(stage, devices[number % len(devices)], self.threads, self.timeout)
            for number in range(min(wanted, len(jobs)))
        ]
        return drive(slots, jobs, max_attempts=max_attempts)

    def _run_here(self, stage: Stage, jobs: Sequence[Job], max_attempts: int) -> Iterator[Finished]:
        before = torch.get_num_threads(), cv2.getNumThreads()
        worker = Worker(stage, self.devices[0] if stage.uses_device else "cpu", self.threads)
        try:
            for job in jobs:
                tried, is_done = job, False
                while not is_done:
                    attempt = worker.attempt(tried.task)
                    tried = replace(tried, attempts=tried.attempts + 1)
                    fault = attempt.result if isinstance(attempt.result, Fault) else None
                    check_fault(fault)
                    is_done = fault is None or fault.is_final or tried.attempts >= max_attempts
                yield Finished(tried, attempt, tried.attempts)
        finally:
            torch.set_num_threads(before[0])
            cv2.setNumThreads(before[1])


class _ProcessSlot:
    """One process of a pool of one: pebble ends it on time and replaces it when it dies."""

    def __init__(self, stage: Stage, device: str, threads: int, timeout: float | None) -> None:
        self._start, self._device, self._timeout = (stage, device, threads), device, timeout
        self._prepared: Future[Any] | None = None
        self._open()

    def submit(self, task: Any) -> "Future[Any]":
        if self._prepared is None:  # without a limit of time: weights may have to be read from afar
            self._prepared = self._pool.schedule(prepare_in_process)
        future: Future[Any] = self._pool.schedule(attempt_in_process, args=(task,), timeout=self._timeout)
        return future

    def collect(self, future: "Future[Any]") -> Attempt:
        from pebble import ProcessExpired

        try:
            result: Attempt = future.result()
        except TimeoutError:
            fault = Fault("timeout", f"took more than {self._timeout or 0:g} seconds; give it more with --timeout")
        except ProcessExpired as error:
            fault = Fault("crash", f"the worker died ({_cause(error.exitcode)})")
        except BrokenProcessPool:  # pebble's word for a worker that died between two tasks; such a pool stays broken
            fault = self._fault_of_idle_death()
            self.renew()
        except Exception as error:  # noqa: BLE001, RUF100 - such as a result that cannot be sent
            fault = Fault("error", f"{type(error).__name__}: {error}")
        else:
            return result
        self._prepared = None
        return Attempt(fault, device=self._device)

    def _fault_of_idle_death(self) -> Fault:
        started = self._prepared is not None and self._prepared.done() and self._prepared.exception() is None
        if started:
            return Fault("crash", "the worker died before it began")
        return Fault("setup", f"worker processes on {self._device} end as soon as they start; stderr says why")

    def give_up_if_late(self) -> None:
        """Leave it to pebble."""

    def renew(self) -> None:
        self.close()
        self._open()

    def close(self) -> None:
        self._pool.stop()
        self._pool.join()

    def _open(self) -> None:
        from pebble import ProcessPool

        context = get_context("spawn")  # neither CUDA nor FFmpeg's threads survive a fork
        self._pool = ProcessPool(1, initializer=start_in_process, initargs=self._start, context=context)
        self._prepared = None


def _cause(exitcode: int) -> str:
    if exitcode in {-9, 137}:
        return "killed, as by a machine that is out of memory"
    return f"signal {-exitcode}" if exitcode < 0 else f"exit code {exitcode}"


def pick_devices(names: Sequence[str]) -> tuple[str, ...]:
    """Return the devices that names stand for; ``auto`` is every GPU, or the CPU if there is none.

    Raises:
        ValueError: A device does not exist.
    """
    count = torch.cuda.device_count()
    found: list[str] = []
    for name in names:
        found += [name] if name != "auto" else [f"cuda:{number}" for number in range(count)] or ["cpu"]
    known = {"cpu", *(f"cuda:{number}" for number in range(count)), *(["cuda"] if count else [])}
    wrong = sorted(set(found) - known)
    if wrong or not found:
        raise ValueError(f"devices must be among auto, {', '.join(sorted(known))}; got {', '.join(wrong) or 'none'}")
    return tuple(found)


def usable_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
