"""Compile the blocks that repeat, each kind once for every shape; not the model around them."""

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MethodType
from typing import Any

import torch
from torch._dynamo.utils import calculate_time_spent, counters

from regen_train.model.checkpointing import Policy, run_but_attention, set_checkpointing, something_learns

logger = logging.getLogger(__name__)

BACKEND = "inductor"
# A shape takes up to eight graphs: VACE's first block, its others, the main blocks before and after the first hint, in
# training and in validation. So there is room for 32 shapes. With PyTorch's own limit, eight, two would be too many.
MOST_GRAPHS = 256
CACHE_VARIABLE = "TORCHINDUCTOR_CACHE_DIR"


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
    Kernels are kept on disk for later runs: see `keep_kernels`. On a CPU, a run that is killed while it compiles can
    leave a torn kernel there, which PyTorch fails to load until the folder is removed.

    Parameters keep their names. Gradients equal the plain path's up to the order of sums, and in bf16 up to rounding,
    which happens less often in fused kernels.

    Args:
        transformer: diffusers' ``WanVACETransformer3DModel``, with its LoRA, if it has one.
        policy: The checkpointing, which must be set before. ``full`` and ``offload`` compute compiled blocks again; for
            ``selective`` the compiler itself is told to keep attention, in each block's forward.
        dropout: Whether random numbers must be those that the plain path draws; they are not fused then.
    """
    keep_kernels()
    options = {"fallback_random": True} if dropout and BACKEND == "inductor" else None
    blocks = [*transformer.vace_blocks, *transformer.blocks]
    settings: dict[str, Any] = {"fullgraph": True, "dynamic": False, "backend": BACKEND, "options": options}
    compiler: Any = torch._dynamo.config
    compiler.recompile_limit = max(compiler.recompile_limit, MOST_GRAPHS)
    compiler.accumulated_recompile_limit = max(compiler.accumulated_recompile_limit, MOST_GRAPHS)
    # else blocks are cut up by DDP's buckets, to send gradients early; block by block they are sent early as it is
    compiler.optimize_ddp = False
    compiled = {kind: torch.compile(kind.forward, **settings) for kind in (type(block) for block in blocks)}
    but_attention = torch.compile(run_but_attention, **settings)
    for block in blocks:
        # Not by `Module.compile`: hooks of diffusers and FSDP2, which no compiler sees through, go around `forward`.
        forward = partial(compiled[type(block)], block)
        keeping = partial(but_attention, MethodType(type(block).forward, block))
        block.forward = partial(_choose, block, keeping, forward) if policy == "selective" else forward
    if policy == "selective":
        set_checkpointing(transformer, "none")
    logger.info(
        "blocks.compile: the first step of every shape takes minutes unless cached in %s; at most %d graphs, eight a "
        "shape",
        os.environ.get(CACHE_VARIABLE, "the temporary folder"),
        MOST_GRAPHS,
    )


def _choose(block: Any, learning: Callable[..., Any], otherwise: Callable[..., Any], *args: Any) -> Any:
    return (learning if something_learns(block, args) else otherwise)(*args)


def keep_kernels() -> None:
    """Have PyTorch keep compiled kernels where other nodes and later days find them.

    Where the user has named no folder, that is ``regen_train/inductor`` in ``XDG_CACHE_HOME`` or ``~/.cache``. The
    temporary folder, PyTorch's own choice, each machine has for itself and loses at a restart; it stays where there is
    no home to write to.
    """
    if CACHE_VARIABLE in os.environ:
        return
    try:
        home = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
        folder = home / "regen_train" / "inductor"
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError) as error:  # the latter where nobody has a home
        logger.warning(
            "blocks.compile: kernels go to the temporary folder: %s; %s names another", error, CACHE_VARIABLE
        )
        return
    os.environ[CACHE_VARIABLE] = str(folder)


def compilation() -> Compilation:
    """Return what this process has compiled so far."""
    return Compilation(counters["stats"]["unique_graphs"], float(calculate_time_spent()["total_wall_time"]))
