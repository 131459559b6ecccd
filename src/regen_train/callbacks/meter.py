"""What a run costs: time, memory, waiting for data; and how far the adapter has moved."""

import time
from typing import Any

import lightning as L
import psutil
import torch

from regen_train.callbacks.undeclared import data_of, log_every_n_steps
from regen_train.training import VaceModule


class Meter(L.Callback):
    """Logs ``meter/seconds_per_step``, ``samples_per_second``, ``data_wait_share``, ``peak_memory_gib``, ``epoch``.

    ``data_wait_share`` is the share of the time in which the trainer waited for its next batch; near 0 is good.
    ``peak_memory_gib`` is the GPU's allocated peak, or the process's resident memory on CPU. ``adapter_norm`` is the
    Frobenius norm of all LoRA updates together: 0 at the start, and still 0 means that nothing learns.
    """

    def __init__(self) -> None:
        self._since = 0.0
        self._waited = 0.0
        self._step = 0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock."""
        self._restart(trainer)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Restart the clock: validation is no training time."""
        self._restart(trainer)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log with the other metrics."""
        steps = trainer.global_step - self._step
        if not steps or trainer.global_step % log_every_n_steps(trainer):
            return
        assert isinstance(pl_module, VaceModule)
        if pl_module.device.type == "cuda":
            torch.cuda.synchronize(pl_module.device)
        seconds = time.perf_counter() - self._since
        data = data_of(trainer)
        metrics = {
            "meter/seconds_per_step": seconds / steps,
            "meter/samples_per_second": steps * data.global_batch_size / seconds,
            "meter/data_wait_share": (data.wait_seconds - self._waited) / seconds,
            "meter/peak_memory_gib": peak_memory_gib(pl_module.device),
            "meter/epoch": data.epoch,
        }
        if pl_module.lora is not None:
            metrics["train/adapter_norm"] = pl_module.wan.adapter_norm()
        for logger in trainer.loggers:
            logger.log_metrics(metrics, step=trainer.global_step)
        self._restart(trainer)

    def _restart(self, trainer: L.Trainer) -> None:
        self._since = time.perf_counter()
        self._waited = data_of(trainer).wait_seconds
        self._step = trainer.global_step


def peak_memory_gib(device: torch.device) -> float:
    """Return the peak of allocated GPU memory, or on CPU the process's resident memory, in GiB."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    return float(psutil.Process().memory_info().rss) / 2**30
