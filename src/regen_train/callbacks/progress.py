"""What a person sees while it trains."""

import datetime
import sys
import time
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ProgressBar
from tqdm import tqdm

from regen_train.callbacks.meter import Meter
from regen_train.callbacks.undeclared import log_every_n_steps


class StepProgress(ProgressBar):
    """Counts optimizer steps: a bar on a terminal, one line every ``log_every_n_steps`` in a log file."""

    def __init__(self) -> None:
        super().__init__()
        self._bar: Any = None
        self._enabled = True
        self._since = 0.0
        self._first_step = 0

    def disable(self) -> None:
        """Fall silent; Lightning calls this on all processes but the first."""
        self._enabled = False

    def enable(self) -> None:
        """Speak again."""
        self._enabled = True

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Open the bar at the step the run continues from."""
        self._since, self._first_step = time.perf_counter(), trainer.global_step
        if self._enabled and sys.stderr.isatty():
            self._bar = tqdm(
                total=trainer.max_steps, initial=trainer.global_step, unit="step", dynamic_ncols=True, smoothing=0.05
            )

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Show loss, time per step and the time left."""
        step = trainer.global_step
        if not self._enabled or (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        if self._bar is not None:
            self._bar.update(step - self._bar.n)
        if step % log_every_n_steps(trainer) and step != trainer.max_steps:
            return  # metrics are as they were, and to read one from a GPU is to wait for it
        shown = {name: f"{float(value):.4f}" for name, value in self._metrics(trainer).items()} | _measured(trainer)
        if self._bar is not None:
            self._bar.set_postfix(shown, refresh=False)
        else:
            pace = (time.perf_counter() - self._since) / (step - self._first_step)
            left = datetime.timedelta(seconds=round(pace * (trainer.max_steps - step)))
            metrics = "  ".join(f"{name} {value}" for name, value in shown.items())
            print(f"step {step}/{trainer.max_steps}  {metrics}  {pace:.2f} s/step  ETA {left}", flush=True)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Say what validation found."""
        if self._enabled and trainer.state.fn == "fit" and "val/loss" in trainer.callback_metrics:
            text = f"step {trainer.global_step}  val/loss {float(trainer.callback_metrics['val/loss']):.4f}"
            (self._bar.write if self._bar is not None else print)(text)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Close the bar."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    @staticmethod
    def _metrics(trainer: L.Trainer) -> dict[str, Any]:
        wanted = ("train/loss", "val/loss")
        return {name: trainer.callback_metrics[name] for name in wanted if name in trainer.callback_metrics}


def _measured(trainer: L.Trainer) -> dict[str, str]:
    """Return what the run's `Meter` measured last, in a few words."""
    meters = [callback for callback in vars(trainer)["callbacks"] if isinstance(callback, Meter)]
    latest = meters[0].latest if meters else None
    if latest is None:
        return {}
    return {
        "tokens/s": f"{latest.tokens_per_second:,.0f}",
        "MFU": f"{latest.mfu:.0%}",
        "GiB": f"{latest.peak_memory_gib:.1f}",
        "wait": f"{latest.data_wait_seconds:.2f} s",
    }
