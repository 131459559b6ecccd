"""Batches in order, prepared ahead by threads of this process.

Worker processes would copy every batch through shared memory, which costs more than reading it.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from regen_train.schema import Batch
from regen_train.shards import CacheSpec


@dataclass(frozen=True)
class Loading:
    """How batches are read.

    Args:
        prefetch: Microbatches that are prepared ahead of the trainer.
        num_threads: Threads that prepare them.
        cache: Where shards of a remote dataset are kept.
    """

    prefetch: int = 4
    num_threads: int = 2
    cache: CacheSpec = field(default_factory=CacheSpec)

    def __post_init__(self) -> None:
        if self.prefetch < 1 or self.num_threads < 1:
            raise ValueError(f"prefetch and num_threads must be at least 1, got {self.prefetch}, {self.num_threads}")


class StreamLoader:
    """Iterates batches from wherever the run stands; never ends.

    Every iteration has its own threads; they end when the iterator is closed or dropped. An error while a batch is
    prepared is raised where that batch would have come.

    Args:
        load: Makes the batch of a number; called from several threads.
        start: Returns the number of the first batch; called when an iteration begins.
        loading: Threads and prefetch.
    """

    def __init__(self, load: Callable[[int], Batch], start: Callable[[], int], loading: Loading) -> None:
        self.load = load
        self.start = start
        self.loading = loading
        self.wait_seconds = 0.0

    def __iter__(self) -> Iterator[Batch]:
        return self._iterate(None)

    def _iterate(self, stop: int | None) -> Iterator[Batch]:
        number = self.start()
        ahead: deque[Future[Batch]] = deque()
        threads = ThreadPoolExecutor(self.loading.num_threads, thread_name_prefix="regen_train-data")
        try:
            while True:
                while len(ahead) < self.loading.prefetch and number != stop:
                    ahead.append(threads.submit(self.load, number))
                    number += 1
                if not ahead:
                    return
                since = time.perf_counter()
                try:
                    batch = ahead.popleft().result()
                finally:
                    self.wait_seconds += time.perf_counter() - since
                yield batch
        finally:
            threads.shutdown(wait=False, cancel_futures=True)


class HeldOutLoader(StreamLoader):
    """Iterates a fixed number of batches, from the first.

    Args:
        load: Makes the batch of a number; called from several threads.
        length: How many there are.
        loading: Threads and prefetch.
    """

    def __init__(self, load: Callable[[int], Batch], length: int, loading: Loading) -> None:
        super().__init__(load, lambda: 0, loading)
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[Batch]:
        return self._iterate(self.length)
