"""What goes together: a strategy, a number of processes, and the options of model and optimizer."""

from typing import Any

import lightning as L
from lightning.pytorch.strategies import (
    DDPStrategy,
    DeepSpeedStrategy,
    FSDPStrategy,
    ModelParallelStrategy,
    SingleDeviceStrategy,
    Strategy,
)

from regen_train.data.place import check_groups
from regen_train.model import BlockOptions, Checkpointing, LoraSpec
from regen_train.model.blocks import check_blocks
from regen_train.model.wan_vace import Trainable
from regen_train.training.strategies import FullyShardedStrategy, is_zero_3
from regen_train.training.zero import ZeroStrategy


def check_run(trainer: L.Trainer, module: Any) -> None:
    """Refuse what does not go with a trainer's strategy and processes, which need not have joined yet.

    Args:
        trainer: Of the run.
        module: The `VaceModule` that it trains.

    Raises:
        ValueError: Says what does not, and what to take in its place.
        ImportError: A quantization needs a package that is not installed.
    """
    check_groups(trainer.num_nodes * trainer.num_devices, module.context_parallel)
    check_strategy(
        trainer.strategy,
        optimizer=module.optimizer_spec.name,
        context_parallel=module.context_parallel,
        blocks=module.blocks,
        lora=module.lora,
        trainable=module.trainable,
        checkpointing=module.checkpointing,
    )


def allows(
    module: Any,
    strategy: Strategy,
    *,
    blocks: BlockOptions | None = None,
    checkpointing: Checkpointing | None = None,
    context_parallel: int | None = None,
) -> bool:
    """Tell whether a run would be let pass under a strategy, with other options where they are given.

    A quantization whose package is not installed passes: it can be.

    Args:
        module: The `VaceModule` of the run.
        strategy: To run under.
        blocks: In place of the module's.
        checkpointing: In place of the module's.
        context_parallel: In place of the module's.
    """
    together = context_parallel or module.context_parallel
    try:
        check_context_parallel(together, module.lora)
        check_strategy(
            strategy,
            optimizer=module.optimizer_spec.name,
            context_parallel=together,
            blocks=blocks or module.blocks,
            lora=module.lora,
            trainable=module.trainable,
            checkpointing=checkpointing or module.checkpointing,
        )
    except ImportError:
        return True
    except ValueError:
        return False
    return True


def check_strategy(
    strategy: Strategy,
    *,
    optimizer: str,
    context_parallel: int,
    blocks: BlockOptions,
    lora: LoraSpec | None = None,
    trainable: Trainable = "lora",
    checkpointing: Checkpointing = "none",
) -> None:
    """Refuse a strategy whose checkpoints nothing here could read, and options that it was not made for.

    Args:
        strategy: The trainer's.
        optimizer: ``optimizer.name``.
        context_parallel: How many neighbours compute each clip together.
        blocks: Whether the blocks are compiled, quantized or swapped.
        lora: What learns; None if it is not a LoRA.
        trainable: What learns, in a word.
        checkpointing: The policy.

    Raises:
        ValueError: Names every fault and what to take in its place.
        ImportError: A quantization needs a package that is not installed.
    """
    zero, spreads = isinstance(strategy, ZeroStrategy), isinstance(strategy, FullyShardedStrategy)
    faults = []
    if not (zero or spreads or isinstance(strategy, SingleDeviceStrategy | DDPStrategy)) or (
        isinstance(strategy, DeepSpeedStrategy) and not zero
    ):
        faults.append(_unreadable(type(strategy).__name__, _in_place_of(strategy)))
    if optimizer == "muon" and (zero or spreads):
        faults.append(
            f"model.optimizer.name: muon needs whole matrices, which {'ZeRO' if zero else 'FSDP2'} spreads; "
            "take adamw, or --trainer.strategy ddp"
        )
    if context_parallel > 1 and zero:
        faults.append(
            f"model.context_parallel: {context_parallel} is not made for ZeRO; take --config strategy_fsdp2.yaml or "
            "--trainer.strategy ddp"
        )
    if blocks != BlockOptions() and zero:
        faults.append(f"model.blocks: {blocks} is not made for ZeRO; take --trainer.strategy ddp")
    try:
        check_blocks(
            blocks,
            lora=lora,
            trainable=trainable,
            checkpointing=checkpointing,
            fully_sharded=spreads,
            shares_tokens=context_parallel > 1,
        )
    except ValueError as error:
        faults.append(f"model: {error}")
    except ImportError:
        if not faults:  # what no package mends comes first
            raise
    if faults:
        raise ValueError("\n".join(faults))


def check_strategy_name(name: object) -> None:
    """Refuse a strategy of Lightning's whose checkpoints nothing here could read, before it asks for what it needs.

    Args:
        name: ``trainer.strategy``.

    Raises:
        ValueError: It is one; names the one to take in its place.
    """
    names = {
        "deepspeed": "strategy_zero2.yaml",
        "deepspeed_stage_3": "strategy_zero3.yaml",
        "fsdp": "strategy_fsdp2.yaml",
    }
    taken = [config for start, config in names.items() if isinstance(name, str) and name.startswith(start)]
    if taken:
        raise ValueError(_unreadable(str(name), f"--config {taken[-1]} in its place"))


def _unreadable(name: str, remedy: str) -> str:
    return f"trainer.strategy: {name} writes checkpoints that cannot be read here; take {remedy}"


def _in_place_of(strategy: Strategy) -> str:
    """Return the option for what a strategy was taken for."""
    if isinstance(strategy, DeepSpeedStrategy):
        return f"--config strategy_zero{3 if is_zero_3(strategy) else 2}.yaml in its place"
    if isinstance(strategy, FSDPStrategy | ModelParallelStrategy):
        return "--config strategy_fsdp2.yaml in its place"
    return "--trainer.strategy ddp"


def check_context_parallel(context_parallel: int, lora: LoraSpec | None) -> None:
    """Refuse what does not go together.

    Args:
        context_parallel: How many neighbours compute each clip together.
        lora: What learns; None if it is not a LoRA.

    Raises:
        ValueError: No number of processes, or a LoRA with dropout, which the processes of a clip would draw each anew.
    """
    if context_parallel < 1:
        raise ValueError(f"model.context_parallel must be at least 1, got {context_parallel}")
    if context_parallel > 1 and lora is not None and lora.dropout > 0:
        raise ValueError(
            "model.lora.dropout draws per token, so with model.context_parallel a sample would be given other draws; "
            f"set one of them: dropout 0 (got {lora.dropout}) or context_parallel 1 (got {context_parallel})"
        )
