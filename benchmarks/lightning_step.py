"""A Lightning training step against a bare loop over the same model, data and optimizer.

The Lightning side is ``regen_train fit`` with all its callbacks, the bare side the shortest loop that trains: batch,
losses, backward, clipping, fused AdamW, next; optimizer, loss and LoRA are the same. Both run in this process on the
same tiny model, on clips large enough that a step takes well over half a second; they alternate, and the medians of all
their steps are compared.

Run: ``python benchmarks/lightning_step.py`` (about five minutes on 2 CPU cores).
"""

import argparse
import itertools
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import lightning as L
import torch

from regen_train.configs import resolve_arguments
from regen_train.data import ShardDataModule
from regen_train.model import LoraSpec
from regen_train.profiling import write_random_dataset
from regen_train.schema import Bucket, Geometry
from regen_train.training import VaceModule
from regen_train.training_cli import TrainingCLI

GEOMETRY = Geometry(latent_channels=16, spatial_factor=8, temporal_factor=4, patch_size=(1, 2, 2), text_dim=32)
BUCKET = Bucket(num_frames=21, height=288, width=288)
LIMIT = 1.05


def now() -> float:
    """Return the time; with one thread the processor's, which other programs' work changes less."""
    return time.process_time() if torch.get_num_threads() == 1 else time.perf_counter()


class StepTimes(L.Callback):
    """Keeps when each step ended."""

    ends: list[float]

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Forget the last run."""
        self.ends = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Note the time."""
        self.ends.append(now())


def write_dataset(folder: Path) -> None:
    """Write a dataset of random latents."""
    write_random_dataset(folder, BUCKET, GEOMETRY, variants=["structhuman"], num_samples=8, vae_sha256="none")


def lightning_steps(dataset: Path, run: Path, steps: int) -> list[float]:
    """Return seconds per step of ``regen_train fit``, the first step left out."""
    arguments = [
        *("--config", "quickstart.yaml", "--model.pretrained", "random:tiny", "--data.path", str(dataset)),
        *("--data.global_batch_size", "1", "--data.per_device_batch_size", "1", "--ema.decay", "0"),
        *("--data.reference", "first_condition", "--model.recipe", "paper", "--model.lora.rank", "4"),
        *("--model.optimizer.name", "adamw", "--model.loss.human_weight", "1", "--data.dropout.prompt", "0"),
        *("--data.dropout.reference", "0", "--data.validation.num_samples", "0", "--preview.num_clips", "0"),
        *("--trainer.default_root_dir", str(run), "--trainer.max_steps", str(steps)),
        f"--trainer.callbacks+={__name__}.StepTimes",
    ]
    done = TrainingCLI.run(["fit", *resolve_arguments(arguments)])
    times = next(callback for callback in done.trainer.callbacks if isinstance(callback, StepTimes))
    return [after - before for before, after in itertools.pairwise(times.ends)]


def bare_steps(dataset: Path, steps: int) -> list[float]:
    """Return seconds per step of a bare loop, the first step left out."""
    module = VaceModule("random:tiny", dtype="fp32", lora=LoraSpec(rank=4), checkpointing="none")
    module.trainer = L.Trainer(logger=False, accelerator="cpu", enable_progress_bar=False)
    module.configure_model()
    data = ShardDataModule(str(dataset), "structhuman", global_batch_size=1)
    data.setup("fit")
    optimizer = torch.optim.AdamW(module.wan.trained_parameters().values(), lr=1e-4, fused=True)
    ends = []
    for batch in itertools.islice(data.train_dataloader(), steps):
        module.losses(batch).loss.mean().backward()
        torch.nn.utils.clip_grad_norm_(module.wan.trained_parameters().values(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        ends.append(now())
    return [after - before for before, after in itertools.pairwise(ends)]


def main() -> None:
    """Alternate, print the medians and their ratio; exit 1 beyond the limit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--steps", type=int, default=12, help="in each round, on each side")
    options = parser.parse_args()
    seconds: dict[str, list[float]] = {"lightning": [], "bare": []}
    with tempfile.TemporaryDirectory() as folder:
        dataset = Path(folder) / "dataset"
        write_dataset(dataset)
        for number in range(options.rounds):
            seconds["bare"] += bare_steps(dataset, options.steps)
            seconds["lightning"] += lightning_steps(dataset, Path(folder) / f"run-{number}", options.steps)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    ratio = medians["lightning"] / medians["bare"]
    print(f"bare loop {medians['bare']:.3f} s/step, Lightning {medians['lightning']:.3f} s/step, ratio {ratio:.3f}")
    if ratio > LIMIT:
        raise SystemExit(f"Lightning is more than {LIMIT - 1:.0%} slower than the bare loop")


if __name__ == "__main__":
    main()
