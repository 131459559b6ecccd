"""A running average of what learns."""

from typing import Any

import lightning as L
import torch
from torch import Tensor

from regen_train.model.sharding import gathered, own_part, put, spread_like
from regen_train.training import VaceModule


class LoraEma(L.Callback):
    """Keeps an exponential moving average of what learns, in fp32 on the model's device; validation and test run on it.

    The decay warms up as (1 + step) / (10 + step), so that short runs are not stuck at their start. The average is
    saved in every checkpoint as ``ema_state_dict`` and exported with ``regen_train export --ema``.

    Args:
        decay: Share of the average kept at each optimizer step; 0 switches the average off.
    """

    def __init__(self, decay: float = 0.0) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"ema.decay must be in [0, 1), got {decay}")
        self.decay = decay
        self._average: dict[str, Tensor] = {}
        self._raw: dict[str, Tensor] = {}
        self._step = 0

    @property
    def num_copies(self) -> int:
        """Copies of what learns: the average, and in validation the weights that it replaces."""
        return 2 if self.decay else 0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start from the weights, or from the checkpoint's average, which some strategies load only now."""
        self._step = trainer.global_step
        if not self.decay:
            return
        learning = _learning(pl_module)
        if any(hasattr(parameter, "ds_id") for parameter in learning.values()):
            raise ValueError("ema.decay does not work under ZeRO stage 3; use stage 2, FSDP2 or ddp, or decay 0")
        start = self._average or learning
        self._average = {
            name: spread_like(start[name].detach().to(parameter.device, torch.float32, copy=True), parameter)
            for name, parameter in learning.items()
        }

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Move the average once per optimizer step."""
        if not self.decay or trainer.global_step == self._step:
            return
        self._step = trainer.global_step
        decay = min(self.decay, (1 + self._step) / (10 + self._step))
        weights = [own_part(parameter.detach()).float() for parameter in _learning(pl_module).values()]
        torch._foreach_lerp_([own_part(average) for average in self._average.values()], weights, 1 - decay)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Put the average into the model."""
        if self._average and self.decay:
            learning = _learning(pl_module)
            self._raw = {name: parameter.detach().clone() for name, parameter in learning.items()}
            _copy(self._average, learning)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Put the weights back, bit for bit."""
        if self._raw:
            _copy(self._raw, _learning(pl_module))
            self._raw = {}

    on_test_start, on_test_end = on_validation_start, on_validation_end

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Save the average beside the weights."""
        if self.decay and self._average:
            checkpoint["ema_state_dict"] = {f"model.{n}": value for n, value in gathered(self._average).items()}

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Continue the average; without one in the checkpoint it starts from the weights."""
        stored = checkpoint.get("ema_state_dict", {})
        self._average = {name.removeprefix("model."): value for name, value in stored.items()}


def _learning(pl_module: L.LightningModule) -> dict[str, Tensor]:
    assert isinstance(pl_module, VaceModule)
    return dict(pl_module.wan.trained_parameters())


@torch.no_grad()
def _copy(source: dict[str, Tensor], target: dict[str, Tensor]) -> None:
    for name, parameter in target.items():
        put(source[name], parameter)
