"""Which kernel computes attention, by the names of diffusers' dispatcher."""

import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from regen_train.model.checkpointing import Policy, keeps

AUTO = "auto"
_DEFAULT = "native"


@dataclass(frozen=True)
class Trial:
    """What came of computing attention once, forward and backward.

    Args:
        fault: Why it cannot be used, None where it can.
        operators: The operators that it called on the way, such as ``aten::mm``.
    """

    fault: str | None
    operators: frozenset[str]


def set_attention(transformer: Any, name: str, *, dtype: torch.dtype, checkpointing: Policy) -> None:
    """Choose the kernel of every attention, after it has computed a small one forward and backward.

    The trial runs on the current GPU where there is one, else on the CPU. Other models in the process keep theirs.

    Args:
        transformer: diffusers' ``WanVACETransformer3DModel``.
        name: ``auto`` leaves the choice to PyTorch, or to diffusers' ``DIFFUSERS_ATTN_BACKEND``; else a name of
            diffusers' dispatcher: ``native``, ``_native_flash``, ``_native_cudnn``, ``flash``, ``_flash_3`` and so on.
        dtype: Precision of the computation.
        checkpointing: ``selective`` needs a kernel whose output it can keep.

    Raises:
        ValueError: There is no such name, or it cannot be trained with here; says why, and which ones can.
    """
    from diffusers.models.attention_dispatch import attention_backend
    from diffusers.utils.constants import DIFFUSERS_ATTN_BACKEND

    named = name != AUTO
    if not named and (DIFFUSERS_ATTN_BACKEND == _DEFAULT or checkpointing != "selective"):
        return
    name = name if named else DIFFUSERS_ATTN_BACKEND
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    width = int(transformer.config.attention_head_dim)
    if name not in known_backends():
        raise ValueError(
            f"attention must be auto or a name of diffusers' dispatcher, got {name!r}; {_list(dtype, width)}"
        )
    trial = try_backend(name, device=device, dtype=dtype, head_dim=width)
    if trial.fault is not None:
        raise ValueError(f"attention: {name} cannot be used on {device}: {trial.fault}; {_list(dtype, width)}")
    if checkpointing == "selective" and not any(keeps(operator) for operator in trial.operators):
        raise ValueError(
            f"checkpointing: selective keeps the outputs of fused attention, and attention: {name}"
            + " (DIFFUSERS_ATTN_BACKEND)" * (not named)
            + " calls none that it knows; use checkpointing: full, or another attention"
        )
    if named:
        with attention_backend(name):  # set_attention_backend would also change it for all other models
            transformer.set_attention_backend(name)


def known_backends() -> list[str]:
    """Return the names of diffusers' dispatcher."""
    from diffusers.models.attention_dispatch import AttentionBackendName

    return [backend.value for backend in AttentionBackendName]


def try_backend(name: str, *, device: torch.device, dtype: torch.dtype, head_dim: int) -> Trial:
    """Compute a small attention forward and backward; names with ``hub`` fetch their kernel from the hub first."""
    from diffusers.models.attention_dispatch import attention_backend, dispatch_attention_fn

    query, key, value = (
        torch.ones(1, 32, 2, head_dim, device=device, dtype=dtype, requires_grad=True) for _ in range(3)
    )
    with warnings.catch_warnings(), _Operators() as seen:
        warnings.simplefilter("ignore")  # PyTorch says of every kernel by itself why it was not taken
        try:
            with attention_backend(name):
                out = dispatch_attention_fn(query, key, value)
            if not out.requires_grad:
                return Trial("it has no backward pass", frozenset())
            out.sum().backward()
        except Exception as error:  # third-party kernels raise what they like
            return Trial(str(error).strip().partition("\n")[0] or type(error).__name__, frozenset())
    return Trial(None, frozenset(seen.names))


def _list(dtype: torch.dtype, head_dim: int) -> str:
    """Say which backends can be trained with here; why another cannot is told to who names it."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    local = [name for name in known_backends() if "hub" not in name]
    faults = {name: try_backend(name, device=device, dtype=dtype, head_dim=head_dim).fault for name in local}
    can = ", ".join(name for name, fault in faults.items() if fault is None)
    hub = ", ".join(name for name in known_backends() if "hub" in name)
    return (
        f"on {device} in {dtype} can be used: auto, {can}; untried, since the package kernels fetches them from the "
        f"hub: {hub}"
    )


class _Operators(TorchDispatchMode):
    """Notes the operators that are called."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names: set[str] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.names.add(func.name())
        return func(*args, **(kwargs or {}))
