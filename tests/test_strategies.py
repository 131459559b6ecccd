"""Whole runs under every strategy, on two processes as torchrun starts them: they learn what one process learns."""

import os
from pathlib import Path

import pytest
import torch
from processes import run_processes
from torch import Tensor

from regen_train.checkpoint_io import read_checkpoint
from regen_train.configs import resolve_arguments
from regen_train.export import export_checkpoint
from regen_train.training_cli import TrainingCLI

BATCH, STEPS = 4, 3
DDP = ["--trainer.strategy", "ddp"]
FSDP2 = ["--config", "strategy_fsdp2.yaml"]
SHARED = ["--config", "strategy_context_parallel.yaml"]
STRATEGIES: dict[str, tuple[int, list[str]]] = {  # with the microbatches of a step
    "ddp": (2, DDP),
    # batches of two: some have one sample with and one without reference frame, which makes two forward passes
    "fsdp2": (1, [*FSDP2, "--data.per_device_batch_size", "2"]),
    "context_parallel": (4, [*SHARED, *DDP]),
    "both": (4, [*SHARED, *FSDP2]),
}


def fit(arguments: list[str], folder: Path, *options: str, accumulate: int, steps: int = STEPS) -> TrainingCLI:
    """Train a few steps with all that a run has: clipping, an average, validation, previews, checkpoints."""
    command = ["fit", *arguments, *options, "--trainer.default_root_dir", str(folder)]
    command += ["--trainer.max_steps", str(steps), "--data.global_batch_size", str(BATCH)]
    command += ["--data.dropout.reference", "0.5", "--trainer.val_check_interval", str(2 * accumulate)]
    command += ["--trainer.accumulate_grad_batches", str(accumulate), "--model.optimizer.lr", "1e-3"]
    command += ["--preview.num_clips", "1", "--preview.num_inference_steps", "2", "--trainer.gradient_clip_val", "0.01"]
    command += ["--preview.every_n_validations", "1", "--trainer.logger", "false"]
    return TrainingCLI.run(resolve_arguments(command))


def fit_all(arguments: list[str], folder: Path) -> None:
    """Train under each strategy; go on with a run of each of two under the other."""
    rank = str(torch.distributed.get_rank())
    os.environ |= {"RANK": rank, "LOCAL_RANK": rank, "GROUP_RANK": "0", "WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "x"}
    arguments = [*arguments, "--trainer.devices", "2"]
    for name, (accumulate, options) in STRATEGIES.items():
        print(name, flush=True)  # of the one that fails
        fit(arguments, folder / name, *options, accumulate=accumulate)
    for first, then in (("ddp", "fsdp2"), ("fsdp2", "ddp")):
        for name, steps in ((first, 1), (then, STEPS)):
            accumulate, options = STRATEGIES[name]
            again = [*options, "--ckpt_path", "last"]
            fit(arguments, folder / f"{first} then {then}", *again, accumulate=accumulate, steps=steps)
            torch.distributed.barrier()  # until the checkpoint is written


def state_of(folder: Path) -> dict[str, Tensor]:
    content = read_checkpoint(folder / "last.ckpt")
    (optimizer,) = content["optimizer_states"]
    moments = {f"{i} {n}": value for i, values in optimizer["state"].items() for n, value in values.items()}
    average = {f"average {name}": value for name, value in content["ema_state_dict"].items()}
    return content["state_dict"] | average | moments


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, tiny_dataset: Path) -> Path:
    """Folders of runs under each strategy, and of one process alone."""
    folder = tmp_path_factory.mktemp("strategies")
    arguments = ["--config", str(Path(__file__).parent / "tiny.yaml")]
    arguments += ["--model.pretrained", str(tiny_model), "--data.path", str(tiny_dataset)]
    fit(arguments, folder / "alone", accumulate=4)
    run_processes(2, fit_all, folder, arguments, folder)
    return folder


@pytest.mark.parametrize("name", [*STRATEGIES, "ddp then fsdp2", "fsdp2 then ddp"])
def test_learns_what_one_process_learns(runs: Path, name: str) -> None:
    expected, found = state_of(runs / "alone"), state_of(runs / name)
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        # Adam divides by the gradient's size: rounding of the smallest gradients moves their weights by a share of lr
        torch.testing.assert_close(found[key], value, atol=2e-4, rtol=1e-3, msg=lambda text, key=key: f"{key}: {text}")
    for folder in (runs / name, runs / "alone"):
        assert list((folder / "previews").glob("*.mp4")), "previews need all processes that share the model"
        assert (folder / f"adapter-step-{STEPS:06d}.safetensors").is_file()


@pytest.mark.parametrize("name", ["fsdp2", "both"])
def test_exports(runs: Path, name: str, tiny_model: Path, tmp_path: Path) -> None:
    report = export_checkpoint(
        runs / name / "last.ckpt", tmp_path, ["diffusers"], pretrained=str(tiny_model), ema=True, dtype="fp32"
    )
    assert report.files[0].path.is_file()
    assert report.metadata.step == STEPS
