"""Killed without warning, on one process and on several, under every strategy: nothing is lost, nothing repeated."""

import json
import os
import random
import re
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor

from regen_train.checkpoint_io import read_checkpoint
from regen_train.schema import Batch

pytestmark = pytest.mark.slow
STEPS = 14
CONFIGS = Path(__file__).parents[1] / "configs"


@dataclass(frozen=True)
class Plan:
    """How many processes, and how they share the work.

    Args:
        processes: How many.
        strategy: ``auto``, ``ddp`` or ``fsdp2``.
        together: How many compute each clip.
    """

    processes: int
    strategy: str
    together: int = 1

    def options(self, batch: int) -> list[str]:
        """Return the options of fit, for a global batch of so many samples of one a process or group."""
        shared = ["--model.context_parallel", str(self.together), "--trainer.devices", str(self.processes)]
        accumulate = ["--trainer.accumulate_grad_batches", str(batch * self.together // self.processes)]
        if self.strategy == "fsdp2":
            return ["--config", str(CONFIGS / "strategy_fsdp2.yaml"), *shared, *accumulate]
        return ["--trainer.strategy", self.strategy, *shared, *accumulate]


ONE, DDP, FSDP2, SHARED = Plan(1, "auto"), Plan(2, "ddp"), Plan(2, "fsdp2"), Plan(2, "ddp", together=2)
DDP4, FSDP4, SHARED4 = Plan(4, "ddp"), Plan(4, "fsdp2"), Plan(4, "ddp", together=2)


class PrintNumbers(L.Callback):
    """Says which samples a process trained on in which step, and their errors."""

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Batch, batch_idx: int) -> None:
        step = -(-(batch_idx + 1) // trainer.accumulate_grad_batches)
        line = {"step": step, "numbers": batch.numbers, "errors": outputs["error"].tolist()}
        os.write(1, f"\nSAMPLES {json.dumps(line)}\n".encode())  # one write: lines of two processes do not mix


class Run:
    """``python -m regen_train fit`` in a process group of its own."""

    def __init__(self, arguments: list[str], folder: Path, plan: Plan, *, batch: int = 4, steps: int = STEPS) -> None:
        self.samples: list[dict[str, Any]] = []
        command = [sys.executable, "-m", "regen_train", "fit", *arguments, *plan.options(batch), "--ckpt_path", "last"]
        command += ["--trainer.default_root_dir", str(folder), "--data.global_batch_size", str(batch)]
        command += ["--trainer.max_steps", str(steps)]
        command += ["--trainer.log_every_n_steps", "1", "--checkpoint.every_n_steps", "2"]
        command += ["--trainer.callbacks+=test_crash.PrintNumbers", "--trainer.val_check_interval", "4"]
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent), "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            command,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def follow(self, *, kill_at: int | None = None) -> None:
        """Read what it prints, to the end or until it says that it has done a step; then kill all its processes."""
        text = []
        assert self.process.stdout is not None
        for line in self.process.stdout:
            text.append(line)
            if line.startswith("SAMPLES "):
                self.samples.append(json.loads(line.removeprefix("SAMPLES ")))
            found = re.search(r"step (\d+)/", line)
            if found and kill_at is not None and int(found[1]) >= kill_at:
                os.killpg(self.process.pid, signal.SIGKILL)
                break
        self.process.communicate()
        expected = 0 if kill_at is None else -signal.SIGKILL
        assert self.process.returncode == expected, "".join(text)[-5000:]


def _weights(folder: Path) -> dict[str, Tensor]:
    content = read_checkpoint(folder / "last.ckpt")
    return content["state_dict"] | {f"ema {name}": value for name, value in content["ema_state_dict"].items()}


@pytest.mark.parametrize(
    "plan",
    [ONE, DDP, *(pytest.param(plan, marks=pytest.mark.long) for plan in (FSDP2, SHARED))],
    ids=["one", "ddp", "fsdp2", "context parallel"],
)
def test_killed_at_three_random_steps_and_resumed_is_bit_identical(
    quick_arguments: list[str], tmp_path: Path, plan: Plan
) -> None:
    Run(quick_arguments, tmp_path / "whole", plan).follow()
    kills = sorted(random.Random(plan.processes).sample(range(3, STEPS), 3))  # noqa: S311
    for step in kills:
        Run(quick_arguments, tmp_path / "killed", plan).follow(kill_at=step)
    Run(quick_arguments, tmp_path / "killed", plan).follow()
    assert _different(tmp_path / "whole", tmp_path / "killed") == [], f"killed at {kills}"


@pytest.mark.parametrize(
    "plan",
    [FSDP4, DDP4, pytest.param(SHARED4, marks=pytest.mark.long)],
    ids=["fsdp2", "ddp", "context parallel x ddp"],
)
def test_killed_on_four_processes_and_resumed_is_bit_identical(
    quick_arguments: list[str], tmp_path: Path, plan: Plan
) -> None:
    Run(quick_arguments, tmp_path / "whole", plan, steps=6).follow()
    Run(quick_arguments, tmp_path / "killed", plan, steps=6).follow(kill_at=3)
    Run(quick_arguments, tmp_path / "killed", plan, steps=6).follow()
    assert _different(tmp_path / "whole", tmp_path / "killed") == []


@pytest.mark.parametrize(
    ("first", "then"),
    [
        (DDP4, DDP),
        pytest.param(FSDP4, DDP, marks=pytest.mark.long),
        pytest.param(SHARED4, FSDP2, marks=pytest.mark.long),
    ],
    ids=["ddp", "fsdp2 then ddp", "context parallel then fsdp2"],
)
def test_four_processes_resumed_on_two_train_on_the_same_samples(
    quick_arguments: list[str], tmp_path: Path, first: Plan, then: Plan
) -> None:
    whole = Run(quick_arguments, tmp_path / "four", first, steps=6)
    whole.follow()
    start = Run(quick_arguments, tmp_path / "mixed", first, steps=4)
    start.follow()
    rest = Run(quick_arguments, tmp_path / "mixed", then, steps=6)
    rest.follow()
    assert _by_step(whole) == _by_step(start, rest)
    assert list(_by_step(rest)) == [5, 6]
    four, mixed = _weights(tmp_path / "four"), _weights(tmp_path / "mixed")
    for name in four:
        torch.testing.assert_close(mixed[name], four[name], atol=5e-4, rtol=0)


@pytest.mark.parametrize("plan", [DDP, pytest.param(FSDP2, marks=pytest.mark.long)], ids=["ddp", "fsdp2"])
def test_a_samples_loss_is_bit_equal_on_one_and_two_processes(
    quick_arguments: list[str], tmp_path: Path, plan: Plan
) -> None:
    losses = []
    for number, run_plan in enumerate((ONE, plan)):
        run = Run(quick_arguments, tmp_path / str(number), run_plan, steps=1)
        run.follow()
        losses.append({n: e for row in run.samples for n, e in zip(row["numbers"], row["errors"], strict=True)})
    assert losses[0].keys() == {0, 1, 2, 3}
    assert losses[0] == losses[1]


def _different(one: Path, other: Path) -> list[str]:
    """Return the weights that are not the same bit for bit."""
    ours, theirs = _weights(one), _weights(other)
    assert ours.keys() == theirs.keys()
    return [name for name in ours if not torch.equal(ours[name], theirs[name])]


def _by_step(*runs: Run) -> dict[int, list[int]]:
    """Return the samples of each step; processes that share them name them both."""
    steps: dict[int, set[int]] = {}
    for row in (row for run in runs for row in run.samples):
        steps.setdefault(row["step"], set()).update(row["numbers"])
    return {step: sorted(numbers) for step, numbers in sorted(steps.items())}
