"""Compile the blocks that repeat, each kind once for every shape; not the model around them."""

import logging
from dataclasses import dataclass
from typing import Any

import torch
from torch._dynamo.utils import calculate_time_spent, counters

from regen_train.model.checkpointing import Policy, run_but_attention, set_checkpointing

logger = logging.getLogger(__name__)

BACKEND = "inductor"
# A shape takes up to eight graphs: VACE's first block, its others, the main blocks before and after the first hint, in
# training and in validation. So there is room for 32 shapes. With PyTorch's own limit, eight, two would be too many.
MOST_GRAPHS = 256


@dataclass(frozen=True)
class Compilation:
    """What a process has compiled.

    Args:
        graphs: Their number; a forward pass counts together with its backward pass.
        seconds: What that took, loading from the cache on disk included.
    """

    graphs: int
    seconds: float

    def __sub__(self, before: "Compilation") -> "Compilation":
        return Compilation(self.graphs - before.graphs, self.seconds - before.seconds)


def set_compile(transformer: Any, *, policy: Policy, dropout: bool) -> None:
    """Have ``torch.compile`` fuse what lies between the matrix products of each block.

    A block is compiled when it first meets a shape: a bucket with or without reference frame, training or validation.
    Kernels are kept on disk for later runs, in the folder that the environment variable ``TORCHINDUCTOR_CACHE_DIR``
    names, else in the machine's temporary one. On a CPU, a run that is killed while it compiles can leave a torn kernel
    there, which PyTorch fails to load until the folder is removed.

    Parameters keep their names. Gradients equal the plain path's up to the order of sums, and in bf16 up to rounding,
    which happens less often in fused kernels.

    Args:
        transformer: diffusers' ``WanVACETransformer3DModel``, with its LoRA, if it has one.
        policy: The checkpointing, which must be set before. ``full`` and ``offload`` compute compiled blocks again; for
            ``selective`` the compiler itself is told to keep attention.
        dropout: Whether random numbers must be those that the plain path draws; they are not fused then.
    """
    options = {"fallback_random": True} if dropout and BACKEND == "inductor" else None
    settings: dict[str, Any] = {"fullgraph": True, "dynamic": False, "backend": BACKEND, "options": options}
    limits: Any = torch._dynamo.config
    limits.recompile_limit = max(limits.recompile_limit, MOST_GRAPHS)
    limits.accumulated_recompile_limit = max(limits.accumulated_recompile_limit, MOST_GRAPHS)
    transformer.compile_repeated_blocks(**settings)
    if policy == "selective":
        set_checkpointing(transformer, policy, run=torch.compile(run_but_attention, **settings))
    logger.info(
        "blocks.compile: the first step of every shape takes minutes unless cached; at most %d graphs, eight a shape",
        MOST_GRAPHS,
    )


def compilation() -> Compilation:
    """Return what this process has compiled so far."""
    return Compilation(counters["stats"]["unique_graphs"], float(calculate_time_spent()["total_wall_time"]))
