"""The loss by noise level: in training by bins of sigma, in validation on a fixed grid."""

import math
from typing import Any

import lightning as L
import torch
from jaxtyping import Float
from torch import Tensor

from regen_train.callbacks.undeclared import log_every_n_steps
from regen_train.training import VALIDATION_SIGMAS, VaceModule

NUM_BINS = 5


class SigmaLosses(L.Callback):
    """Logs the loss, and the velocity error by noise level; all means are over all processes.

    ``train/loss`` and ``train/error_sigma_0.0-0.2`` and so on average what was drawn since the last log.
    ``val/loss_sigma_0.1`` and so on are taken at fixed noise, so they compare across steps and runs of one seed;
    ``val/loss`` is their mean.
    """

    def __init__(self) -> None:
        self._train = torch.zeros(2, NUM_BINS + 1, dtype=torch.float64)  # the last column is the loss
        self._held_out = torch.zeros(2, len(VALIDATION_SIGMAS), dtype=torch.float64)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start from nothing, on the module's device, so that no step waits for a copy."""
        self._train = torch.zeros_like(self._train, device=pl_module.device)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Add a microbatch; log what was added since the last time."""
        bins = (outputs["sigma"] * NUM_BINS).long().clamp_max(NUM_BINS - 1)
        ones = torch.ones_like(bins, dtype=torch.float64)
        self._train[0].index_add_(0, bins, outputs["error"].double())
        self._train[1].index_add_(0, bins, ones)
        self._train[0, NUM_BINS] += outputs["sample_loss"].double().sum()
        self._train[1, NUM_BINS] += len(bins)
        ends_step = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        step = trainer.global_step
        if ends_step and (step % log_every_n_steps(trainer) == 0 or step == trainer.max_steps):
            self._log_train(trainer, pl_module)
            self._train.zero_()

    def _log_train(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        total, count = self._sum(trainer, pl_module, self._train)
        means = (total / count.clamp_min(1)).tolist()
        if not math.isfinite(means[NUM_BINS]):  # the same on every process, so all stop
            raise ValueError(
                f"train/loss is {means[NUM_BINS]} at step {trainer.global_step}: the run has diverged. Continue from "
                "an earlier checkpoint in another folder, with a lower model.optimizer.lr or gradient_clip_val 1"
            )
        shown = {
            f"train/error_sigma_{i / NUM_BINS:.1f}-{(i + 1) / NUM_BINS:.1f}": means[i]
            for i in range(NUM_BINS)
            if count[i]
        }
        trainer.callback_metrics["train/loss"] = torch.tensor(means[NUM_BINS])
        for logger in trainer.loggers:
            logger.log_metrics(shown | {"train/loss": means[NUM_BINS]}, step=trainer.global_step)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start from nothing."""
        self._held_out.zero_()

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Add the held-out clips of a batch; those that only pad the last step weigh 0."""
        weight = batch.weight.double()[:, None]
        self._held_out[0] += (outputs.double() * weight).sum(0).cpu()
        self._held_out[1] += weight.sum().cpu()

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Log the means over all processes."""
        self._log_held_out(trainer, pl_module, "val")

    on_test_start = on_validation_start
    on_test_batch_end = on_validation_batch_end

    def on_test_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Log the means over all processes."""
        self._log_held_out(trainer, pl_module, "test")

    def _log_held_out(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        assert isinstance(pl_module, VaceModule)
        total, count = self._sum(trainer, pl_module, self._held_out)
        means = (total / count.clamp_min(1)).float()  # the same on every process; sync_dist keeps Lightning content
        if stage == "val":  # else Lightning files it under the step before
            pl_module.log("step", float(trainer.global_step), sync_dist=True)
        pl_module.log(f"{stage}/loss", means.mean(), prog_bar=True, sync_dist=True)
        for level, mean in zip(VALIDATION_SIGMAS, means, strict=True):
            pl_module.log(f"{stage}/loss_sigma_{level}", mean, sync_dist=True)

    @staticmethod
    def _sum(
        trainer: L.Trainer, pl_module: L.LightningModule, sums: Float[Tensor, "2 s"]
    ) -> tuple[Float[Tensor, " s"], Float[Tensor, " s"]]:
        reduced = trainer.strategy.reduce(sums.to(pl_module.device, copy=True), reduce_op="sum")
        assert isinstance(reduced, Tensor)
        total, count = reduced.cpu()
        return total, count
