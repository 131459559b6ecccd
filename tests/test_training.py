"""Training through the command line, in this process: what learns, what a loss depends on, what a resume gives."""

import fcntl
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor

from regen_train.adapter import load_adapter
from regen_train.checkpoint_io import read_checkpoint
from regen_train.configs import resolve_arguments
from regen_train.data import ShardDataModule
from regen_train.flow import RECIPES
from regen_train.model import LoraSpec, load_wan_vace
from regen_train.schema import Batch
from regen_train.training import LossSpec, OptimizerSpec, VaceModule, sample_losses
from regen_train.training_cli import TrainingCLI

Fit = Callable[..., TrainingCLI]


@pytest.fixture
def fit(quick_arguments: list[str]) -> Fit:
    """Run ``regen_train fit`` on the tiny model; errors come as they are raised."""

    def run(*options: str) -> TrainingCLI:
        callbacks = ["--trainer.callbacks+=test_training.Record"]
        return TrainingCLI.run(["fit", *resolve_arguments([*quick_arguments, *callbacks, *options])])

    return run


class Record(L.Callback):
    """Keeps what a run saw; sends itself a signal in a step, if the environment says so."""

    def __init__(self) -> None:
        self.held_out: list[float] = []
        self.numbers: list[int] = []
        self.validated = 0

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Batch, batch_idx: int) -> None:
        self.numbers += batch.numbers
        if str(trainer.global_step) == os.environ.get("TEST_SIGNAL_AT_STEP"):
            os.kill(os.getpid(), int(os.environ["TEST_SIGNAL"]))

    def on_validation_batch_start(self, trainer: Any, pl_module: Any, batch: Batch, batch_idx: int) -> None:
        self.validated += 1
        if os.environ.pop("TEST_SIGNAL_IN_VALIDATION", None):
            os.kill(os.getpid(), signal.SIGTERM)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.held_out.append(float(trainer.callback_metrics["val/loss"]))


def _record(run: TrainingCLI) -> Record:
    return next(callback for callback in run.trainer.callbacks if isinstance(callback, Record))


def _assert_same_run(one: Path, other: Path) -> None:
    ours, theirs = read_checkpoint(one / "last.ckpt"), read_checkpoint(other / "last.ckpt")
    assert ours["global_step"] == theirs["global_step"]
    for part in ("state_dict", "ema_state_dict"):
        assert ours[part].keys() == theirs[part].keys()
        assert all(torch.equal(ours[part][name], theirs[part][name]) for name in ours[part]), part


def test_only_the_lora_learns_and_the_validation_loss_falls(fit: Fit, tiny_model: Path) -> None:
    frozen = load_wan_vace(str(tiny_model), dtype="fp32", lora=None).merged_state(torch.float32)
    done = fit("--trainer.max_steps", "40", "--trainer.val_check_interval", "20", "--ema.decay", "0")
    for name, parameter in done.model.wan.transformer.named_parameters():
        assert parameter.requires_grad == (".lora_" in name), name
        if ".lora_" not in name:
            assert torch.equal(parameter, frozen[name.replace(".base_layer", "")]), name
    assert all(bool(factor.any()) for factor in done.model.wan.lora_state().values())
    assert _record(done).held_out[-1] < _record(done).held_out[0]
    assert _record(done).numbers == list(range(80))


def test_a_run_in_two_parts_is_the_run_in_one(fit: Fit, tmp_path: Path) -> None:
    options = ("--model.lora.dropout", "0.2", "--model.optimizer.schedule", "cosine")
    whole, parts = str(tmp_path / "whole"), str(tmp_path / "parts")
    fit(*options, "--trainer.default_root_dir", whole, "--trainer.max_steps", "6", "--checkpoint.every_n_steps", "3")
    for step in (3, 6):
        (Path(whole) / f"step-{step:06d}.ckpt").rename(tmp_path / f"kept-{step}.ckpt")
    Path(parts).mkdir()
    (tmp_path / "kept-3.ckpt").rename(Path(parts) / "step-000003.ckpt")
    (tmp_path / "kept-6.ckpt").rename(Path(whole) / "step-000006.ckpt")
    second = fit(*options, "--trainer.default_root_dir", parts, "--trainer.max_steps", "6", "--ckpt_path", "last")
    assert _record(second).numbers == list(range(6, 12))
    _assert_same_run(Path(whole), Path(parts))


def test_gradients_are_clipped_in_mixed_precision_too(fit: Fit) -> None:
    options = ("--trainer.precision", "bf16-mixed", "--model.dtype", "bf16", "--trainer.gradient_clip_val", "1e-3")
    assert fit(*options, "--trainer.max_steps", "1").trainer.global_step == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_told_to_stop_it_saves_the_step_and_a_resume_goes_on(
    fit: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    fit("--trainer.default_root_dir", str(tmp_path / "whole"), "--trainer.max_steps", "4")
    before = signal.getsignal(number)
    monkeypatch.setenv("TEST_SIGNAL", str(number.value))
    monkeypatch.setenv("TEST_SIGNAL_AT_STEP", "2")
    stopped = fit("--trainer.max_steps", "4")
    monkeypatch.delenv("TEST_SIGNAL_AT_STEP")
    assert stopped.trainer.global_step == 2
    assert _record(stopped).held_out == []  # seconds may be left: no validation
    assert signal.getsignal(number) == before
    fit("--trainer.max_steps", "4", "--ckpt_path", "last")
    _assert_same_run(tmp_path / "whole", tmp_path / "run")


def test_told_to_stop_in_validation_it_cuts_it_short(fit: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = ("--trainer.max_steps", "5", "--trainer.val_check_interval", "4", "--data.validation.num_samples", "4")
    whole = fit(*options, "--trainer.default_root_dir", str(tmp_path / "whole"))
    monkeypatch.setenv("TEST_SIGNAL_IN_VALIDATION", "1")
    stopped = fit(*options)
    assert _record(stopped).validated == 1 < _record(whole).validated
    assert stopped.trainer.global_step == 3  # the step after the validation
    fit(*options, "--ckpt_path", "last")
    _assert_same_run(tmp_path / "whole", tmp_path / "run")


def test_accumulation_changes_nothing_but_rounding(fit: Fit, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    fit("--trainer.default_root_dir", str(two), "--trainer.max_steps", "3")
    together = ("--data.per_device_batch_size", "2", "--trainer.accumulate_grad_batches", "1")
    fit("--trainer.default_root_dir", str(one), "--trainer.max_steps", "3", *together)
    ours, theirs = (read_checkpoint(run / "last.ckpt")["state_dict"] for run in (one, two))
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], atol=2e-4, rtol=0)


def test_a_resume_with_other_accumulation_keeps_the_steps_whole(fit: Fit) -> None:
    fit("--trainer.max_steps", "3")
    together = ("--data.per_device_batch_size", "2", "--trainer.accumulate_grad_batches", "1")
    resumed = fit("--trainer.max_steps", "5", "--ckpt_path", "last", *together)
    assert resumed.trainer.global_step == 5
    assert _record(resumed).numbers == [6, 7, 8, 9]


def test_the_adapter_beside_a_checkpoint_holds_its_weights(fit: Fit, tmp_path: Path) -> None:
    done = fit("--trainer.max_steps", "2")
    adapter = load_adapter(tmp_path / "run" / "adapter-step-000002.safetensors")
    assert adapter.metadata is not None
    assert adapter.metadata.step == 2
    assert adapter.metadata.base_sha256 == done.model.wan.base.sha256
    assert adapter.metadata.dataset_fingerprint == done.datamodule.info.fingerprint
    state = done.model.wan.lora_state()
    assert all(torch.equal(adapter.state[name], state[name]) for name in state)


def test_a_second_run_in_the_same_folder_is_refused(fit: Fit, tmp_path: Path) -> None:
    fit("--trainer.max_steps", "2")
    config = (tmp_path / "run" / "config.yaml").read_bytes()
    with pytest.raises(FileExistsError, match=r"step-000002.ckpt; continue it with --ckpt_path last"):
        fit("--trainer.max_steps", "3", "--model.lora.rank", "2")
    assert (tmp_path / "run" / "config.yaml").read_bytes() == config


def test_a_torn_checkpoint_is_passed_over(fit: Fit, tmp_path: Path) -> None:
    fit("--trainer.max_steps", "4", "--checkpoint.every_n_steps", "2")
    newest = tmp_path / "run" / "step-000004.ckpt"
    newest.write_bytes(newest.read_bytes()[:-100])
    resumed = fit("--trainer.max_steps", "5", "--ckpt_path", "last")
    assert _record(resumed).numbers[0] == 4


def test_a_checkpoint_of_another_base_is_refused(fit: Fit, tmp_path: Path) -> None:
    fit("--trainer.max_steps", "1")
    path = tmp_path / "run" / "step-000001.ckpt"
    content = read_checkpoint(path)
    content["regen_train"]["base_sha256"] = "0" * 64
    torch.save(content, path)
    with pytest.raises(ValueError, match=r"base_sha256: the checkpoint has '0000.*, this run"):
        fit("--trainer.max_steps", "2", "--ckpt_path", "last")


def test_a_checkpoint_of_another_run_is_refused_with_every_difference(fit: Fit) -> None:
    fit("--trainer.max_steps", "1")
    other = ("--model.lora.alpha", "40", "--data.variant", "structall", "--model.recipe", "logit_normal")
    with pytest.raises(ValueError, match=r"alpha: the checkpoint has 4.0, this run 40.0") as caught:
        fit("--trainer.max_steps", "2", "--ckpt_path", "last", *other)
    assert "variant: the checkpoint has 'structhuman', this run 'structall'" in str(caught.value)
    assert "recipe: " in str(caught.value)
    assert "rank" not in str(caught.value)


def test_a_run_that_branches_off_is_refused(fit: Fit, tmp_path: Path) -> None:
    fit("--trainer.max_steps", "4", "--checkpoint.every_n_steps", "2")
    earlier = str(tmp_path / "run" / "step-000002.ckpt")
    with pytest.raises(FileExistsError, match=r"holds step-000004.ckpt, which .*step-000002.ckpt does not lead to"):
        fit("--trainer.max_steps", "3", "--ckpt_path", earlier)
    elsewhere = fit(
        "--trainer.max_steps", "3", "--ckpt_path", earlier, "--trainer.default_root_dir", str(tmp_path / "b")
    )
    assert elsewhere.trainer.global_step == 3


def test_torn_checkpoints_alone_are_no_start(fit: Fit, tmp_path: Path) -> None:
    fit("--trainer.max_steps", "1")
    only = tmp_path / "run" / "step-000001.ckpt"
    only.write_bytes(only.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"all checkpoints in .* are torn; move them away"):
        fit("--trainer.max_steps", "2", "--ckpt_path", "last")


def test_a_preview_without_a_vae_is_refused_before_training(fit: Fit, tmp_path: Path, tiny_model: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"previews need a VAE: .*preview.num_clips 0"):
        fit("--model.pretrained", "random:tiny", "--preview.num_clips", "1", "--trainer.max_steps", "1")


@pytest.mark.filterwarnings("ignore:You passed .*16-mixed")  # Lightning's, of a CPU
@pytest.mark.parametrize("precision", ["bf16-true", "16-mixed"])
def test_other_precisions_are_refused(fit: Fit, precision: str) -> None:
    with pytest.raises(ValueError, match=rf"trainer\.precision must be 32-true or bf16-mixed, got {precision}"):
        fit("--trainer.max_steps", "1", "--trainer.precision", precision)


def test_a_dataset_of_another_vae_is_refused(fit: Fit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("regen_train.training.dataset_check.state_sha256", lambda state, dtype: "f" * 64)
    with pytest.raises(ValueError, match=r"encoder.vae_sha256: the dataset has \w+, the model ffff.*encode the clips"):
        fit("--trainer.max_steps", "1")


def test_training_needs_an_end(fit: Fit) -> None:
    with pytest.raises(ValueError, match=r"trainer\.max_steps must say after how many steps to stop"):
        fit("--trainer.max_steps", "-1")


def test_a_diverged_run_ends_and_leaves_no_broken_checkpoint(fit: Fit, tmp_path: Path) -> None:
    wild = ("--model.optimizer.lr", "1e30", "--trainer.gradient_clip_val", "0", "--trainer.max_steps", "9")
    with pytest.raises(ValueError, match=r"train/loss is nan at step 5: the run has diverged"):
        fit(*wild)
    with pytest.raises(ValueError, match=r"weights hold NaN or infinity at step 3.*are not saved"):
        fit(*wild, "--checkpoint.every_n_steps", "3", "--trainer.log_every_n_steps", "100")
    assert list((tmp_path / "run").glob("step-*")) == []


def test_two_runs_do_not_share_a_folder(fit: Fit, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with (tmp_path / "run" / ".lock").open("ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(FileExistsError, match="another run is writing into"):
            fit("--trainer.max_steps", "1")
    fit("--trainer.max_steps", "1")


@pytest.fixture
def batch(tiny_dataset: Path) -> Batch:
    data = ShardDataModule(str(tiny_dataset), "structhuman", global_batch_size=3)
    data.setup("validate")
    rows = data.data.reader.dataset.rows
    same = [i for i, row in enumerate(rows) if row.bucket == rows[1].bucket][:3]
    loader_batch = data._collate(
        data.data.reader, same, [data.conditioning.fixed(i, rows[i].key, weight=1.0) for i in same]
    )
    assert len(loader_batch) == 3
    return loader_batch


@pytest.fixture
def module(tiny_model: Path) -> VaceModule:
    module = VaceModule(str(tiny_model), dtype="fp32", lora=LoraSpec(rank=4), checkpointing="none")
    module.trainer = L.Trainer(logger=False, accelerator="cpu", enable_progress_bar=False)
    module.configure_model()
    state = module.wan.lora_state()
    module.wan.load_lora_state({name: value + 0.01 for name, value in state.items()})
    return module


def test_a_samples_loss_does_not_depend_on_its_batch(module: VaceModule, batch: Batch) -> None:
    together = module.losses(batch)
    for i in range(3):
        alone = module.losses(batch.select([i]))
        assert torch.equal(alone.sigma[0], together.sigma[i])
        torch.testing.assert_close(alone.error[0], together.error[i], atol=1e-5, rtol=1e-5)


def test_samples_with_and_without_reference_share_a_batch(module: VaceModule, batch: Batch) -> None:
    mixed = Batch(**{**vars(batch), "use_reference": torch.tensor([True, False, True])})
    parts = module.losses(mixed)
    alone = [module.losses(mixed.select([i])).error[0] for i in (0, 2, 1)]
    torch.testing.assert_close(parts.error, torch.stack(alone), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(alone[2], module.losses(batch.select([1])).error[0])


def test_lora_dropout_is_keyed_by_sample(tiny_model: Path, batch: Batch) -> None:
    module = VaceModule(str(tiny_model), dtype="fp32", lora=LoraSpec(rank=4, dropout=0.5))
    module.trainer = L.Trainer(logger=False, accelerator="cpu", enable_progress_bar=False)
    module.configure_model()
    module.wan.load_lora_state({name: value + 0.1 for name, value in module.wan.lora_state().items()})
    torch.manual_seed(1)
    together = module.losses(batch).error
    torch.manual_seed(2)
    alone = [module.losses(batch.select([i])).error[0] for i in (2, 1, 0)]
    assert torch.equal(together.flip(0), torch.stack(alone))
    module.eval()
    assert not torch.equal(module.losses(batch).error, together)


def test_the_human_weight_moves_the_loss_towards_people(module: VaceModule, batch: Batch) -> None:
    people = Batch(**{**vars(batch), "human_coverage": torch.zeros_like(batch.human_coverage)})
    people.human_coverage[:, :, :2] = 1.0
    noise = torch.randn((*batch.latents.shape[:2], batch.latents.shape[2] + 1, *batch.latents.shape[3:]))
    sigma = torch.full((3,), 0.5)

    def losses(spec: LossSpec) -> Tensor:
        recipe = RECIPES["rectified_flow"]
        return sample_losses(module.wan, people, noise=noise, sigma=sigma, recipe=recipe, spec=spec).loss

    plain, weighted = losses(LossSpec()), losses(LossSpec(human_weight=1e6, reference_frame=False))
    only_people = losses(LossSpec(human_weight=1e9, reference_frame=False))
    torch.testing.assert_close(weighted, only_people, rtol=1e-3, atol=0)
    assert not torch.allclose(plain, weighted)
    assert not torch.allclose(plain, losses(LossSpec(reference_frame=False)))


def test_every_lora_factor_gets_gradient_and_nothing_else(module: VaceModule, batch: Batch) -> None:
    module.losses(batch).loss.mean().backward()
    for name, parameter in module.wan.transformer.named_parameters():
        has = parameter.grad is not None and bool(parameter.grad.any())
        assert has == (".lora_" in name), name


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_the_learning_rate_warms_up_and_falls(schedule: Any) -> None:
    spec = OptimizerSpec(warmup_steps=4, schedule=schedule, final_lr=0.1)
    factors = [spec.factor(step, 10) for step in range(11)]
    assert factors[:4] == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert factors[4] == 1
    assert factors[10] == pytest.approx(1.0 if schedule == "constant" else 0.1)


def test_impossible_options_are_refused_together() -> None:
    with pytest.raises(ValueError, match=r"lr must not be negative; warmup_steps .*; final_lr is a share"):
        OptimizerSpec(lr=-1.0, warmup_steps=-1, final_lr=2.0)
    with pytest.raises(ValueError, match="human_weight must not be negative"):
        LossSpec(human_weight=-1.0)


def test_validation_runs_on_the_average_alone_too(fit: Fit, quick_arguments: list[str], tmp_path: Path) -> None:
    done = fit("--trainer.max_steps", "10", "--trainer.val_check_interval", "20")
    in_training = _record(done).held_out[-1]
    again = ["--ckpt_path", "last"]
    averaged = TrainingCLI.run(["validate", *resolve_arguments([*quick_arguments, *again])])
    raw = TrainingCLI.run(["validate", *resolve_arguments([*quick_arguments, *again, "--ema.decay", "0"])])
    assert float(averaged.trainer.callback_metrics["val/loss"]) == in_training
    assert float(raw.trainer.callback_metrics["val/loss"]) != in_training
