"""What a stage is, what it is given, and what comes of it."""

import errno
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

from regen_train.shards.space import is_full

FaultKind = Literal["input", "error", "crash", "timeout", "setup", "storage"]
_TRACE_LINES = 12
_PASSING = (errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENFILE, errno.ETIMEDOUT, errno.EAGAIN, errno.ENOMEM)
"""Faults of a disk, a network or a machine, not of a clip: worth another attempt."""


class StorageError(OSError):
    """The work folder cannot be written: no fault of a clip, and the end of the run."""


@dataclass(frozen=True)
class Processed:
    """What a stage made of a clip.

    Args:
        value: What the driver goes on with; small, for it travels between processes.
        source_sha256: The clip's checksum, from the stage that finds it.
    """

    value: Any = None
    source_sha256: str = ""


@dataclass(frozen=True)
class Fault:
    """Why a stage made nothing of a clip.

    Args:
        kind: ``input``: the clip's own fault, the same at every attempt; ``error``: of the code or the device;
            ``crash``: the worker died; ``timeout``; ``setup``: the stage cannot work here; ``storage``: nothing can be
            written.
        reason: In words.
        trace: The end of the traceback.
    """

    kind: FaultKind
    reason: str
    trace: str = ""

    @property
    def is_final(self) -> bool:
        """Whether another attempt would end the same way."""
        return self.kind == "input"


@dataclass(frozen=True)
class Attempt:
    """One try of one clip.

    Args:
        result: What came of it.
        seconds: How long it took, where it ran.
        device: Where it ran.
    """

    result: Processed | Fault
    seconds: float = 0.0
    device: str = ""


@dataclass(frozen=True)
class Job:
    """One clip's turn in a stage.

    Args:
        key: A hash over all that decides the outcome.
        clip: The video file's name.
        source_sha256: Its checksum; empty where not known yet.
        task: What the stage takes.
        attempts: How often it was tried in earlier runs.
    """

    key: str
    clip: str
    source_sha256: str
    task: Any
    attempts: int = 0


@dataclass(frozen=True)
class Finished:
    """A job that is done.

    Args:
        job: The job.
        attempt: The last attempt.
        attempts: How many there were, over all runs.
    """

    job: Job
    attempt: Attempt
    attempts: int = 1


@runtime_checkable
class Stage(Protocol):
    """One step of preparation. Can be pickled before `setup`."""

    @property
    def name(self) -> str:
        """Name in the ledger and on the screen."""
        ...

    @property
    def uses_device(self) -> bool:
        """Whether it holds a model; if not, it may run in as many processes as there are cores."""
        ...

    def setup(self, device: str) -> None:
        """Load what is needed; called once per worker, before the first clip."""
        ...

    def process(self, task: Any) -> Processed:
        """Work on one clip.

        Raises:
            ValueError: The clip is at fault.
            OSError: Likewise.
            StorageError: The result cannot be written.
        """
        ...


@runtime_checkable
class Engine(Protocol):
    """Spreads the jobs of a stage over workers."""

    def run(self, stage: Stage, jobs: Sequence[Job], *, max_attempts: int) -> Iterator[Finished]:
        """Work on the jobs and yield each when it is done, in any order; the workers end with the last.

        A worker that dies or hangs costs one attempt of one job.

        Args:
            stage: What to do.
            jobs: To what.
            max_attempts: Crashes, timeouts and errors are tried again until there were so many attempts.
        """
        ...


def fault_of(error: Exception) -> Fault:
    """Return what an exception out of `Stage.process` means."""
    trace = "".join(traceback.format_exception(error)[-_TRACE_LINES:])
    if isinstance(error, StorageError) or is_full(error):
        return Fault("storage", str(error), trace)
    if isinstance(error, OSError) and error.errno in _PASSING:
        return Fault("error", str(error), trace)
    if isinstance(error, ValueError | OSError):
        return Fault("input", str(error), trace)
    return Fault("error", f"{type(error).__name__}: {error}", trace)
