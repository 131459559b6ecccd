"""How much memory a step takes: of this process and all that it starts."""

import threading
from types import TracebackType

import psutil

_SAMPLED_EVERY = 0.25
"""Seconds."""
_NOTABLE = 1.01
"""Growth of resident memory from which on it is counted exactly, which takes long."""


class MemoryWatch:
    """Watches memory inside a ``with`` block, at any size that is a new high; whole when the block ends.

    Pages that processes share count once where the system tells them apart (Linux), else once a process.
    """

    def __init__(self) -> None:
        self.peak_bytes = 0
        self._highest, self._over = 0, threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "MemoryWatch":
        self._sample()
        self._watcher.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._over.set()
        self._watcher.join()
        self._sample()

    def _watch(self) -> None:
        while not self._over.wait(_SAMPLED_EVERY):
            self._sample()

    def _sample(self) -> None:
        this = psutil.Process()
        processes = [this, *this.children(recursive=True)]
        resident = sum(_held(process, exact=False) for process in processes)
        if resident > _NOTABLE * self._highest:
            self._highest = resident
            self.peak_bytes = max(self.peak_bytes, sum(_held(process, exact=True) for process in processes))


def _held(process: psutil.Process, *, exact: bool) -> int:
    try:
        if not exact:
            return int(process.memory_info().rss)
        held = process.memory_full_info()
    except (psutil.NoSuchProcess, psutil.AccessDenied):  # it has ended
        return 0
    return int(getattr(held, "pss", held.rss))
