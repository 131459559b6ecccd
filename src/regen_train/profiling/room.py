"""Where a run would compute, and how much memory it would find there."""

from dataclasses import dataclass
from typing import Any

import lightning as L
import torch

from regen_train.model import free_bytes

_GIB = 2**30


@dataclass(frozen=True)
class Room:
    """Where a process computes, and how much room it has there.

    Args:
        type: ``cuda``, ``cpu`` or another of PyTorch's.
        name: What to call it.
        free: Bytes that the process may fill; None if nobody knows.
    """

    type: str
    name: str
    free: int | None


def room_of(trainer: L.Trainer, *, accelerator: Any, joins: bool, free_gib: float | None) -> Room:
    """Return where a configuration computes.

    Args:
        trainer: Of the run; of one that never starts, on CPUs whatever the configuration wants.
        accelerator: What the configuration wants.
        joins: Whether the run starts.
        free_gib: What is free on a card that is not here, which counts in place of all that is.
    """
    if free_gib is not None:
        return Room("cuda", "a card that is not here", int(free_gib * _GIB))
    device = trainer.strategy.root_device
    if not joins and accelerator != "cpu":
        if torch.cuda.is_available():
            device = torch.device("cuda")
        elif accelerator != "auto":
            return Room("cuda", "no GPU here; --free_gib 80 asks about a card with so many GiB free", None)
    return Room(device.type, str(device), free_bytes(device, processes=trainer.num_devices))


def number_of(devices: Any, *, accelerator: Any) -> int:
    """Return how many processes of a machine ``trainer.devices`` names; for all of its devices the GPUs here, or one.

    Args:
        devices: The trainer's.
        accelerator: The trainer's.
    """
    if isinstance(devices, list):
        return len(devices)
    named = [device for device in str(devices).split(",") if device.strip()]
    if "," in str(devices):
        return len(named)
    if str(devices).isdecimal() and int(devices):
        return int(devices)
    return 1 if accelerator == "cpu" else max(torch.cuda.device_count(), 1)
