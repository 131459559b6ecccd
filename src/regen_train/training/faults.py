"""What Lightning and PyTorch raise at a user's mistake, in a line that says what to do."""

from typing import Any

import lightning as L
import torch

from regen_train.model.checkpointing import POLICIES
from regen_train.training.module import VaceModule
from regen_train.training.workload import largest_bucket, largest_tokens


def told_of_devices(error: Exception, *, accelerator: Any, devices: Any) -> ValueError:
    """Return Lightning's ``MisconfigurationException`` with what to choose where it is about devices.

    Args:
        error: What Lightning raised.
        accelerator: The trainer's.
        devices: The trainer's.
    """
    text = " ".join(str(error).split())
    if not any(word in text.lower() for word in ("gpu", "cuda", "accelerator", "device")):
        return ValueError(text)
    number = torch.cuda.device_count() if torch.cuda.is_available() else 0
    here = f"{number or 'no'} GPU{'s' * (number != 1)} that PyTorch can use"
    return ValueError(
        f"{text} trainer.accelerator is {accelerator}, trainer.devices {devices}, and this "
        f"machine has {here}: take --trainer.accelerator cpu, "
        f"{'--trainer.devices up to ' + str(number) if number else '--trainer.devices 1 or more'}, or "
        "--trainer.strategy auto"
    )


def told_of_memory(error: torch.OutOfMemoryError, trainer: L.Trainer, module: VaceModule) -> MemoryError:
    """Return PyTorch's error with the largest step of the run and what would take less.

    Args:
        error: What PyTorch raised.
        trainer: With its data opened.
        module: What it trains.
    """
    data: Any = vars(trainer)["datamodule"]
    policy = module.checkpointing if module.model is None else module.model.checkpointing
    sparing = POLICIES[POLICIES.index(policy) + 1 :] if policy in POLICIES else ()
    remedies = [f"--model.checkpointing {' or '.join(sparing)}"] if sparing else []
    remedies += ["--model.blocks.quantize int8", "--model.blocks.swap 8"] if module.trainable != "all" else []
    remedies += ["--config strategy_fsdp2.yaml on several GPUs"]
    batch = data.per_device_batch_size
    smaller = f"smaller buckets{f' or a smaller data.per_device_batch_size than {batch}' if batch > 1 else ''}"
    return MemoryError(
        f"out of memory, with checkpointing {policy} and up to {batch} x {largest_tokens(data):,} tokens a pass "
        f"(bucket {largest_bucket(data)}); what takes less: {', '.join(remedies)}, or {smaller}; regen_train profile "
        f"estimates each. PyTorch says: {' '.join(str(error).split())}"
    )
