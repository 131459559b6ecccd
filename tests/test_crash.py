"""Killed without warning, on one process and on several: nothing is lost, nothing is repeated."""

import json
import os
import random
import re
import signal
import subprocess
import sys
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


class PrintNumbers(L.Callback):
    """Says which samples a process trained on in which step, and their errors."""

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Batch, batch_idx: int) -> None:
        step = -(-(batch_idx + 1) // trainer.accumulate_grad_batches)
        line = {"step": step, "numbers": batch.numbers, "errors": outputs["error"].tolist()}
        os.write(1, f"\nSAMPLES {json.dumps(line)}\n".encode())  # one write: lines of two processes do not mix


class Run:
    """``python -m regen_train fit`` in a process group of its own."""

    def __init__(
        self, arguments: list[str], folder: Path, *, processes: int, batch: int = 4, steps: int = STEPS
    ) -> None:
        self.samples: list[dict[str, Any]] = []
        accumulate = batch // processes
        command = [sys.executable, "-m", "regen_train", "fit", *arguments, "--ckpt_path", "last"]
        command += ["--trainer.default_root_dir", str(folder), "--trainer.devices", str(processes)]
        command += ["--data.global_batch_size", str(batch), "--trainer.accumulate_grad_batches", str(accumulate)]
        command += ["--trainer.max_steps", str(steps), "--trainer.strategy", "ddp" if processes > 1 else "auto"]
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


@pytest.mark.parametrize("processes", [1, 2])
def test_killed_at_three_random_steps_and_resumed_is_bit_identical(
    quick_arguments: list[str], tmp_path: Path, processes: int
) -> None:
    Run(quick_arguments, tmp_path / "whole", processes=processes).follow()
    kills = sorted(random.Random(processes).sample(range(3, STEPS), 3))  # noqa: S311
    for step in kills:
        Run(quick_arguments, tmp_path / "killed", processes=processes).follow(kill_at=step)
    Run(quick_arguments, tmp_path / "killed", processes=processes).follow()
    whole, killed = _weights(tmp_path / "whole"), _weights(tmp_path / "killed")
    assert whole.keys() == killed.keys()
    different = [name for name in whole if not torch.equal(whole[name], killed[name])]
    assert not different, f"killed at {kills}: {different}"


def test_four_processes_resumed_on_two_train_on_the_same_samples(quick_arguments: list[str], tmp_path: Path) -> None:
    whole = Run(quick_arguments, tmp_path / "four", processes=4, steps=6)
    whole.follow()
    first = Run(quick_arguments, tmp_path / "mixed", processes=4, steps=4)
    first.follow()
    second = Run(quick_arguments, tmp_path / "mixed", processes=2, steps=6)
    second.follow()
    assert _by_step(whole) == _by_step(first, second)
    assert list(_by_step(second)) == [5, 6]
    four, mixed = _weights(tmp_path / "four"), _weights(tmp_path / "mixed")
    for name in four:
        torch.testing.assert_close(mixed[name], four[name], atol=5e-4, rtol=0)


def test_a_samples_loss_is_bit_equal_on_one_and_two_processes(quick_arguments: list[str], tmp_path: Path) -> None:
    losses = []
    for processes in (1, 2):
        run = Run(quick_arguments, tmp_path / str(processes), processes=processes, steps=1)
        run.follow()
        losses.append({n: e for row in run.samples for n, e in zip(row["numbers"], row["errors"], strict=True)})
    assert losses[0].keys() == {0, 1, 2, 3}
    assert losses[0] == losses[1]


def _by_step(*runs: Run) -> dict[int, list[int]]:
    steps: dict[int, list[int]] = {}
    for row in (row for run in runs for row in run.samples):
        steps.setdefault(row["step"], []).extend(row["numbers"])
    return {step: sorted(numbers) for step, numbers in sorted(steps.items())}
