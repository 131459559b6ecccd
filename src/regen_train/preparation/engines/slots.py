"""The driver's side of engines with workers of their own: keep all of them busy, replace those that die."""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

from regen_train.preparation.engines.stage import Attempt, Fault, Finished, Job

_MAX_DEATHS = 8
"""So many attempts in a row that ended with a dead worker are no matter of clips."""

_SECONDS_A_LOOK = 1.0
"""How often workers are looked at whose time may be over."""


@runtime_checkable
class Slot(Protocol):
    """A place where one worker works on one job at a time."""

    def submit(self, task: Any) -> "Future[Any]":
        """Start an attempt."""
        ...

    def collect(self, future: "Future[Any]") -> Attempt:
        """Return what came of it, also if the worker died of it."""
        ...

    def give_up_if_late(self) -> None:
        """End the worker if its attempt takes too long, where nothing else does."""
        ...

    def renew(self) -> None:
        """Put another worker in place of this one, whose state an error may have spoiled."""
        ...

    def close(self) -> None:
        """End the worker."""
        ...


def drive(slots: Sequence[Slot], jobs: Sequence[Job], *, max_attempts: int) -> Iterator[Finished]:
    """Run jobs on slots; see `Engine.run`. The slots are closed in the end, whatever happens."""
    idle, running = list(slots), dict[Future[Any], tuple[Slot, Job]]()
    queue, deaths = deque(jobs), 0
    try:
        while queue or running:
            while queue and idle:
                slot, job = idle.pop(), queue.popleft()
                running[slot.submit(job.task)] = slot, job
            done = wait(running, timeout=_SECONDS_A_LOOK, return_when=FIRST_COMPLETED).done
            for slot, _ in running.values():
                slot.give_up_if_late()
            for future in done:
                slot, job = running.pop(future)
                attempt = slot.collect(future)
                fault = attempt.result if isinstance(attempt.result, Fault) else None
                deaths = deaths + 1 if fault and fault.kind in {"crash", "timeout"} else 0
                _check(fault, deaths)
                if fault and fault.kind == "error":
                    slot.renew()
                idle.append(slot)
                job = replace(job, attempts=job.attempts + 1)
                if fault and not fault.is_final and job.attempts < max_attempts:
                    queue.append(job)  # last: what kills workers shall not keep the others waiting
                else:
                    yield Finished(job, attempt, job.attempts)
    finally:
        for slot in slots:
            slot.close()


def _check(fault: Fault | None, deaths: int) -> None:
    check_fault(fault)
    if fault and deaths >= _MAX_DEATHS:
        raise ValueError(f"{deaths} attempts in a row ended with a dead worker, the last so: {fault.reason}")


def check_fault(fault: Fault | None) -> None:
    """Stop the run for what is no fault of a clip.

    Raises:
        ValueError: The stage cannot start.
        OSError: Nothing can be written.
    """
    if fault and fault.kind == "setup":
        raise ValueError(fault.reason)
    if fault and fault.kind == "storage":
        raise OSError(fault.reason)
