"""The largest step of a run, and the memory there is for it."""

from typing import Protocol, runtime_checkable

import lightning as L
import torch
from lightning.pytorch.strategies import DDPStrategy

from regen_train.data import ShardDataModule
from regen_train.model import Upkeep, Workload, free_bytes
from regen_train.schema import Bucket, Geometry
from regen_train.training.strategies import num_shards


@runtime_checkable
class KeepsCopies(Protocol):
    """A callback that keeps fp32 copies of what learns."""

    @property
    def num_copies(self) -> int:
        """How many at most."""


def workload_of(trainer: L.Trainer) -> Workload:
    """Return the run's largest forward and backward pass, and the memory there is for it now.

    All processes must ask together: what is free is counted where there is least, so that what is chosen by it is the
    same on each.

    Raises:
        ValueError: The trainer has no dataset to ask.
    """
    data: ShardDataModule | None = getattr(trainer, "datamodule", None)
    if data is None:
        raise ValueError("model.checkpointing: auto asks the dataset for its largest clip; without one name a policy")
    device = trainer.strategy.root_device
    return Workload(
        tokens=largest_tokens(data),
        batch=data.per_device_batch_size,
        free_bytes=_least(free_bytes(device, processes=trainer.num_devices), device),
        device_type=device.type,
        upkeep=upkeep_of(trainer),
    )


def largest_bucket(data: ShardDataModule) -> Bucket:
    """Return the shape of the largest clips to train on, once the datasets are open."""
    buckets = [bucket for bucket, number in data.samples_per_bucket.items() if number]
    return max(buckets, key=lambda bucket: data.info.geometry.num_tokens(bucket, reference=data.reference != "none"))


def largest_tokens(data: ShardDataModule) -> int:
    """Return the tokens that a process computes of the largest clip to train on, once the datasets are open."""
    return tokens_of(data, largest_bucket(data), data.info.geometry)


def tokens_of(data: ShardDataModule, bucket: Bucket, geometry: Geometry) -> int:
    """Return the tokens that a process computes of a clip; no dataset need be there."""
    tokens = geometry.num_tokens(bucket, reference=data.reference != "none")
    return -(-tokens // data.processes_per_sample)


def upkeep_of(trainer: L.Trainer) -> Upkeep:
    """Return what a run keeps of what learns, by its strategy and its callbacks.

    ZeRO's own fp32 weights count as DDP's buckets, which it does without.
    """
    strategy = trainer.strategy
    in_buckets = isinstance(strategy, DDPStrategy) and not strategy._ddp_kwargs.get("gradient_as_bucket_view", False)
    copies = sum(callback.num_copies for callback in vars(trainer)["callbacks"] if isinstance(callback, KeepsCopies))
    return Upkeep(num_shards=num_shards(trainer), in_buckets=in_buckets, copies=copies)


def _least(number: int, device: torch.device) -> int:
    """Return the smallest of all processes' numbers."""
    if not torch.distributed.is_initialized():
        return number
    least = torch.tensor(number, dtype=torch.int64, device=device)
    torch.distributed.all_reduce(least, op=torch.distributed.ReduceOp.MIN)
    return int(least)
