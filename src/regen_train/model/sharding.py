"""Weights spread over processes by PyTorch's FSDP2: each has a part, and a block's are whole only while it computes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed import ProcessGroup
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, distribute_tensor


@dataclass(frozen=True)
class Spread:
    """How processes share one model.

    Args:
        weights: The processes over which every weight is spread, as a mesh of one axis; None where each has them all.
        tokens: The processes that compute each clip together; None where each computes its own clips.
    """

    weights: DeviceMesh | None = None
    tokens: ProcessGroup | None = None

    @property
    def together(self) -> bool:
        """Whether all processes must compute at the same time."""
        return self.weights is not None or self.tokens is not None


def shard(transformer: Any, mesh: DeviceMesh) -> None:
    """Spread a transformer's weights, frozen and learning, over a mesh of one axis: block by block, then the rest.

    Args:
        transformer: diffusers' ``WanVACETransformer3DModel``, best on the meta device.
        mesh: All processes that train together.
    """
    from torch.distributed.fsdp import fully_shard

    for block in (*transformer.vace_blocks, *transformer.blocks):
        fully_shard(block, mesh=mesh)
    fully_shard(transformer, mesh=mesh)


@torch.no_grad()
def materialize(module: nn.Module, name: str, value: Tensor, device: torch.device) -> None:
    """Give a parameter that has only its shape this process's part of its value.

    Args:
        module: What holds it.
        name: Its name from there.
        value: The whole tensor, the same on every process.
        device: Where the part shall lie.
    """
    owner_name, _, leaf = name.rpartition(".")
    owner = module.get_submodule(owner_name)
    outline: nn.Parameter = getattr(owner, leaf)
    # a copy, since a part of the value would keep the whole of it alive
    part = torch.empty_like(outline, device=device)
    part.copy_(spread_like(value.to(part.dtype), part))
    setattr(owner, leaf, nn.Parameter(part, requires_grad=outline.requires_grad))


def is_sharded(tensor: Tensor) -> bool:
    """Whether a tensor is one process's part of a larger one."""
    return isinstance(tensor, DTensor)


def whole(tensor: Tensor) -> Tensor:
    """Return a tensor whole; of a sharded one all processes must ask together."""
    if hasattr(tensor, "ds_id"):  # DeepSpeed's, of ZeRO stage 3
        from deepspeed.runtime.zero import GatheredParameters

        with GatheredParameters([tensor]):
            return tensor.detach().clone()
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


@torch.no_grad()
def put(value: Tensor, parameter: Tensor) -> None:
    """Set a parameter from the whole value; of a sharded one all processes must do so together."""
    if hasattr(parameter, "ds_id"):
        from deepspeed.runtime.zero import GatheredParameters

        with GatheredParameters([parameter], modifier_rank=0):
            parameter.copy_(value)
    else:
        parameter.copy_(spread_like(value, parameter))


def own_part(tensor: Tensor) -> Tensor:
    """Return this process's part of a tensor, in the same memory; all of it where it is not sharded."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def spread_like(value: Tensor, pattern: Tensor) -> Tensor:
    """Return a whole tensor sharded as another one is; no process sends anything, each takes its own part."""
    if not isinstance(pattern, DTensor) or isinstance(value, DTensor):
        return value
    return distribute_tensor(value, pattern.device_mesh, pattern.placements, src_data_rank=None)


def gathered(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return whole copies in fp32 on the CPU.

    Of sharded tensors only the first process gets them, the others nothing; all must ask together.
    """
    copies = {}
    for name, tensor in tensors.items():
        full = whole(tensor).detach()
        if not is_sharded(tensor) or torch.distributed.get_rank() == 0:
            copies[name] = full.to("cpu", torch.float32, copy=True)
    return copies
