"""Weights spread over processes, by PyTorch's FSDP2 or DeepSpeed's ZeRO stage 3: each has a part of every one."""

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
        by_deepspeed: Whether DeepSpeed spreads every weight, as ZeRO stage 3 does, once the model is loaded.
    """

    weights: DeviceMesh | None = None
    tokens: ProcessGroup | None = None
    by_deepspeed: bool = False

    @property
    def lockstep(self) -> bool:
        """Whether every forward pass must run on all processes at the same time: one alone would wait for ever."""
        return self.weights is not None or self.tokens is not None or self.by_deepspeed


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
    return isinstance(tensor, DTensor) or _is_deepspeeds(tensor)


def _is_deepspeeds(tensor: Tensor) -> bool:
    """Whether ZeRO stage 3 has spread it: the tensor is empty, its part and its shape are stated beside."""
    return hasattr(tensor, "ds_id")


def full_shape(tensor: Any) -> torch.Size:
    """Return the shape that a tensor has whole; no process sends anything."""
    return torch.Size(tensor.ds_shape if _is_deepspeeds(tensor) else tensor.shape)


def whole(tensor: Tensor) -> Tensor:
    """Return a tensor whole; of a sharded one all processes must ask together."""
    if _is_deepspeeds(tensor):
        from deepspeed.runtime.zero import GatheredParameters

        with GatheredParameters([tensor]):
            return tensor.detach().clone()
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


@torch.no_grad()
def put(value: Tensor, parameter: Tensor) -> None:
    """Set a parameter from the whole value; of a sharded one all processes must do so together."""
    if _is_deepspeeds(parameter):
        from deepspeed.runtime.zero import GatheredParameters

        with GatheredParameters([parameter], modifier_rank=0):
            parameter.copy_(value)
    else:
        parameter.copy_(spread_like(value, parameter))


def own_part(tensor: Any) -> Tensor:
    """Return this process's part of a tensor, in the same memory; all of it where it is not sharded."""
    if _is_deepspeeds(tensor):
        part: Tensor = tensor.ds_tensor
        left = tensor.ds_numel - torch.distributed.get_rank(tensor.ds_process_group) * part.numel()
        return part[: max(left, 0)]  # behind the last weight is memory that nothing was written to
    own: Tensor = tensor.to_local() if isinstance(tensor, DTensor) else tensor
    return own


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
