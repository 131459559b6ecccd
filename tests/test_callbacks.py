"""What a run leaves behind besides its weights: one run of five steps, looked at from all sides."""

import io
import re
from collections import defaultdict
from contextlib import redirect_stdout
from dataclasses import dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from conftest import TINY_CONFIG
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor

from regen_train import flow
from regen_train.callbacks.meter import Measures
from regen_train.callbacks.summary import describe
from regen_train.checkpoint_io import read_checkpoint
from regen_train.configs import resolve_arguments
from regen_train.schema import MAX_PROMPT_TOKENS, Batch, Bucket
from regen_train.training import VALIDATION_SIGMAS, OptimizerSpec, VaceModule
from regen_train.training.flops import training_flops
from regen_train.training.matmul_rate import matmul_rate
from regen_train.training_cli import TrainingCLI
from regen_train.video import count_frames, probe_video

MAX_STEPS, DECAY, FPS = 5, 0.28, 7.5
SPEC = OptimizerSpec(lr=0.01, warmup_steps=2, schedule="cosine", final_lr=0.1)
OPTIONS = (
    *("--trainer.max_steps", str(MAX_STEPS), "--trainer.log_every_n_steps", "2"),
    *("--trainer.val_check_interval", "4"),  # in microbatches: after steps 2 and 4
    *("--trainer.logger", "true", "--trainer.callbacks+=test_callbacks.Record"),
    *("--model.optimizer.lr", str(SPEC.lr), "--model.optimizer.warmup_steps", str(SPEC.warmup_steps)),
    *("--model.optimizer.schedule", SPEC.schedule, "--model.optimizer.final_lr", str(SPEC.final_lr)),
    *("--ema.decay", str(DECAY), "--checkpoint.every_n_steps", "2", "--checkpoint.keep_last", "1"),
    *("--preview.num_clips", "1", "--preview.every_n_validations", "2", "--preview.num_inference_steps", "2"),
)


class Record(L.Callback):
    """Keeps what a run did, step by step."""

    def __init__(self) -> None:
        self.weights: dict[int, dict[str, Tensor]] = {}
        self.validated: dict[int, dict[str, Tensor]] = {}
        self.held_out: dict[int, list[Tensor]] = defaultdict(list)
        self.samples: dict[int, list[tuple[float, float]]] = defaultdict(list)  # error and sigma
        self.checkpoints: dict[int, list[str]] = {}
        self.learning_rates: list[float] = []
        self.buckets: list[Bucket] = []
        self.clips: dict[int, list[tuple[Bucket, bool]]] = defaultdict(list)  # bucket, with reference frame

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        self.weights[0] = pl_module.wan.trainable_state()

    def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: Any, optimizer: torch.optim.Optimizer) -> None:
        self.learning_rates.append(optimizer.param_groups[0]["lr"])

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Batch, batch_idx: int) -> None:
        step = batch_idx // trainer.accumulate_grad_batches + 1
        self.clips[step] += [(batch.bucket, use) for use in batch.use_reference.tolist()]
        self.samples[step] += zip(outputs["error"].tolist(), outputs["sigma"].tolist(), strict=True)
        self.weights[trainer.global_step] = pl_module.wan.trainable_state()
        self.checkpoints[step] = sorted(path.name for path in Path(trainer.default_root_dir).glob("step-*.ckpt"))

    def on_validation_batch_end(
        self, trainer: L.Trainer, pl_module: Any, outputs: Tensor, batch: Batch, batch_idx: int
    ) -> None:
        self.validated[trainer.global_step] = pl_module.wan.trainable_state()
        self.held_out[trainer.global_step].append(outputs[0])
        self.buckets.append(batch.bucket)

    def on_train_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        self.weights[-1] = pl_module.wan.trainable_state()


@dataclass(frozen=True)
class Run:
    """A run that has ended: the objects it used, what it printed, and what TensorBoard reads of it."""

    cli: TrainingCLI
    folder: Path
    record: Record
    printed: str
    events: EventAccumulator
    logged: dict[str, dict[int, float]]


@pytest.fixture(scope="module")
def run(tiny_model: Path, tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("callbacks") / "run"
    paths = ("--model.pretrained", str(tiny_model), "--data.path", str(tiny_dataset))
    arguments = ["--config", str(TINY_CONFIG), *paths, "--trainer.default_root_dir", str(folder), *OPTIONS]
    with redirect_stdout(io.StringIO()) as printed:
        cli = TrainingCLI.run(["fit", *resolve_arguments(arguments)])
    record = next(callback for callback in cli.trainer.callbacks if isinstance(callback, Record))
    events = EventAccumulator(str(folder / "logs"), size_guidance={"scalars": 0, "images": 0})
    events.Reload()
    logged = {tag: {event.step: event.value for event in events.Scalars(tag)} for tag in events.Tags()["scalars"]}
    return Run(cli, folder, record, printed.getvalue(), events, logged)


def test_the_average_follows_the_weights_and_is_what_validation_runs_on(run: Run) -> None:
    weights, average = run.record.weights, run.record.weights[0]
    for step in range(1, MAX_STEPS + 1):
        decay = min(DECAY, (1 + step) / (10 + step))  # 0.18, 0.25, and from then on DECAY
        average = {name: decay * value + (1 - decay) * weights[step][name] for name, value in average.items()}
        if step in run.record.validated:
            torch.testing.assert_close(run.record.validated[step], average, atol=1e-7, rtol=1e-6)
    assert list(run.record.validated) == [2, 4]
    checkpoint = read_checkpoint(run.folder / "last.ckpt")
    saved = {name.removeprefix("model."): value for name, value in checkpoint["ema_state_dict"].items()}
    torch.testing.assert_close(saved, average, atol=1e-7, rtol=1e-6)
    for name, value in checkpoint["state_dict"].items():
        assert torch.equal(value, weights[-1][name.removeprefix("model.")])
        assert torch.equal(value, weights[MAX_STEPS][name.removeprefix("model.")])
    assert any(not torch.equal(value, weights[MAX_STEPS][name]) for name, value in average.items())


def test_the_optimizer_is_given_the_schedule(run: Run) -> None:
    expected = [SPEC.lr * SPEC.factor(step, MAX_STEPS) for step in range(MAX_STEPS)]
    assert run.record.learning_rates == pytest.approx(expected)
    assert expected[:3] == pytest.approx([0.01 / 3, 0.02 / 3, 0.01])
    assert expected[-1] == pytest.approx(0.01 * (0.1 + 0.9 * 0.25))  # two thirds down the cosine


def test_losses_are_means_over_the_samples_since_the_last_log(run: Run) -> None:
    errors = {tag: values for tag, values in run.logged.items() if tag.startswith("train/error_sigma_")}
    steps = sorted(run.logged["train/loss"])
    assert {2, 4} <= set(steps)
    for before, step in pairwise([0, *steps]):
        samples = torch.tensor([pair for i in range(before + 1, step + 1) for pair in run.record.samples[i]])
        assert len(samples) == 2 * (step - before)
        error, sigma = samples.unbind(1)
        loss = (error * flow.bell_weight(sigma, 5.0)).mean()
        assert run.logged["train/loss"][step] == pytest.approx(float(loss), rel=1e-4)
        bins = (5 * sigma).long().clamp_max(4)
        expected = {
            f"train/error_sigma_{low / 5:.1f}-{(low + 1) / 5:.1f}": float(error[bins == low].mean())
            for low in bins.unique().tolist()
        }
        found = {tag: values[step] for tag, values in errors.items() if step in values}
        assert found == pytest.approx(expected, rel=1e-4)


def test_the_validation_loss_is_the_mean_over_clips_and_noise_levels(run: Run) -> None:
    logged = {tag: list(values.values()) for tag, values in run.logged.items()}
    assert list(run.record.held_out) == [2, 4]
    for i, outputs in enumerate(run.record.held_out.values()):
        assert len(outputs) == 2
        found = [logged[f"val/loss_sigma_{level}"][i] for level in VALIDATION_SIGMAS]
        assert found == pytest.approx(torch.stack(outputs).mean(0).tolist(), rel=1e-5)
        assert len(set(found)) == len(found)
        assert logged["val/loss"][i] == pytest.approx(sum(found) / len(found), rel=1e-5)
    assert all(len(values) == 2 for tag, values in logged.items() if tag.startswith("val/"))


def test_the_meter_measures_what_can_be(run: Run) -> None:
    meter = {tag.removeprefix("meter/"): values for tag, values in run.logged.items() if tag.startswith("meter/")}
    assert meter.keys() == {field.name for field in fields(Measures)} | {"epoch"}
    for step in (2, 4):
        assert 0 < meter["seconds_per_step"][step] < 60
        assert meter["samples_per_second"][step] * meter["seconds_per_step"][step] == pytest.approx(2)
        assert 0 <= meter["data_wait_share"][step] <= 1
        waited = meter["data_wait_share"][step] * meter["seconds_per_step"][step]
        assert meter["data_wait_seconds"][step] == pytest.approx(waited, abs=1e-6)
        assert 0.01 < meter["peak_memory_gib"][step] < 1000
        assert meter["epoch"][step] == pytest.approx(2 * step / run.cli.datamodule.samples_per_epoch)
        assert run.logged["train/adapter_norm"][step] > 0


def test_tokens_and_flops_are_those_of_the_clips_that_were_trained_on(run: Run) -> None:
    wan = run.cli.model.wan
    rate = matmul_rate(torch.device("cpu"), torch.float32)
    for step in (2, 4):
        clips = [clip for i in (step - 1, step) for clip in run.record.clips[i]]
        tokens = [wan.geometry.num_tokens(bucket, reference=reference) for bucket, reference in clips]
        assert len(tokens) == 4
        seconds = 2 * run.logged["meter/seconds_per_step"][step]
        assert run.logged["meter/tokens_per_second"][step] * seconds == pytest.approx(sum(tokens), rel=1e-4)
        assert wan.prompt_tokens < MAX_PROMPT_TOKENS, "else padding was computed"
        flops = sum(training_flops(wan, number, prompt_tokens=wan.prompt_tokens) for number in tokens)
        assert run.logged["meter/mfu"][step] * seconds * rate == pytest.approx(flops, rel=1e-4)
    assert re.search(r"tokens/s [\d,]+  MFU \d+%  GiB [\d.]+  wait [\d.]+ s", run.printed)


def test_a_preview_shows_condition_sample_and_original(run: Run) -> None:
    bucket = run.record.buckets[0]
    assert [path.name for path in (run.folder / "previews").iterdir()] == ["step-000004-clip-0.mp4"]
    video = run.folder / "previews" / "step-000004-clip-0.mp4"
    info = probe_video(video)
    assert (count_frames(video), info.height, info.width) == (bucket.num_frames, bucket.height, 3 * bucket.width)
    assert info.fps == pytest.approx(FPS)
    assert run.events.Tags()["images"] == ["preview/clip-0"]
    (shown,) = run.events.Images("preview/clip-0")
    assert shown.step == 4
    with Image.open(io.BytesIO(shown.encoded_image_string)) as animation:
        assert animation.size == (3 * bucket.width, bucket.height)
        assert animation.n_frames == bucket.num_frames
        panels = [
            animation.convert("RGB").crop((i * bucket.width, 0, (i + 1) * bucket.width, bucket.height))
            for i in range(3)
        ]
    assert len({panel.tobytes() for panel in panels}) == 3


def test_the_summary_says_what_is_trained_on_what(run: Run) -> None:
    module, data = run.cli.model, run.cli.datamodule
    assert isinstance(module, VaceModule)
    rows = dict(re.findall(r"^  (\S+(?: \S+)*)  +(.*)$", describe(run.cli.trainer, module), re.MULTILINE))
    assert rows["base"].startswith(f"{module.wan.base.name}  ")
    assert module.wan.base.sha256[:12] in rows["base"]
    assert rows["learns"].startswith("LoRA rank 4 on attn+ffn  ")
    assert str(data.path) in rows["dataset"]
    assert data.info.fingerprint[:12] in rows["dataset"]
    assert rows["dataset"].endswith("18 samples, structhuman")
    assert rows["held out"] == "2 samples"
    assert rows["batch"] == "2 samples a step = 1 processes x 1 x 2"
    assert rows["steps"] == f"{MAX_STEPS} done of {MAX_STEPS}"
    for name in ("base", "learns", "dataset", "batch"):
        assert rows[name] in run.printed
    assert f"0 done of {MAX_STEPS}" in run.printed
    assert run.printed.index("0 done of") < run.printed.index(f"step 2/{MAX_STEPS}")


def test_keep_last_leaves_the_newest_checkpoint_and_its_adapter(run: Run) -> None:
    assert [run.record.checkpoints[step] for step in (1, 3)] == [[], ["step-000002.ckpt"]]
    kept = sorted(path.name for path in run.folder.iterdir() if path.suffix in (".ckpt", ".safetensors"))
    assert kept == ["adapter-step-000005.safetensors", "last.ckpt", "step-000005.ckpt"]
    assert (run.folder / "last.ckpt").resolve() == (run.folder / "step-000005.ckpt").resolve()
    assert read_checkpoint(run.folder / "last.ckpt")["global_step"] == MAX_STEPS
