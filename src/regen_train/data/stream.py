"""The order of samples: one infinite stream, the same for every number of processes, resumed by one integer."""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int64
from torch import Tensor

from regen_train import draws
from regen_train.schema import Bucket


@dataclass(frozen=True)
class GlobalBatch:
    """The samples of one optimizer step, over all processes.

    Args:
        number: Which step, from 0.
        bucket: The bucket of all its samples.
        samples: The samples, as the stream was given them.
    """

    number: int
    bucket: Bucket
    samples: tuple[int, ...]

    def numbers(self) -> range:
        """Return the samples' places in the stream."""
        first = self.number * len(self.samples)
        return range(first, first + len(self.samples))


class Stream:
    """Orders the samples of a dataset by (seed, epoch) alone.

    Every epoch permutes each bucket, cuts it into global batches, leaves the incomplete last one out, and permutes the
    batches of all buckets. So each batch has one shape, no epoch repeats a sample, and other samples are left out in
    other epochs.

    Args:
        samples: The samples of each bucket; their order matters, so give them sorted.
        global_batch_size: Samples of one optimizer step, over all processes.
        seed: The run's seed.

    Raises:
        ValueError: No bucket has enough samples for one global batch.
    """

    def __init__(self, samples: Mapping[Bucket, Sequence[int]], *, global_batch_size: int, seed: int) -> None:
        if global_batch_size < 1:
            raise ValueError(f"global_batch_size must be at least 1, got {global_batch_size}")
        self.samples = {bucket: torch.tensor(samples[bucket], dtype=torch.int64) for bucket in sorted(samples)}
        self.global_batch_size = global_batch_size
        self.seed = seed
        self.batches_per_epoch = sum(len(numbers) // global_batch_size for numbers in self.samples.values())
        if not self.batches_per_epoch:
            counts = ", ".join(f"{bucket}: {len(numbers)}" for bucket, numbers in self.samples.items()) or "none"
            largest = max(map(len, self.samples.values()), default=0)
            raise ValueError(
                f"global_batch_size is {global_batch_size}, but no bucket has so many samples to train on ({counts}); "
                f"set it to at most {largest}, or prepare more clips"
            )
        self._epochs: dict[int, list[tuple[Bucket, Int64[Tensor, " g"]]]] = {}
        self._lock = threading.Lock()

    @property
    def samples_per_epoch(self) -> int:
        """Samples that one epoch trains on."""
        return self.batches_per_epoch * self.global_batch_size

    @property
    def samples_left_out(self) -> int:
        """Samples that one epoch leaves out, because they fill no global batch."""
        return sum(map(len, self.samples.values())) - self.samples_per_epoch

    @property
    def untrained_buckets(self) -> tuple[Bucket, ...]:
        """Buckets that no epoch ever trains on: they have fewer samples than a global batch."""
        return tuple(bucket for bucket, numbers in self.samples.items() if len(numbers) < self.global_batch_size)

    def global_batch(self, number: int) -> GlobalBatch:
        """Return the global batch of optimizer step ``number``, counted from 0."""
        epoch, place = divmod(number, self.batches_per_epoch)
        bucket, samples = self._epoch(epoch)[place]
        return GlobalBatch(number, bucket, tuple(samples.tolist()))

    def _epoch(self, epoch: int) -> list[tuple[Bucket, Int64[Tensor, " g"]]]:
        with self._lock:
            if epoch not in self._epochs:
                # Prefetching crosses from one epoch into the next, so two are kept.
                self._epochs = {known: plan for known, plan in self._epochs.items() if known == epoch - 1}
                self._epochs[epoch] = self._plan(epoch)
            return self._epochs[epoch]

    def _plan(self, epoch: int) -> list[tuple[Bucket, Int64[Tensor, " g"]]]:
        size = self.global_batch_size
        batches = []
        for bucket, numbers in self.samples.items():
            order = draws.permutation(len(numbers), self.seed, epoch, f"samples of bucket {bucket}")
            whole = numbers[order[: len(numbers) // size * size]]
            batches += [(bucket, batch) for batch in whole.view(-1, size)]
        order = draws.permutation(len(batches), self.seed, epoch, "batches")
        return [batches[place] for place in order.tolist()]
