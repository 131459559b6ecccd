"""What a run costs: time, arithmetic, memory, waiting for data; and how far the adapter has moved."""

import resource
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from regen_train.callbacks.undeclared import data_of, log_every_n_steps
from regen_train.model import WanVace
from regen_train.schema import Batch, Bucket
from regen_train.training import VaceModule
from regen_train.training.flops import training_flops
from regen_train.training.matmul_rate import matmul_rate


@dataclass
class Work:
    """The clips that this process has trained on, counted without waiting for the device.

    Args:
        clips: Clips of each bucket.
        with_reference: How many of them had the reference frame put before them.
    """

    clips: dict[Bucket, int] = field(default_factory=dict)
    with_reference: dict[Bucket, Tensor] = field(default_factory=dict)

    def add(self, batch: Batch) -> None:
        """Count a microbatch."""
        bucket = batch.bucket
        referenced = batch.use_reference.sum()
        self.clips[bucket] = self.clips.get(bucket, 0) + len(batch)
        self.with_reference[bucket] = self.with_reference.get(bucket, torch.zeros_like(referenced)) + referenced

    def tokens(self, model: WanVace) -> dict[int, int]:
        """Return how many clips there were of each number of tokens."""
        counts: dict[int, int] = {}
        for bucket, clips in self.clips.items():
            referenced = int(self.with_reference[bucket])
            for reference, number in ((True, referenced), (False, clips - referenced)):
                tokens = model.geometry.num_tokens(bucket, reference=reference)
                counts[tokens] = counts.get(tokens, 0) + number
        return counts


@dataclass(frozen=True)
class Measures:
    """What the last steps cost.

    Args:
        seconds_per_step: Optimizer steps.
        samples_per_second: Over all processes.
        tokens_per_second: Over all processes: tokens of the clips, reference frames included, prompts left out.
        mfu: Model FLOPs utilisation: the FLOPs that the model needs (see `training_flops`; of prompts what is
            computed) in a second, as a share of what this device multiplies matrices at in this precision, measured at
            the start.
        data_wait_seconds: A step waited for its batches.
        data_wait_share: The same as a share of the time.
        peak_memory_gib: The most since the process began: allocated on its GPU, or on a CPU resident.
    """

    seconds_per_step: float
    samples_per_second: float
    tokens_per_second: float
    mfu: float
    data_wait_seconds: float
    data_wait_share: float
    peak_memory_gib: float


@dataclass(frozen=True)
class Interval:
    """Steps that are measured together.

    Args:
        steps: Optimizer steps.
        seconds: How long they took.
        waited: How long of it the process waited for batches.
        work: What they trained on.
    """

    steps: int
    seconds: float
    waited: float
    work: Work


class Meter(L.Callback):
    """Logs `Measures` and the epoch under ``meter/``, and ``train/adapter_norm``.

    ``adapter_norm`` is the Frobenius norm of all LoRA updates together: 0 at the start, and still 0 means that nothing
    learns.
    """

    def __init__(self) -> None:
        self.latest: Measures | None = None
        self._since = 0.0
        self._waited = 0.0
        self._step = 0
        self._work = Work()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Measure the device and start the clock."""
        assert isinstance(pl_module, VaceModule)
        rate = matmul_rate(pl_module.device, pl_module.wan.dtype)
        dtype = str(pl_module.wan.dtype).removeprefix("torch.")
        rank_zero_info(f"{pl_module.device}: {rate / 1e12:.3g} TFLOP/s in {dtype} matrix products, which is MFU 100 %")
        self._restart(trainer)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Restart the clock: validation is no training time."""
        self._restart(trainer)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Log with the other metrics."""
        self._work.add(batch)
        steps = trainer.global_step - self._step
        if not steps or trainer.global_step % log_every_n_steps(trainer):
            return
        assert isinstance(pl_module, VaceModule)
        wait_for(pl_module.device)
        seconds, waited = time.perf_counter() - self._since, data_of(trainer).wait_seconds - self._waited
        self.latest = measure(trainer, pl_module, Interval(steps, seconds, waited, self._work))
        metrics = {f"meter/{name}": value for name, value in vars(self.latest).items()}
        metrics["meter/epoch"] = data_of(trainer).epoch
        if pl_module.lora is not None:
            metrics["train/adapter_norm"] = pl_module.wan.adapter_norm()
        for logger in trainer.loggers:
            logger.log_metrics(metrics, step=trainer.global_step)
        self._restart(trainer)

    def _restart(self, trainer: L.Trainer) -> None:
        self._since = time.perf_counter()
        self._waited = data_of(trainer).wait_seconds
        self._step = trainer.global_step
        self._work = Work()


def measure(trainer: L.Trainer, module: VaceModule, interval: Interval) -> Measures:
    """Return what steps cost."""
    clips, seconds, steps = interval.work.tokens(module.wan), interval.seconds, interval.steps
    together = data_of(trainer).processes_per_sample
    prompt_tokens = module.wan.prompt_tokens
    flops = sum(
        number * training_flops(module.wan, tokens, prompt_tokens=prompt_tokens) for tokens, number in clips.items()
    )
    tokens = sum(tokens * number for tokens, number in clips.items()) / together
    return Measures(
        seconds_per_step=seconds / steps,
        samples_per_second=steps * data_of(trainer).global_batch_size / seconds,
        tokens_per_second=trainer.world_size * tokens / seconds,
        mfu=flops / together / seconds / matmul_rate(module.device, module.wan.dtype),
        data_wait_seconds=interval.waited / steps,
        data_wait_share=interval.waited / seconds,
        peak_memory_gib=peak_memory_gib(module.device),
    )


def wait_for(device: torch.device) -> None:
    """Let a GPU finish what it was given; nothing to wait for on CPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_memory_gib(device: torch.device) -> float:
    """Return the most memory since the process began, in GiB: allocated on its GPU, or on a CPU resident."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    status = Path("/proc/self/status")
    if status.exists():  # Linux, whose ru_maxrss begins with that of the process that started this one
        return int(status.read_text().split("VmHWM:")[1].split()[0]) / 2**20
    unit = 1 if sys.platform == "darwin" else 2**10  # bytes on a Mac
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
