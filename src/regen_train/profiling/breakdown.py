"""Where the time of a step goes."""

import time
from dataclasses import dataclass
from typing import Any

import lightning as L
import torch
from torch import Tensor

from regen_train.callbacks.meter import Interval, Measures, Work, measure, wait_for
from regen_train.callbacks.undeclared import data_of, module_of
from regen_train.model.compiling import Compilation, compilation
from regen_train.schema import Batch
from regen_train.training.matmul_rate import matmul_rate


@dataclass(frozen=True)
class Breakdown:
    """The time of the measured steps, by part, and what else they cost.

    Args:
        seconds: A step's, by part: ``data wait``, ``forward``, ``backward``, ``optimizer`` and ``other``.
        measures: What the meter says of the same steps.
        matmul_rate: FLOP/s that count as an MFU of 1.
        steps: How many were measured.
        compiled: Before the measured steps, and during them.
    """

    seconds: dict[str, float]
    measures: Measures
    matmul_rate: float
    steps: int
    compiled: tuple[Compilation, Compilation]

    def describe(self) -> str:
        """Return the breakdown in words."""
        whole, measured = self.measures.seconds_per_step, self.measures
        rows = self.seconds | {"step": whole}
        lines = [f"  {name:<12} {seconds:9.4f} s  {seconds / whole:6.1%}" for name, seconds in rows.items()]
        return "\n".join(
            (
                f"measured over {self.steps} steps:",
                *lines,
                f"  tokens/s     {measured.tokens_per_second:,.0f} over all processes",
                f"  MFU          {measured.mfu:.1%} of {self.matmul_rate / 1e12:.3g} TFLOP/s in matrix products",
                f"  peak memory  {measured.peak_memory_gib:.2f} GiB",
                *self._compiled(),
            )
        )

    def _compiled(self) -> list[str]:
        before, during = self.compiled
        if not before.graphs + during.graphs:
            return []
        text = f"  compiled     {before.graphs} graphs in {before.seconds:.1f} s before the measured steps"
        if during.graphs:
            text += f", {during.graphs} in {during.seconds:.1f} s during them, which the times contain: take one bucket"
        return [text]


class StepBreakdown(L.Callback):
    """Times the parts of steps, waiting for the device between them; so a step is a little slower than in training.

    Args:
        warmup: Steps before the first that counts.
    """

    def __init__(self, warmup: int) -> None:
        self.warmup = warmup
        self.result: Breakdown | None = None
        self._parts = {"forward": 0.0, "backward": 0.0, "optimizer": 0.0}
        self._part: str | None = None
        self._since = 0.0
        self._start = 0.0
        self._waited = 0.0
        self._work = Work()
        self._compiled = Compilation(0, 0.0)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start at once where nothing is to warm up."""
        if not self.warmup:
            self._begin(trainer, pl_module.device)

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        """The forward pass begins."""
        self._turn_to("forward", pl_module.device)

    def on_before_backward(self, trainer: L.Trainer, pl_module: L.LightningModule, loss: Tensor) -> None:
        """The backward pass begins."""
        self._turn_to("backward", pl_module.device)

    def on_after_backward(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """The backward pass has ended."""
        self._turn_to(None, pl_module.device)

    def on_before_optimizer_step(
        self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """The optimizer begins, clipping included."""
        self._turn_to("optimizer", pl_module.device)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """The step has ended."""
        self._turn_to(None, pl_module.device)
        self._work.add(batch)
        if (batch_idx + 1) % trainer.accumulate_grad_batches == 0 and trainer.global_step == self.warmup:
            self._begin(trainer, pl_module.device)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Take stock."""
        wait_for(pl_module.device)
        steps, seconds = trainer.global_step - self.warmup, time.perf_counter() - self._start
        waited = data_of(trainer).wait_seconds - self._waited
        module = module_of(trainer)
        measures = measure(trainer, module, Interval(steps, seconds, waited, self._work))
        parts = {"data wait": waited} | self._parts
        parts["other"] = seconds - sum(parts.values())
        self.result = Breakdown(
            seconds={name: part / steps for name, part in parts.items()},
            measures=measures,
            matmul_rate=matmul_rate(module.device, module.wan.dtype),
            steps=steps,
            compiled=(self._compiled, compilation() - self._compiled),
        )

    def _begin(self, trainer: L.Trainer, device: torch.device) -> None:
        wait_for(device)
        self._parts = dict.fromkeys(self._parts, 0.0)
        self._work = Work()
        self._compiled = compilation()
        self._waited = data_of(trainer).wait_seconds
        self._start = time.perf_counter()

    def _turn_to(self, part: str | None, device: torch.device) -> None:
        wait_for(device)
        now = time.perf_counter()
        if self._part is not None:
            self._parts[self._part] += now - self._since
        self._part, self._since = part, now
