"""What is chosen by memory: the largest step, what is kept of what learns, and the same choice on every process."""

from pathlib import Path
from types import SimpleNamespace

import lightning as L
import pytest
import torch
from lightning.pytorch.strategies import DDPStrategy
from processes import run_processes
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from regen_train.callbacks import LoraEma
from regen_train.data import ShardDataModule
from regen_train.model import LoraSpec, Upkeep, estimate_bytes
from regen_train.model.live_memory import LiveMemory
from regen_train.model.memory import USABLE_SHARE, choose_checkpointing, model_bytes
from regen_train.model.outline import outline_wan_vace
from regen_train.schema import Bucket, Geometry
from regen_train.training import VaceModule, workload
from regen_train.training.workload import largest_bucket, largest_tokens, upkeep_of, workload_of

GEOMETRY = Geometry(latent_channels=16, spatial_factor=8, temporal_factor=4, patch_size=(1, 2, 2), text_dim=32)
SAMPLES = {Bucket(5, 32, 32): 7, Bucket(5, 32, 48): 2, Bucket(81, 480, 832): 0}


class Data(ShardDataModule):
    """Of so many samples in each bucket."""

    samples_per_bucket = SAMPLES
    info = SimpleNamespace(geometry=GEOMETRY)


def data(reference: str = "none", together: int = 1) -> Data:
    return Data("nowhere", "structhuman", 1, reference=reference, processes_per_sample=together)


def test_the_largest_clip_is_one_that_is_trained_on() -> None:
    assert largest_bucket(data()) == Bucket(5, 32, 48)
    assert largest_tokens(data()) == 2 * 2 * 3
    assert largest_tokens(data(reference="first_condition")) == 3 * 2 * 3
    assert largest_tokens(data(reference="first_condition", together=4)) == 5


def trainer(*callbacks: L.Callback, strategy: object = "auto") -> L.Trainer:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_checkpointing": False}
    return L.Trainer(accelerator="cpu", devices=1, strategy=strategy, callbacks=list(callbacks), **quiet)


def test_what_learns_is_counted_by_strategy_and_average() -> None:
    assert upkeep_of(trainer(LoraEma(0.0))) == Upkeep()
    assert upkeep_of(trainer(LoraEma(0.9))) == Upkeep(copies=2)
    assert upkeep_of(trainer(strategy="ddp")) == Upkeep(in_buckets=True)
    assert upkeep_of(trainer(strategy=DDPStrategy(gradient_as_bucket_view=True))) == Upkeep()
    model = outline_wan_vace("random:tiny", lora=LoraSpec(rank=4))
    learning = model.num_parameters().trainable
    assert model_bytes(model).learning == 16 * learning
    more = Upkeep(in_buckets=True, copies=2)
    assert model_bytes(model, upkeep=more).learning == 28 * learning
    estimates = [estimate_bytes(model, "full", tokens=100, batch=1, upkeep=upkeep) for upkeep in (Upkeep(), more)]
    assert estimates[1] - estimates[0] == 12 * learning


def test_an_average_and_what_it_replaces_are_two_copies(tiny_model: Path) -> None:
    module = VaceModule(str(tiny_model), dtype="fp32", lora=LoraSpec(rank=4), checkpointing="none")
    ema = LoraEma(0.9)
    module.trainer = trainer(ema)
    module.configure_model()
    with LiveMemory() as memory:
        ema.on_train_start(module.trainer, module)
        ema.on_validation_start(module.trainer, module)
        assert memory.now == 4 * ema.num_copies * module.wan.num_parameters().trainable


def count_buckets() -> None:
    for view in (True, False):
        layer = nn.Linear(64, 64)
        with LiveMemory() as memory:
            wrapped = DistributedDataParallel(layer, gradient_as_bucket_view=view)
            wrapped(torch.ones(1, 64)).sum().backward()
        learning = 4 * sum(parameter.numel() for parameter in layer.parameters())
        assert memory.now // learning == (1 if view else 2)


def test_ddp_keeps_gradients_twice_unless_they_are_views(tmp_path: Path) -> None:
    run_processes(1, count_buckets, tmp_path)


def choose_together() -> None:
    rank, model = torch.distributed.get_rank(), outline_wan_vace("random:tiny", lora=LoraSpec(rank=4))
    needs = [estimate_bytes(model, policy, tokens=12, batch=1) for policy in ("none", "full")]
    workload.free_bytes = lambda device, *, processes: int(needs[rank] / USABLE_SHARE) + 1
    run = trainer()
    run.datamodule = data()
    assert choose_checkpointing(model, workload_of(run)) == "full", "what fits the process that has least"


def test_processes_with_unequal_memory_choose_the_same(tmp_path: Path) -> None:
    run_processes(2, choose_together, tmp_path)


def test_without_a_dataset_a_policy_must_be_named() -> None:
    with pytest.raises(ValueError, match="auto asks the dataset for its largest clip"):
        workload_of(trainer())


def test_a_real_dataset_is_asked(tiny_dataset: Path) -> None:
    opened = ShardDataModule(str(tiny_dataset), "structhuman", global_batch_size=1, reference="none")
    opened.setup("validate")
    assert largest_tokens(opened) == opened.info.geometry.num_tokens(Bucket(5, 32, 48), reference=False)
