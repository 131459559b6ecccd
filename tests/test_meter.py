"""What the meter says of steps that several processes shared, and of memory that was given back."""

import inspect
import subprocess
import sys

import lightning as L
import psutil
import pytest
import torch

from regen_train.callbacks.meter import Interval, Work, measure, peak_memory_gib
from regen_train.data import ShardDataModule
from regen_train.model import LoraSpec
from regen_train.model.outline import outline_wan_vace
from regen_train.schema import Bucket
from regen_train.training import VaceModule
from regen_train.training.flops import training_flops

BUCKET = Bucket(5, 32, 48)
SMALL, LARGE = 2 * 2 * 3, 3 * 2 * 3  # tokens without and with the reference
RATE = 1e9


class OneOfFour(L.Trainer):
    """A trainer that takes itself for one of four processes, of which every two compute their clips together."""

    world_size = 4

    def __init__(self) -> None:
        super().__init__(accelerator="cpu", devices=1, logger=False, enable_checkpointing=False)
        self.datamodule = ShardDataModule("nowhere", "structhuman", 12, processes_per_sample=2)


def test_what_neighbours_compute_together_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("regen_train.callbacks.meter.matmul_rate", lambda device, dtype: RATE)
    module = VaceModule("random:tiny")
    module.model = outline_wan_vace("random:tiny", lora=LoraSpec(rank=4))
    work = Work({BUCKET: 18}, {BUCKET: torch.tensor(4)})  # 3 steps of 6 clips: the other two have the other 6
    measures = measure(OneOfFour(), module, Interval(steps=3, seconds=6.0, waited=1.5, work=work))
    assert measures.tokens_per_second == pytest.approx(2 * (4 * LARGE + 14 * SMALL) / 6)
    flops = 4 * training_flops(module.wan, LARGE) + 14 * training_flops(module.wan, SMALL)
    assert measures.mfu == pytest.approx(flops / 2 / 6 / RATE)
    assert measures.samples_per_second == pytest.approx(3 * 12 / 6)
    assert measures.seconds_per_step == pytest.approx(2)
    assert (measures.data_wait_seconds, measures.data_wait_share) == pytest.approx((0.5, 0.25))


def test_a_process_answers_for_its_own_memory_alone() -> None:
    held = torch.ones(400 * 2**20, dtype=torch.uint8)
    source = inspect.getsource(peak_memory_gib)
    script = f"import resource, sys\nfrom pathlib import Path\nclass torch: device = object\n{source}\n"
    script += "class cpu: type = 'cpu'\nprint(peak_memory_gib(cpu))"
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert float(told) < 0.2 < held.nbytes / 2**30


def test_the_peak_of_memory_stays_when_memory_is_given_back() -> None:
    def resident() -> float:
        return psutil.Process().memory_info().rss / 2**30

    before = peak_memory_gib(torch.device("cpu"))
    room = before - resident() + 0.1
    held = torch.ones(int(room * 2**30), dtype=torch.uint8)
    high = resident()
    del held
    assert resident() < high - 0.09
    assert peak_memory_gib(torch.device("cpu")) == pytest.approx(high, rel=0.02)
    assert peak_memory_gib(torch.device("cpu")) > before
