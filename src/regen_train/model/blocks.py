"""Quantize, compile and swap the blocks of a model, in this order, and refuse what does not go together."""

from regen_train.model.block_options import BlockOptions
from regen_train.model.block_swap import check_num_swapped, swap_blocks
from regen_train.model.checkpointing import Policy
from regen_train.model.compiling import set_compile
from regen_train.model.lora import LoraSpec
from regen_train.model.quantized_linear import require
from regen_train.model.quantizing import quantize_base
from regen_train.model.sharding import Spread
from regen_train.model.wan_vace import Trainable, WanVace

_ALONE = Spread()


def check_blocks(
    options: BlockOptions, *, lora: LoraSpec | None = None, trainable: Trainable = "lora", spread: Spread = _ALONE
) -> None:
    """Refuse what does not go together, before gigabytes are loaded; the arguments are those of `load_wan_vace`.

    Raises:
        ValueError: Something does not; lists all faults.
        ImportError: A quantization needs a package that is not installed.
    """
    faults = []
    if options.swap < 0:
        faults.append(f"blocks.swap must be at least 0, got {options.swap}")
    frozen = {f"blocks.quantize: {options.quantize}": options.quantize != "none"}
    frozen[f"blocks.swap: {options.swap}"] = options.swap > 0
    for name in (name for name, used in frozen.items() if used):
        if trainable == "all":
            faults.append(f"{name} is for frozen weights, and trainable: all leaves none")
        if spread.weights is not None:
            faults.append(f"{name} needs whole weights, which FSDP2 spreads; use strategy ddp")
    if options.quantize != "none" and lora is not None and lora.use_dora:
        faults.append(
            f"lora.use_dora learns from the base's own weights, and blocks.quantize: {options.quantize} "
            "does not keep them"
        )
    if options.compile and spread.lockstep:
        faults.append("blocks.compile is not made for FSDP2 or context_parallel")
    if faults:
        raise ValueError("; ".join(faults))
    if options.quantize != "none":
        require(options.quantize)


def set_blocks(model: WanVace, options: BlockOptions, *, checkpointing: Policy) -> None:
    """Do to the blocks what the options say.

    Args:
        model: With its LoRA, checkpointing and attention.
        options: As `check_blocks` let them pass.
        checkpointing: The policy that is set.

    Raises:
        ValueError: There are fewer main blocks than are to be swapped, or the policy does not go with the options.
    """
    check_num_swapped(options.swap, len(model.transformer.blocks))
    if options.swap and options.compile and checkpointing == "selective":
        raise ValueError("blocks.swap with blocks.compile needs checkpointing none, full or offload, got selective")
    if options.quantize != "none":
        model.quantization = quantize_base(model, options.quantize)
    if options.compile:
        dropout = model.lora is not None and model.lora.dropout > 0
        set_compile(model.transformer, policy=checkpointing, dropout=dropout)
    if options.swap:
        model.swap = swap_blocks(model.transformer, options.swap, keeps_weights=checkpointing == "none")
