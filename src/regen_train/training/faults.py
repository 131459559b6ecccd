"""What Lightning and PyTorch raise at a user's mistake, in a line that says what to do."""

from dataclasses import replace
from typing import Any

import lightning as L
import torch

from regen_train.model.checkpointing import POLICIES, Checkpointing
from regen_train.training.module import VaceModule
from regen_train.training.strategies import FullyShardedStrategy
from regen_train.training.strategy_checks import allows
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
    batch = data.per_device_batch_size
    remedies = _remedies(trainer, module, policy)
    remedies.append("or " * bool(remedies) + "smaller buckets")
    remedies[-1] += f" or a smaller data.per_device_batch_size than {batch}" * (batch > 1)
    return MemoryError(
        f"out of memory, with checkpointing {policy} and up to {batch} x {largest_tokens(data):,} tokens a pass "
        f"(bucket {largest_bucket(data)}); what takes less: {', '.join(remedies)}; regen_train "
        f"profile estimates each. PyTorch says: {' '.join(str(error).split())}"
    )


def _remedies(trainer: L.Trainer, module: VaceModule, policy: Checkpointing) -> list[str]:
    """Return what takes less memory, is not in use, and goes with all that is."""
    strategy, blocks, wan = trainer.strategy, module.blocks, module.model
    sparing = POLICIES[POLICIES.index(policy) + 1 :] if policy in POLICIES else ()
    allowed = [one for one in sparing if allows(module, strategy, checkpointing=one)]
    remedies = [f"--model.checkpointing {' or '.join(allowed)}"] if allowed else []
    if blocks.quantize == "none" and allows(module, strategy, blocks=replace(blocks, quantize="int8")):
        remedies.append("--model.blocks.quantize int8")
    swap = min(blocks.swap + 8, len(wan.transformer.blocks) if wan is not None else blocks.swap + 8)
    if swap > blocks.swap and allows(module, strategy, blocks=replace(blocks, swap=swap)):
        remedies.append(f"--model.blocks.swap {swap}")
    if not isinstance(strategy, FullyShardedStrategy) and allows(module, FullyShardedStrategy()):
        remedies.append("--config strategy_fsdp2.yaml on several GPUs")
    if module.context_parallel == 1 and allows(module, strategy, context_parallel=2):
        remedies.append("--config strategy_context_parallel.yaml on several GPUs")
    return remedies
