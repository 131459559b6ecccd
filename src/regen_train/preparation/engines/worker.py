"""The worker's side of every engine: one stage, set up once, and one attempt after the other."""

import multiprocessing
import os
import threading
import time
from multiprocessing.connection import wait
from typing import Any

import cv2
import torch

from regen_train.preparation.engines.stage import Attempt, Fault, Stage, fault_of


class Worker:
    """Runs a stage on a device; no exception leaves it, so that none has to travel.

    Args:
        stage: What to do.
        device: Where.
        threads: CPU threads of torch and OpenCV; the same in every engine, for sums depend on it.
    """

    def __init__(self, stage: Stage, device: str, threads: int) -> None:
        torch.set_num_threads(threads)
        cv2.setNumThreads(threads)
        self._stage, self._device = stage, device
        self._is_ready = False

    def prepare(self) -> Fault | None:
        """Set the stage up, once; return why that failed."""
        if not self._is_ready:
            try:
                self._stage.setup(self._device)
            except Exception as error:  # noqa: BLE001, RUF100 - told by the driver, whatever it is
                return Fault(
                    "setup", f"{self._stage.name} cannot start on {self._device}: {error}", fault_of(error).trace
                )
            self._is_ready = True
        return None

    def attempt(self, task: Any) -> Attempt:
        """Work on one clip."""
        broken = self.prepare()
        if broken:
            return Attempt(broken, device=self._device)
        start = time.perf_counter()
        try:
            result: Any = self._stage.process(task)
        except Exception as error:  # noqa: BLE001, RUF100 - one clip must not stop the others
            result = fault_of(error)
        return Attempt(result, time.perf_counter() - start, self._device)


_worker: Worker | None = None


def start_in_process(stage: Stage, device: str, threads: int) -> None:
    """Make this process a worker, which ends when its parent does."""
    global _worker  # noqa: PLW0603 - what a process of a pool is
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()
    _worker = Worker(stage, device, threads)


def prepare_in_process() -> Fault | None:
    """See `Worker.prepare`."""
    assert _worker is not None
    return _worker.prepare()


def attempt_in_process(task: Any) -> Attempt:
    """See `Worker.attempt`."""
    assert _worker is not None
    return _worker.attempt(task)


def _end_with(parent: int) -> None:
    """End at once when the parent is gone: a killed run must not leave workers on its devices."""
    wait([parent])
    os._exit(1)
