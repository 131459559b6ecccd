"""What of a forward pass is kept for the backward pass, and what is computed again."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from regen_train.model.offload import OffloadedInputs

Policy = Literal["none", "selective", "full", "offload"]
POLICIES: tuple[Policy, ...] = get_args(Policy)
Checkpointing = Literal[Policy, "auto"]

# Operators whose outputs `selective` keeps: every fused kernel behind PyTorch's scaled dot product attention, and
# FlashAttention's own, of which version 2 and 3 register under these names.
KEPT_NAMESPACES = ("flash_attn", "flash_attn_3")
_KEPT_PREFIX = "aten::_scaled_dot_product_"

BlockRunner = Callable[..., Any]


def set_checkpointing(transformer: Any, policy: Policy) -> None:
    """Choose what the transformer's blocks keep. Gradients are the same under every policy.

    Args:
        transformer: diffusers' ``WanVACETransformer3DModel``.
        policy: ``none`` keeps everything. ``full`` keeps the input of each block and computes the block again.
            ``selective`` keeps the outputs of its attention as well, the costly part. ``offload`` is ``full`` with the
            inputs in pinned CPU memory; its overlapped copies are untested on CUDA.
    """
    if policy == "none":
        transformer.disable_gradient_checkpointing()
        return
    runners: dict[Policy, BlockRunner] = {
        "selective": run_but_attention,
        "full": run_again,
        "offload": OffloadedInputs(),
    }
    transformer.enable_gradient_checkpointing(partial(_where_something_learns, runners[policy]))


def run_again(block: Any, *args: Any) -> Any:
    """Run a block and keep its inputs only."""
    return checkpoint(block.__call__, *args, use_reentrant=False)


def run_but_attention(block: Callable[..., Any], *args: Any) -> Any:
    """Run a block, or its bare forward, and keep its inputs and the outputs of its attention."""
    contexts = partial(create_selective_checkpoint_contexts, _keep_attention)
    return checkpoint(block, *args, use_reentrant=False, context_fn=contexts)


def keeps(operator: str) -> bool:
    """Tell whether ``selective`` keeps the outputs of an operator, such as ``aten::mm``."""
    return operator.startswith(_KEPT_PREFIX) or operator.partition("::")[0] in KEPT_NAMESPACES


def _keep_attention(context: Any, operator: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
    return CheckpointPolicy.MUST_SAVE if keeps(operator.name()) else CheckpointPolicy.PREFER_RECOMPUTE


def something_learns(block: Any, args: Sequence[Any]) -> bool:
    """Tell whether a block needs a backward pass; before the first hint that learns none does."""
    needed = any(isinstance(arg, Tensor) and arg.requires_grad for arg in args)
    return torch.is_grad_enabled() and (needed or any(p.requires_grad for p in block.parameters()))


def _where_something_learns(run: BlockRunner, block: Any, *args: Any) -> Any:
    # elsewhere no bookkeeping, no kept outputs, no copies
    return run(block, *args) if something_learns(block, args) else block(*args)
