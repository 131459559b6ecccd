"""Whole runs under every strategy, on two processes as torchrun starts them: they learn what one process learns."""

import os
import sys
from pathlib import Path

import lightning as L
import pytest
import torch
from lightning.pytorch.strategies import (
    DDPStrategy,
    DeepSpeedStrategy,
    FSDPStrategy,
    ModelParallelStrategy,
    SingleDeviceStrategy,
    Strategy,
)
from lightning.pytorch.strategies.launchers.subprocess_script import _SubprocessScriptLauncher
from processes import run_processes
from torch import Tensor

from regen_train.checkpoint_io import read_checkpoint
from regen_train.cli import main
from regen_train.configs import resolve_arguments
from regen_train.data import ShardDataModule
from regen_train.export import export_checkpoint
from regen_train.model import BlockOptions
from regen_train.training import FullyShardedStrategy, OptimizerSpec, VaceModule, ZeroStrategy
from regen_train.training.strategies import spread_of
from regen_train.training.strategy_checks import allows, check_strategy
from regen_train.training_cli import TrainingCLI

BATCH, STEPS, CLIP = 4, 3, 0.01
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


def fit(
    arguments: list[str], folder: Path, *options: str, accumulate: int, steps: int = STEPS, clip: float = 0
) -> TrainingCLI:
    """Train a few steps with all that a run has: an average, validation, previews, checkpoints, and clipping or not."""
    command = ["fit", *arguments, *options, "--trainer.default_root_dir", str(folder)]
    command += ["--trainer.max_steps", str(steps), "--data.global_batch_size", str(BATCH)]
    command += ["--data.dropout.reference", "0.5", "--trainer.val_check_interval", str(2 * accumulate)]
    command += ["--trainer.accumulate_grad_batches", str(accumulate), "--model.optimizer.lr", "1e-3"]
    command += ["--preview.num_clips", "1", "--preview.num_inference_steps", "2"]
    command += ["--trainer.gradient_clip_val", str(clip)]
    command += ["--preview.every_n_validations", "1", "--trainer.logger", "false"]
    return TrainingCLI.run(resolve_arguments(command))


def fit_all(arguments: list[str], folder: Path) -> None:
    """Train under each strategy; go on with a run of each of two under the other, and clip."""
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
            fit(arguments, folder / f"{first} then {then}", *again, accumulate=accumulate, steps=steps, clip=CLIP)
            torch.distributed.barrier()  # until the checkpoint is written


def state_of(folder: Path) -> dict[str, Tensor]:
    """Return what was learned, its average where one is kept, and the moments."""
    content = read_checkpoint(folder / "last.ckpt")
    (optimizer,) = content["optimizer_states"]
    moments = {f"{i} {n}": value for i, values in optimizer["state"].items() for n, value in values.items()}
    average = {f"average {name}": value for name, value in content.get("ema_state_dict", {}).items()}
    return content["state_dict"] | average | moments


def hold_equal(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        # Adam divides by the gradient's size: rounding of the smallest gradients moves their weights by a share of lr
        atol = 1e-3 * float(value.abs().max()) if "exp_avg" in key else 2e-5
        torch.testing.assert_close(found[key], value, atol=atol, rtol=1e-3, msg=lambda text, key=key: f"{key}: {text}")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, tiny_dataset: Path) -> Path:
    """Folders of runs under each strategy, and of one process alone; those that change strategy clip gradients."""
    folder = tmp_path_factory.mktemp("strategies")
    arguments = ["--config", str(Path(__file__).parent / "tiny.yaml")]
    arguments += ["--model.pretrained", str(tiny_model), "--data.path", str(tiny_dataset)]
    fit(arguments, folder / "alone", accumulate=4)
    fit(arguments, folder / "alone, clipped", accumulate=4, clip=CLIP)
    run_processes(2, fit_all, folder, arguments, folder)
    return folder


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", [*STRATEGIES, "ddp then fsdp2", "fsdp2 then ddp"])
def test_learns_what_one_process_learns(runs: Path, name: str) -> None:
    hold_equal(state_of(runs / name), state_of(runs / ("alone" if name in STRATEGIES else "alone, clipped")))
    for folder in (runs / name, runs / "alone"):
        assert list((folder / "previews").glob("*.mp4")), "previews need all processes that share the model"
        assert (folder / f"adapter-step-{STEPS:06d}.safetensors").is_file()


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", ["fsdp2", "both"])
def test_exports(runs: Path, name: str, tiny_model: Path, tmp_path: Path) -> None:
    report = export_checkpoint(
        runs / name / "last.ckpt", tmp_path, ["diffusers"], pretrained=str(tiny_model), ema=True, dtype="fp32"
    )
    assert report.files[0].path.is_file()
    assert report.metadata.step == STEPS


class OwnDDP(DDPStrategy):
    """Somebody's variant."""


def of_deepspeed(kind: type[DeepSpeedStrategy], stage: int) -> DeepSpeedStrategy:
    """Return a strategy as DeepSpeed, which need not be installed, would have it."""
    strategy = kind.__new__(kind)
    strategy.config = {"zero_optimization": {"stage": stage}}
    return strategy


PLAIN = {"optimizer": "adamw", "context_parallel": 1, "blocks": BlockOptions()}


@pytest.mark.parametrize(
    "strategy",
    [SingleDeviceStrategy(), DDPStrategy(find_unused_parameters=True), DDPStrategy(start_method="spawn"), OwnDDP()],
    ids=["alone", "ddp", "spawn", "own"],
)
def test_one_process_and_ddp_take_everything(strategy: Strategy) -> None:
    check_strategy(strategy, optimizer="muon", context_parallel=2, blocks=BlockOptions(quantize="int8"))


def test_spread_weights_take_what_needs_no_whole_ones() -> None:
    check_strategy(FullyShardedStrategy(), **{**PLAIN, "context_parallel": 2})
    for stage in (2, 3):
        check_strategy(of_deepspeed(ZeroStrategy, stage), **PLAIN)


@pytest.mark.parametrize(
    ("strategy", "options", "message"),
    [
        (FSDPStrategy(), {}, "trainer.strategy: FSDPStrategy .* take --config strategy_fsdp2.yaml in its place"),
        (ModelParallelStrategy(), {}, "trainer.strategy: ModelParallelStrategy .* strategy_fsdp2.yaml"),
        (of_deepspeed(DeepSpeedStrategy, 2), {}, "DeepSpeedStrategy .* strategy_zero2.yaml in its place"),
        (of_deepspeed(DeepSpeedStrategy, 3), {}, "DeepSpeedStrategy .* strategy_zero3.yaml in its place"),
        (of_deepspeed(ZeroStrategy, 2), {"optimizer": "muon"}, "model.optimizer.name: muon .* ZeRO .* take adamw"),
        (FullyShardedStrategy(), {"optimizer": "muon"}, "model.optimizer.name: muon .* FSDP2 .* take adamw"),
        (of_deepspeed(ZeroStrategy, 3), {"context_parallel": 2}, "model.context_parallel: 2 .* strategy_fsdp2.yaml"),
        (of_deepspeed(ZeroStrategy, 2), {"blocks": BlockOptions(swap=1)}, "model.blocks: .*swap=1.* ZeRO"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Strategy) else None,
)
def test_what_does_not_go_with_a_strategy_is_refused(strategy: Strategy, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_strategy(strategy, **{**PLAIN, **options})


def test_a_package_that_is_missing_hides_nothing_that_no_package_mends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    blocks, zero = BlockOptions(quantize="nf4"), of_deepspeed(ZeroStrategy, 2)
    with pytest.raises(ValueError, match=r"muon needs whole matrices.*\n.*is not made for ZeRO"):
        check_strategy(zero, optimizer="muon", context_parallel=1, blocks=blocks)
    with pytest.raises(ImportError, match="nf4 needs bitsandbytes"):
        check_strategy(SingleDeviceStrategy(), **{**PLAIN, "blocks": blocks})
    module = VaceModule("random:tiny")
    assert not allows(module, zero, blocks=blocks)
    assert allows(module, SingleDeviceStrategy(), blocks=blocks)


@pytest.mark.parametrize(
    ("command", "options", "told"),
    [
        ("fit", SHARED, "model.context_parallel: 2 processes are .* and 1 cannot be divided .* a multiple of 2, or"),
        ("profile", SHARED, "model.context_parallel: 2 processes are .* and 1 cannot be divided"),
        ("validate", [*SHARED, "--ckpt_path", "last"], "2 processes are .* and 1 cannot be divided"),
        ("fit", [*SHARED, "--trainer.devices", "3"], "2 processes are .* and 3 cannot be divided"),
        ("fit", [*SHARED, "--trainer.devices", "2", "--model.blocks.compile", "true"], "blocks.compile: false or cont"),
        ("profile", [*FSDP2, "--model.blocks.swap", "2"], "blocks.swap: 2 needs whole weights, which FSDP2 spreads"),
        ("fit", [*FSDP2, "--model.optimizer.name", "muon"], "muon needs whole matrices, which FSDP2 spreads"),
        ("fit", ["--trainer.strategy", "fsdp"], "fsdp writes .* take --config strategy_fsdp2.yaml in its place"),
        ("fit", ["--trainer.strategy", "deepspeed_stage_2"], "deepspeed_stage_2 writes .* strategy_zero2.yaml"),
        ("fit", ["--trainer.strategy", "deepspeed_stage_3_offload"], "_offload writes .* strategy_zero3.yaml"),
    ],
    ids=lambda value: value if isinstance(value, str) and " " not in value else "",
)
def test_refusals_come_before_processes_join_and_data_opens(
    quick_arguments: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: str,
    options: list[str],
    told: str,
) -> None:
    monkeypatch.setattr(ShardDataModule, "setup", lambda *given, **more: pytest.fail("it opened the data"))
    monkeypatch.setattr(_SubprocessScriptLauncher, "launch", lambda *given, **more: pytest.fail("processes join"))
    with pytest.raises(SystemExit, match=rf"^regen_train {command}: [^\n]*{told}.*\n\(REGEN_TRAIN_DEBUG=1"):
        main([command, *quick_arguments, *options])
    assert "before the run" not in capsys.readouterr().out


def test_data_for_no_whole_number_of_groups_is_refused(tiny_dataset: Path) -> None:
    with pytest.raises(ValueError, match=r"model\.context_parallel: 2 processes are .* and 1 cannot be divided"):
        ShardDataModule(str(tiny_dataset), "structhuman", 2, processes_per_sample=2).setup("fit")


@pytest.mark.parametrize("strategy", ["ddp", "ddp_spawn"])
def test_ddp_adds_gradients_in_the_same_order_at_every_start(
    quick_arguments: list[str], monkeypatch: pytest.MonkeyPatch, strategy: str
) -> None:
    monkeypatch.setattr(TrainingCLI, "_run_subcommand", lambda *given: None)
    cli = TrainingCLI.run(["fit", *quick_arguments, "--trainer.strategy", strategy])
    assert cli.trainer.strategy._ddp_kwargs["find_unused_parameters"] is True, "else buckets change after a step"


def test_every_refusal_comes_before_the_base_is_loaded() -> None:
    module = VaceModule("nowhere", optimizer=OptimizerSpec(name="muon"))
    module.trainer = L.Trainer(logger=False, accelerator="cpu", strategy=ModelParallelStrategy())
    with pytest.raises(ValueError, match=r"trainer\.strategy: ModelParallelStrategy"):
        module.configure_model()


@pytest.mark.parametrize(("stage", "lockstep"), [(2, False), (3, True)])
def test_stage_3_alone_computes_in_lockstep(stage: int, lockstep: bool) -> None:
    assert spread_of(of_deepspeed(ZeroStrategy, stage), 1).lockstep is lockstep
