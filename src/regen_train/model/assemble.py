"""Build diffusers' Wan VACE transformer around weights that are already in memory."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from regen_train.model.sharding import full_shape


def empty_transformer(config: Mapping[str, Any]) -> Any:
    """Build the transformer with parameters on the meta device; the rotary tables, which no file holds, are real."""
    from diffusers import WanVACETransformer3DModel

    with torch.device("meta"):
        module = WanVACETransformer3DModel.from_config(dict(config))
    full = module.config
    module.rope = type(module.rope)(full.attention_head_dim, full.patch_size, full.rope_max_seq_len)
    assert not any(buffer.is_meta for buffer in module.buffers())
    return module


def assign_state(module: Any, state: Mapping[str, Tensor], dtype: torch.dtype) -> Any:
    """Put weights into an empty transformer, with diffusers' own rule of what stays in fp32 whatever ``dtype`` is.

    Raises:
        ValueError: A tensor is missing, unexpected or of another shape; lists them all.
    """
    compare_states(state, module.state_dict(), what="weights of a Wan VACE transformer")
    keep = set(module._keep_in_fp32_modules)
    cast = {name: tensor.to(torch.float32 if keep & set(name.split(".")) else dtype) for name, tensor in state.items()}
    module.load_state_dict(cast, assign=True)
    return module.requires_grad_(False).eval()


def keep_time_embedding_precise(module: Any) -> None:
    """Take the time embedding out of autocast: Wan computes it in fp32, and so does diffusers without autocast.

    Autocast would move it by 0.4 %; without it, a bf16 model under autocast equals diffusers' own bf16 model.
    """
    embedder = module.condition_embedder.time_embedder
    # A partial, unlike a closure, still belongs to the right module after a deep copy.
    embedder.forward = partial(_without_autocast, type(embedder).forward, embedder)


def keep_trained_norms_quiet(module: Any) -> None:
    """Run query and key norms with fp32 weights on fp32 input: on bf16 input PyTorch warns and leaves its fast path."""
    norms: list[Any] = [part for part in module.modules() if isinstance(part, torch.nn.RMSNorm)]
    for norm in norms:
        if norm.weight.dtype == torch.float32:
            norm.forward = partial(_in_float32, type(norm).forward, norm)


def _in_float32(forward: Callable[..., Tensor], norm: Any, x: Tensor) -> Tensor:
    return forward(norm, x.float()).to(x.dtype)


def _without_autocast(forward: Callable[..., Tensor], embedder: Any, sample: Tensor, *rest: Any) -> Tensor:
    with torch.autocast(sample.device.type, enabled=False):
        return forward(embedder, sample, *rest)


def compare_states(given: Mapping[str, Tensor], expected: Mapping[str, Tensor], *, what: str) -> None:
    """Check that the names and shapes of tensors agree.

    Raises:
        ValueError: They do not; lists all that are missing, unexpected or of another shape.
    """
    faults = [f"missing {name}" for name in sorted(expected.keys() - given.keys())]
    faults += [f"unexpected {name}" for name in sorted(given.keys() - expected.keys())]
    faults += [
        f"{name} has shape {list(given[name].shape)}, expected {list(full_shape(expected[name]))}"
        for name in sorted(given.keys() & expected.keys())
        if given[name].shape != full_shape(expected[name])
    ]
    if faults:
        raise ValueError(f"{what} do not fit, {len(faults)} faults: {'; '.join(faults)}")
