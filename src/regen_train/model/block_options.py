"""How the transformer's blocks are kept and computed."""

from dataclasses import dataclass
from typing import Literal, get_args

Quantized = Literal["int8", "fp8", "nf4"]
Quantize = Literal["none", Quantized]
QUANTIZED: tuple[Quantized, ...] = get_args(Quantized)


@dataclass(frozen=True)
class BlockOptions:
    """What is done to the blocks once the model is whole; what learns computes the same, up to what each says.

    Args:
        compile: Have torch.compile fuse what lies between the matrix products of each block. The first step of every
            bucket takes minutes; what was compiled is kept for later runs in ``~/.cache/regen_train``, or in the folder
            that ``TORCHINDUCTOR_CACHE_DIR`` names.
        quantize: What frozen layers are kept in: ``none`` = as they are; ``int8`` or ``fp8`` = half the memory of bf16;
            ``nf4`` = about a quarter, by bitsandbytes, which leaves a third of the whole base. The LoRA is as precise
            as ever; the start-up summary says how far the base moves. Such a model cannot be merged, its own weights
            are gone; exports go with the base as it was.
        swap: How many of the main blocks wait in pinned CPU memory and are copied to the GPU ahead of their use, at
            equal gradients: from 3 up, each saves its weights there. Every process keeps its own copy.
    """

    compile: bool = False
    quantize: Quantize = "none"
    swap: int = 0
