import itertools
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L
import pytest
import torch
from toy_dataset import SETTINGS, SMALL, SMALLER, make_sample, write_dataset

from regen_train.data import (
    Dropout,
    HeldOut,
    Loading,
    ShardDataModule,
)
from regen_train.data.opened import clip_of
from regen_train.schema import Batch, Sample

HELD_OUT = HeldOut(num_samples=3)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("data") / "dataset"
    write_dataset(folder, map(one_of_two_buckets, range(18)))
    return str(folder)


def one_of_two_buckets(number: int) -> Sample:
    return make_sample(number, bucket=SMALLER if number % 3 == 0 else SMALL)


def make_module(path: str, variant: Any = "structhuman", global_batch_size: int = 4, **options: Any) -> ShardDataModule:
    return ShardDataModule(path, variant, global_batch_size, **options)


def as_process(module: ShardDataModule, rank: int = 0, world_size: int = 1, *, step: int = 0) -> ShardDataModule:
    """Give a module what it asks of Lightning's trainer."""
    share = world_size * module.per_device_batch_size
    trainer: Any = SimpleNamespace(
        distributed_sampler_kwargs={"rank": rank, "num_replicas": world_size},
        accumulate_grad_batches=module.global_batch_size // share,
        limit_train_batches=1.0,
        overfit_batches=0.0,
        global_step=step,
        strategy=SimpleNamespace(root_device=torch.device("cpu")),
        state=SimpleNamespace(fn="fit"),
    )
    module.trainer = trainer
    module.setup("fit")
    return module


def take(module: ShardDataModule, count: int) -> list[Batch]:
    iterator = iter(module.train_dataloader())
    batches = list(itertools.islice(iterator, count))
    iterator.close()  # type: ignore[attr-defined]
    return batches


def test_the_order_and_the_draws_are_the_same_on_every_number_of_processes(dataset: str) -> None:
    options = {"dropout": Dropout(prompt=0.5, reference=0.5), "validation": HELD_OUT}
    mix = {"structhuman": 0.5, "structall": 0.5}

    def stream(world_size: int, per_device: int) -> dict[int, tuple[Any, ...]]:
        found = {}
        for rank in range(world_size):
            module = as_process(
                make_module(dataset, mix, per_device_batch_size=per_device, **options), rank, world_size
            )
            for batch in take(module, 6 * 4 // (world_size * per_device)):
                for i, number in enumerate(batch.numbers):
                    one = batch.select([i])
                    tensors = (one.latents, one.vace_context, one.prompt_embeds, one.reference)
                    drawn = (one.keys, one.variants, one.use_reference.tolist(), [t.sum().item() for t in tensors])
                    assert number not in found
                    found[number] = drawn
        assert sorted(found) == list(range(24))
        return found

    alone = stream(1, 4)
    assert alone == stream(4, 1) == stream(2, 2) == stream(2, 1) == stream(1, 1)
    assert {drawn[1] for drawn in alone.values()} == {("structhuman",), ("structall",)}
    assert {drawn[2][0] for drawn in alone.values()} == {True, False}


def test_position_enters_the_stream_where_it_was_left(dataset: str) -> None:
    whole = [batch.keys for batch in take(as_process(make_module(dataset)), 24)]
    left = as_process(make_module(dataset), step=3)
    state = left.state_dict()
    assert (state["position"], state["step"]) == (12, 3)
    resumed = as_process(make_module(dataset, per_device_batch_size=2), step=0)
    resumed.load_state_dict(state)
    resumed.trainer.global_step = 3  # type: ignore[union-attr]
    assert resumed.position == 12
    assert [key for batch in take(resumed, 6) for key in batch.keys] == [key for keys in whole[12:] for key in keys]
    assert resumed.epoch == 12 / resumed.samples_per_epoch


def test_a_prefetched_batch_is_not_consumed(dataset: str) -> None:
    module = as_process(make_module(dataset))
    take(module, 7)
    assert module.position == 0
    assert module.wait_seconds > 0


def test_another_stream_is_not_continued(dataset: str, tmp_path: Path) -> None:
    state = as_process(make_module(dataset)).state_dict()
    write_dataset(tmp_path / "other", map(make_sample, range(8)))
    other = as_process(make_module(str(tmp_path / "other"), global_batch_size=2, seed=1, validation=HELD_OUT))
    with pytest.raises(ValueError, match="cannot be continued") as caught:
        other.load_state_dict(state)
    for fault in (
        "data.seed: the checkpoint has 0, the config 1",
        "data.global_batch_size: the checkpoint has 4, the config 2",
        "samples held out of it: the checkpoint has 0, the config 3",
        f"dataset fingerprint: the checkpoint has '{state['dataset fingerprint']}'",
        "model.lora.init",
    ):
        assert fault in str(caught.value)
    other.trainer.state.fn = "validate"  # type: ignore[union-attr]
    other.load_state_dict(state)  # validating on other data is no resume


# Validation


def test_held_out_samples_are_not_trained_on_and_do_not_depend_on_the_seed(dataset: str) -> None:
    chosen = []
    for seed in range(3):
        module = as_process(make_module(dataset, seed=seed, validation=HELD_OUT, per_device_batch_size=2))
        held_out = [key for batch in module.val_dataloader() for key in batch.keys]
        trained = {key for batch in take(module, 20) for key in batch.keys}
        assert not trained & set(held_out)
        assert module.num_held_out == len(set(held_out)) == 3
        assert sum(module.samples_per_bucket.values()) == 15
        chosen.append(held_out)
    assert chosen[0] == chosen[1] == chosen[2]


def test_no_window_of_a_held_out_clip_is_trained_on(tmp_path: Path) -> None:
    """Five windows of each of four clips, in two buckets."""
    windows = (replace(one_of_two_buckets(i), key=f"{i % 4:024x}-{i // 4:04d}") for i in range(20))
    write_dataset(tmp_path / "windows", windows)
    for count, num_clips in ((1, 1), (5, 1), (6, 2), (8, 2)):
        module = as_process(make_module(str(tmp_path / "windows"), validation=HeldOut(num_samples=count)))
        held_out = {key for batch in module.val_dataloader() for key in batch.keys}
        trained = {key for batch in take(module, 40) for key in batch.keys}
        clips = {clip_of(key) for key in held_out}
        assert (len(held_out), module.num_held_out, len(clips)) == (count, count, num_clips)
        assert clips.isdisjoint(map(clip_of, trained))
        assert sum(module.samples_per_bucket.values()) == 20 - 5 * num_clips
        assert module.state_dict()["samples held out of it"] == 5 * num_clips


def test_only_a_key_of_a_window_names_a_clip() -> None:
    clip = "0123456789ab" * 2
    assert clip_of(f"{clip}-0000") == clip_of(f"{clip}-12345") == clip
    others = ["clip-0001", clip, f"{clip}-001", f"{clip[1:]}-0001", f"0{clip}-0001", f"{clip.upper()}-0001"]
    assert [clip_of(key) for key in others] == others


def test_a_hold_out_that_leaves_nothing_to_train_on_is_refused(tmp_path: Path) -> None:
    write_dataset(tmp_path / "one", [replace(make_sample(i), key=f"{'ab' * 12}-{i:04d}") for i in range(4)])
    module = make_module(str(tmp_path / "one"), validation=HeldOut(num_samples=1))
    with pytest.raises(ValueError, match=r"leaves none of .*clips are held out whole and it has 1; prepare more clips"):
        as_process(module)


def test_validation_gives_every_sample_its_prompt_and_weight_once(dataset: str) -> None:
    dropout = Dropout(prompt=1.0, reference=1.0)
    counted: Counter[int] = Counter()
    for rank in range(2):
        module = make_module(dataset, {"structhuman": 1.0, "structall": 1.0}, validation=HELD_OUT, dropout=dropout)
        loader = as_process(module, rank, 2).val_dataloader()
        assert len(loader) == 2
        for batch in loader:
            assert batch.use_reference.all()
            number = int(batch.keys[0].removeprefix("clip-"))
            assert torch.equal(batch.prompt_embeds[0, :5], one_of_two_buckets(number).prompt_embeds)
            counted.update({batch.numbers[0]: int(batch.weight[0])})
    assert counted == {0: 1, 1: 1, 2: 1}


def test_validation_on_a_dataset_of_its_own(dataset: str, tmp_path: Path) -> None:
    write_dataset(tmp_path / "val", map(make_sample, range(100, 105)))
    module = as_process(make_module(dataset, validation=HeldOut(path=str(tmp_path / "val"))))
    keys = [key for batch in module.val_dataloader() for key in batch.keys]
    assert keys == [f"clip-{number:04d}" for number in range(100, 105)]
    assert sum(module.samples_per_bucket.values()) == 18
    fewer = as_process(make_module(dataset, validation=HeldOut(path=str(tmp_path / "val"), num_samples=2)))
    assert {key for batch in fewer.val_dataloader() for key in batch.keys} < set(keys)
    assert as_process(make_module(dataset)).val_dataloader() == []


# What a config expects


def test_every_unmet_expectation_is_named(dataset: str) -> None:
    expect = {
        "settings.fps": 16.0,
        "settings.num_frames": 9,
        "settings.conditions": ("structhuman", "structall"),
        "encoder.pretrained": "Wan-AI/Wan2.1-VACE-1.3B-diffusers",
        "encoder.revision": "main",
        "settings.fps.unit": "Hz",
    }
    module = make_module(dataset, {"structhuman": 1.0, "depth": 1.0}, expect=expect, validation=HeldOut(num_samples=99))
    with pytest.raises(ValueError, match="is not what the config describes") as caught:
        module.setup("fit")
    lines = str(caught.value).splitlines()[1:]
    assert [line.strip().split(":")[0] for line in lines] == [
        "settings.fps",
        "encoder.pretrained",
        "encoder.revision",
        "settings.fps.unit",
        f"variant 'depth' is not in {dataset}, which has structall, structhuman",
        f"validation.num_samples is 99, but {dataset} has 18",
    ]
    assert "the dataset has 7.5, the config expects 16.0" in lines[0]
    assert "the dataset has 'toy', the config expects 'Wan-AI/Wan2.1-VACE-1.3B-diffusers'" in lines[1]
    assert "no such field (at 'revision' it has: pretrained, vae_sha256)" in lines[2]
    make_module(dataset, expect={"settings.fps": 7.5, "settings.conditions": SETTINGS["conditions"]}).setup("fit")


def test_batch_sizes_are_checked_against_the_trainer(dataset: str) -> None:
    def trainer(**options: Any) -> L.Trainer:
        return L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, max_steps=1, **options)

    module = make_module(dataset, global_batch_size=4)
    module.trainer = trainer()
    with pytest.raises(ValueError, match=r"4, but 1 processes x .* set --trainer\.accumulate_grad_batches 4"):
        module.setup("fit")
    module.trainer = trainer(accumulate_grad_batches=4, limit_train_batches=6)
    with pytest.raises(ValueError, match="the stream of samples has none; use trainer"):
        module.setup("fit")
    module = make_module(dataset, global_batch_size=16)
    module.trainer = trainer(accumulate_grad_batches=16)
    with pytest.raises(ValueError, match="global_batch_size is 16, but no bucket has so many samples"):
        module.setup("fit")
    module.setup("validate")  # which needs no global batch


@pytest.mark.parametrize(
    "make",
    [
        lambda: Dropout(prompt=1.5),
        lambda: Dropout(reference=-0.1),
        lambda: HeldOut(num_samples=-1),
        lambda: Loading(prefetch=0),
        lambda: Loading(num_threads=0),
        lambda: make_module("nowhere", per_device_batch_size=0).setup("validate"),
    ],
)
def test_settings_out_of_range_are_refused(make: Any) -> None:
    with pytest.raises((ValueError, FileNotFoundError)):
        make()


# With Lightning


class Recorder(L.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen: list[tuple[int, ...]] = []
        self.validated: list[tuple[int, ...]] = []

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        self.seen.append(batch.numbers)
        return (self.weight * batch.latents.float().mean()).sum()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.validated.append(batch.numbers)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.mark.filterwarnings("ignore:.*weights_only", "ignore::lightning.pytorch.utilities.warnings.PossibleUserWarning")
def test_lightning_resumes_the_stream(dataset: str, tmp_path: Path) -> None:
    def run(max_steps: int, checkpoint: Path | None = None) -> tuple[Recorder, L.Trainer]:
        module = Recorder()
        trainer = L.Trainer(
            accelerator="cpu",
            accumulate_grad_batches=2,
            max_steps=max_steps,
            max_epochs=-1,
            check_val_every_n_epoch=None,
            val_check_interval=4,
            num_sanity_val_steps=0,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
        )
        data = make_module(dataset, per_device_batch_size=2, validation=HELD_OUT)
        trainer.fit(module, data, ckpt_path=checkpoint, weights_only=True)
        assert data.position == 4 * max_steps
        return module, trainer

    whole, _ = run(7)
    assert [number for numbers in whole.seen for number in numbers] == list(range(28))
    assert len(whole.validated) == 3 * 2
    first, trainer = run(3)
    trainer.save_checkpoint(tmp_path / "three.ckpt")
    second, _ = run(7, tmp_path / "three.ckpt")
    assert first.seen + second.seen == whole.seen
