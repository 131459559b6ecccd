"""DeepSpeed's ZeRO, with the checkpoints of every other strategy."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch.plugins.precision import DeepSpeedPrecision
from lightning.pytorch.strategies import DeepSpeedStrategy, Strategy
from torch import Tensor, nn
from torch.optim import Optimizer

from regen_train.model.sharding import whole

_MOMENTS = ("exp_avg", "exp_avg_sq")


class ZeroStrategy(DeepSpeedStrategy):
    """ZeRO of DeepSpeed, on GPUs: optimizer and gradients, or all weights too, are spread over all processes.

    Weights stay in the precision they were loaded in, and computation is cast as under any other strategy. Checkpoints
    are whole and in one file: a run may go on under another strategy.

    Args:
        stage: 2 spreads gradients and the optimizer's state; 3 the weights as well, once each process has loaded them
            into CPU memory. FSDP2 does as stage 3 does and loads them in parts.
    """

    def __init__(self, stage: Literal[2, 3] = 2) -> None:
        if find_spec("deepspeed") is None:
            raise ImportError(
                "ZeRO needs DeepSpeed: pip install -c constraints.txt '.[deepspeed]'; "
                "or take --config strategy_fsdp2.yaml"
            )
        super().__init__(stage=stage, logging_batch_size_per_gpu=1, exclude_frozen_parameters=True)

    def setup_environment(self) -> None:
        """Join the processes."""
        self.precision_plugin = _AsLoaded()
        self.join()

    def join(self) -> None:
        """Join the processes as DeepSpeed does, each on a GPU of its own."""
        super().setup_environment()

    @contextmanager
    def model_sharded_context(self) -> Iterator[None]:
        """Load as always: DeepSpeed would cut weights up before they have values."""
        yield

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Return nothing: `VaceModule` puts what learns into the checkpoint."""
        return {}

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """Return the state as one process would have it."""
        return zero_state(self.deepspeed_engine.optimizer, self._learning())

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: str | Path, storage_options: Any = None) -> None:
        """Write one file, as every other strategy does."""
        Strategy.save_checkpoint(self, checkpoint, filepath, storage_options)

    def load_checkpoint(self, checkpoint_path: str | Path, weights_only: bool | None = None) -> dict[str, Any]:
        """Read the file on every process."""
        return self.checkpoint_io.load_checkpoint(checkpoint_path, weights_only=True)

    @property
    def lightning_restore_optimizer(self) -> bool:
        """Have Lightning call `load_optimizer_state_dict`, as for DDP."""
        return True

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Do nothing: `VaceModule` sets its weights itself."""

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Give each process its part of the state."""
        (state,) = checkpoint["optimizer_states"]
        load_zero_state(self.deepspeed_engine.optimizer, self._learning(), state)

    def _learning(self) -> list[nn.Parameter]:
        assert self.lightning_module is not None
        return [parameter for parameter in self.lightning_module.parameters() if parameter.requires_grad]

    def _initialize_deepspeed_inference(self, model: nn.Module) -> None:
        raise ValueError("validate and test do not run under DeepSpeed; add --trainer.strategy ddp")


class _AsLoaded(DeepSpeedPrecision):
    """Leaves every weight in its own precision: `WanVace` casts what it computes."""

    def __init__(self) -> None:
        super().__init__("32-true")

    def convert_module(self, module: nn.Module) -> nn.Module:
        return module

    def convert_input(self, data: Any) -> Any:
        return data

    def tensor_init_context(self) -> AbstractContextManager[None]:
        return nullcontext()


def zero_state(optimizer: Any, parameters: Sequence[nn.Parameter]) -> dict[str, Any]:
    """Return an optimizer's state as PyTorch's AdamW gives it; all processes must ask together.

    Args:
        optimizer: DeepSpeed's around AdamW, of ZeRO stage 2 or 3.
        parameters: What it moves, in the order it was given them.
    """
    from deepspeed.utils import safe_get_full_optimizer_state

    inner = optimizer.optimizer
    steps = [values["step"] for values in inner.state.values() if "step" in values]
    moments = {}
    for number, parameter in enumerate(parameters if steps else ()):
        full = {name: safe_get_full_optimizer_state(parameter, name).cpu() for name in _MOMENTS}
        moments[number] = {"step": torch.tensor(float(steps[0])), **full}
    options = {name: value for name, value in inner.param_groups[0].items() if name != "params"}
    return {"state": moments, "param_groups": [options | {"params": list(range(len(parameters)))}]}


def load_zero_state(optimizer: Any, parameters: Sequence[nn.Parameter], state: Mapping[str, Any]) -> None:
    """Set an optimizer's state, and its own copies of the weights to what they are in the model.

    Args:
        optimizer: As in `zero_state`.
        parameters: As there.
        state: What that returned, or AdamW's own.
    """
    from deepspeed.utils import safe_set_full_fp32_param, safe_set_full_optimizer_state

    inner, stage_3 = optimizer.optimizer, hasattr(optimizer, "fp32_partitioned_groups_flat")
    flat = optimizer.fp32_partitioned_groups_flat if stage_3 else optimizer.single_partition_of_fp32_groups
    for part in flat if state["state"] else ():
        inner.state[part] = {"step": torch.zeros((), device=part.device)}
        inner.state[part] |= {name: torch.zeros_like(part) for name in _MOMENTS}
    if state["state"] and not stage_3:
        optimizer._lazy_init_hp_params_optimizer_state()
    for number, parameter in enumerate(parameters):
        safe_set_full_fp32_param(parameter, whole(parameter.data if not hasattr(parameter, "ds_id") else parameter))
        for name, value in state["state"].get(number, {}).items():
            _set(safe_set_full_optimizer_state, inner, parameter, name, value)
    for group, stated in zip(inner.param_groups, state["param_groups"], strict=True):
        group |= {name: value for name, value in stated.items() if name != "params"}


def _set(setter: Any, inner: Any, parameter: nn.Parameter, name: str, value: Tensor) -> None:
    if name == "step":
        for values in inner.state.values():
            values["step"].fill_(value)
    else:
        setter(parameter, value.to(parameter.device), name)
