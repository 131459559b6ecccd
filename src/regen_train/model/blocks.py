"""Quantize, compile and swap the blocks of a model, in this order, and refuse what does not go together."""

from regen_train.model.block_options import BlockOptions
from regen_train.model.block_swap import check_num_swapped, swap_blocks
from regen_train.model.checkpointing import Checkpointing, Policy
from regen_train.model.compiling import set_compile
from regen_train.model.lora import LoraSpec
from regen_train.model.quantized_linear import require
from regen_train.model.quantizing import quantize_base
from regen_train.model.wan_vace import Trainable, WanVace


def check_blocks(
    options: BlockOptions,
    *,
    lora: LoraSpec | None = None,
    trainable: Trainable = "lora",
    checkpointing: Checkpointing = "none",
    fully_sharded: bool = False,
    shares_tokens: bool = False,
) -> None:
    """Refuse what does not go together, before processes join or gigabytes are loaded.

    Args:
        options: What is to be done to the blocks.
        lora: As for `load_wan_vace`.
        trainable: As there.
        checkpointing: As there; what ``auto`` takes is checked by `set_blocks`.
        fully_sharded: Whether FSDP2 spreads every weight.
        shares_tokens: Whether several processes compute each clip together.

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
        if fully_sharded:
            faults.append(
                f"{name} needs whole weights, which FSDP2 spreads; leave it out or take --trainer.strategy ddp"
            )
    if options.quantize != "none" and lora is not None and lora.use_dora:
        faults.append(
            f"lora.use_dora learns from the base's own weights, and blocks.quantize: {options.quantize} "
            "does not keep them"
        )
    if options.compile and shares_tokens:
        faults.append(
            "blocks.compile is not made for context_parallel, whose processes exchange tokens within a block; set "
            "blocks.compile: false or context_parallel: 1"
        )
    if options.compile and options.swap > 0 and checkpointing == "selective":
        faults.append("blocks.swap with blocks.compile needs checkpointing none, full or offload, got selective")
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
    check_blocks(options, checkpointing=checkpointing)
    if options.quantize != "none":
        model.quantization = quantize_base(model, options.quantize)
    if options.compile:
        dropout = model.lora is not None and model.lora.dropout > 0
        set_compile(model.transformer, policy=checkpointing, dropout=dropout)
    if options.swap:
        model.swap = swap_blocks(model.transformer, options.swap, keeps_weights=checkpointing == "none")
