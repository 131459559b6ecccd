"""How processes share the model and the clips, beside the DDP that Lightning brings."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.strategies import (
    DeepSpeedStrategy,
    ModelParallelStrategy,
    Strategy,
)
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from regen_train.model import Spread
from regen_train.model.sharding import spread_like, whole


class FullyShardedStrategy(ModelParallelStrategy):
    """FSDP2: every weight is spread over all processes, and a block's are together only while it computes.

    Its checkpoints are those of any other strategy, whole and in one file, so a run may go on under another one.

    Args:
        process_group_backend: Of torch.distributed; null for nccl on GPUs and gloo on CPUs.
    """

    def __init__(self, process_group_backend: str | None = None) -> None:
        super().__init__(save_distributed_checkpoint=False, process_group_backend=process_group_backend)

    def setup_environment(self) -> None:
        """Join the processes; all of them shard."""
        self._data_parallel_size, self._tensor_parallel_size = self.num_nodes * self.num_processes, 1
        super().setup_environment()

    @property
    def lightning_restore_optimizer(self) -> bool:
        """Have Lightning call `load_optimizer_state_dict`, as for DDP."""
        return True

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Return nothing: `VaceModule` puts what learns into the checkpoint, and the base is not gathered for it."""
        return {}

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """Return the state as one process would have it, on the first process; nothing on the others."""
        state = (
            optimizer._optimizer.state_dict() if isinstance(optimizer, LightningOptimizer) else optimizer.state_dict()
        )
        moments = {}
        for number, values in state["state"].items():
            full = {name: whole(value) if isinstance(value, Tensor) else value for name, value in values.items()}
            if self.is_global_zero:
                moments[number] = {n: v.cpu() if isinstance(v, Tensor) else v for n, v in full.items()}
        return {**state, "state": moments} if self.is_global_zero else {}

    def load_checkpoint(self, checkpoint_path: str | Path, weights_only: bool | None = None) -> dict[str, Any]:
        """Read the file on every process."""
        return self.checkpoint_io.load_checkpoint(checkpoint_path, weights_only=True)

    def load_optimizer_state_dict(self, checkpoint: Any) -> None:
        """Give each process its part of the state."""
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            moments = {
                number: {name: _part(value, parameters[number]) for name, value in values.items()}
                for number, values in state["state"].items()
            }
            optimizer.load_state_dict({**state, "state": moments})


def _part(value: Any, parameter: Tensor) -> Any:
    return spread_like(value, parameter) if isinstance(value, Tensor) and value.shape == parameter.shape else value


def num_shards(trainer: L.Trainer) -> int:
    """Return over how many processes a strategy spreads every weight; 1 where each has them all.

    ZeRO 2, which spreads gradients and moments alone, counts as 1, so that what is estimated is high.
    """
    spreads = isinstance(trainer.strategy, ModelParallelStrategy) or is_zero_3(trainer.strategy)
    return trainer.num_nodes * trainer.num_devices if spreads else 1


def is_zero_3(strategy: Strategy) -> bool:
    """Tell whether DeepSpeed spreads the weights themselves."""
    return isinstance(strategy, DeepSpeedStrategy) and bool(strategy.zero_stage_3)


def spread_of(strategy: Strategy, context_parallel: int) -> Spread:
    """Return how a strategy's processes share the model.

    Args:
        strategy: Once its processes have joined.
        context_parallel: How many neighbours compute each clip together; divides the number of processes.
    """
    weights = strategy.device_mesh["data_parallel"] if isinstance(strategy, ModelParallelStrategy) else None
    if context_parallel == 1:
        return Spread(weights, by_deepspeed=is_zero_3(strategy))
    processes = torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1
    shape = (processes // context_parallel, context_parallel)
    mesh = init_device_mesh(strategy.root_device.type, shape, mesh_dim_names=("clips", "tokens"))
    return Spread(weights, mesh["tokens"].get_group())


def hide_from_ddp(module: L.LightningModule, parameters: Sequence[nn.Parameter]) -> None:
    """Leave parameters out of what DDP sends to all processes at the start, which must be on one device."""
    hidden = {id(parameter) for parameter in parameters}
    hide: Any = DistributedDataParallel._set_params_and_buffers_to_ignore_for_model
    hide(module, [name for name, parameter in module.named_parameters() if id(parameter) in hidden])
