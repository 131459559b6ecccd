"""What Lightning sets on a trainer without declaring it, given its type here."""

from typing import Any

import lightning as L

from regen_train.data import ShardDataModule
from regen_train.training import VaceModule


def data_of(trainer: L.Trainer) -> ShardDataModule:
    """Return the run's data."""
    data = _attribute(trainer, "datamodule")
    assert isinstance(data, ShardDataModule)
    return data


def module_of(trainer: L.Trainer) -> VaceModule:
    """Return the run's module."""
    module = trainer.lightning_module
    assert isinstance(module, VaceModule)
    return module


def log_every_n_steps(trainer: L.Trainer) -> int:
    """Return after how many steps metrics are logged."""
    return int(_attribute(trainer, "log_every_n_steps"))


def is_rehearsal(trainer: L.Trainer) -> bool:
    """Whether this is a ``fast_dev_run``, which leaves nothing behind."""
    return bool(_attribute(trainer, "fast_dev_run"))


def _attribute(trainer: L.Trainer, name: str) -> Any:
    return getattr(trainer, name)
