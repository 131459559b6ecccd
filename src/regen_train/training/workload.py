"""The largest step of a run, for what is chosen by memory."""

import lightning as L

from regen_train.data import ShardDataModule
from regen_train.model import Workload, free_bytes
from regen_train.training.strategies import num_shards


def workload_of(trainer: L.Trainer) -> Workload:
    """Return the run's largest forward and backward pass, and the memory there is for it now.

    Raises:
        ValueError: The trainer has no dataset to ask.
    """
    data: ShardDataModule | None = getattr(trainer, "datamodule", None)
    if data is None:
        raise ValueError("model.checkpointing: auto asks the dataset for its largest clip; without one name a policy")
    reference = data.reference != "none"
    tokens = (data.info.geometry.num_tokens(bucket, reference=reference) for bucket in data.samples_per_bucket)
    device = trainer.strategy.root_device
    return Workload(
        tokens=-(-max(tokens) // data.processes_per_sample),
        batch=data.per_device_batch_size,
        free_bytes=free_bytes(device, processes=trainer.num_devices),
        device_type=device.type,
        num_shards=num_shards(trainer),
    )
