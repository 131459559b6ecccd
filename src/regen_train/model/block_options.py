"""How the transformer's blocks are kept and computed."""

from dataclasses import dataclass
from typing import Literal, get_args

Compile = Literal["none", "blocks"]
Quantized = Literal["int8", "fp8", "nf4"]
QuantizeBase = Literal["none"] | Quantized
QUANTIZED: tuple[Quantized, ...] = get_args(Quantized)


@dataclass(frozen=True)
class BlockOptions:
    """What is done to the blocks once the model is whole; what learns computes the same, up to what each says.

    Args:
        compile: ``blocks`` = compile each kind of block once for every shape; see `set_compile`.
        quantize_base: What frozen layers are kept in, ``none`` = as they are; see `quantize_base`. Such a model can be
            trained and sampled from, but not merged: its own weights are gone.
        block_swap: How many main blocks wait in CPU memory; see `BlockSwap`.
    """

    compile: Compile = "none"
    quantize_base: QuantizeBase = "none"
    block_swap: int = 0
