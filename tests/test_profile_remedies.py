"""Where no checkpointing policy fits: what is offered in its place, and what is not."""

import copy
from dataclasses import replace
from functools import cache
from typing import Any

import lightning as L
import pytest

from regen_train.model import BlockOptions, LoraSpec, WanVace, Workload, estimate_bytes
from regen_train.model.assemble import empty_transformer
from regen_train.model.base import LoadedTransformer
from regen_train.model.outline import outline_of
from regen_train.model.random_init import random_config
from regen_train.profiling import remedies_of
from regen_train.training import FullyShardedStrategy, OptimizerSpec, VaceModule
from regen_train.training.workload import upkeep_of

GIB = 2**30
TOKENS = 21_840  # 49 frames of 480x832 and the reference


@cache
def outline(lora: LoraSpec | None, trainable: str) -> WanVace:
    config = {**random_config("random:14b"), "num_layers": 10, "vace_layers": [0, 5]}
    return outline_of(
        LoadedTransformer(empty_transformer(config), "shallow", None, 4), dtype="bf16", lora=lora, trainable=trainable
    )


class Unfitting:
    """A run on one process of the 14B model with a quarter of its blocks, and what would help it."""

    def __init__(self, free_gib: float, *, strategy: Any = "auto", device_type: str = "cuda", **options: Any) -> None:
        quiet = {"logger": False, "enable_progress_bar": False, "enable_checkpointing": False}
        self.module = VaceModule("random:14b", **({"checkpointing": "auto"} | options))
        self.trainer = L.Trainer(accelerator="cpu", devices=1, strategy=strategy, **quiet)
        self.model = self._with(self.module.blocks)
        self.workload = Workload(TOKENS, 1, int(free_gib * GIB), device_type, upkeep_of(self.trainer))

    def remedies(self) -> dict[str, float]:
        """Return GiB by policy and options."""
        lines = remedies_of(self.model, self.workload, trainer=self.trainer, module=self.module)
        return {how: float(gib) for how, gib in (line.rsplit(": ", 1) for line in lines)}

    def gib(self, policy: str, *, tokens: int = TOKENS, **changes: Any) -> float:
        """Return what the same estimate says of other options."""
        return estimate_bytes(self._with(BlockOptions(**changes)), policy, tokens=tokens, batch=1) / GIB

    def _with(self, blocks: BlockOptions) -> WanVace:
        model = copy.copy(outline(self.module.lora, self.module.trainable))
        model.block_options = blocks
        return model


def test_what_would_fit_is_listed_with_its_size() -> None:
    run = Unfitting(20.5)
    remedies = run.remedies()
    swapped, *others = remedies
    swap = int(swapped.removeprefix("full with --model.blocks.swap "))
    assert others == [
        "full with --model.blocks.quantize int8",
        "full with --model.blocks.quantize nf4",
        "full with --config strategy_fsdp2.yaml on 4 GPUs",
        "full with --config strategy_context_parallel.yaml, 2 GPUs a clip",
    ]
    expected = [run.gib("full", swap=swap), run.gib("full", quantize="int8"), run.gib("full", quantize="nf4")]
    assert list(remedies.values())[:3] == pytest.approx(expected, abs=0.06)
    assert all(size <= 0.9 * 20.5 for size in remedies.values())
    assert run.gib("full", swap=swap - 1) > 0.9 * 20.5, "it swaps more than is needed"
    assert run.model.block_options == BlockOptions(), "it left the model changed"


def test_offload_is_taken_where_nothing_else_would_do() -> None:
    remedies = Unfitting(15.33).remedies()
    assert [how.rstrip("1234567890") for how in remedies] == [
        "offload with --model.blocks.swap ",
        "offload with --model.blocks.quantize int8 --model.blocks.swap ",
        "offload with --model.blocks.quantize nf",
        "full with --config strategy_context_parallel.yaml --model.context_parallel 4, 4 GPUs a clip",
    ]
    assert Unfitting(1).remedies() == {}


def test_a_policy_that_is_set_is_changed_along() -> None:
    for policy in ("none", "selective"):
        assert all(
            "with --model.checkpointing full --" in how for how in Unfitting(20.5, checkpointing=policy).remedies()
        )
    assert "with --model.checkpointing" not in str(Unfitting(20.5, checkpointing="full").remedies())


NAMES = ("--model.blocks.quantize", "--model.blocks.swap", "strategy_fsdp2", "strategy_context_parallel")
CASES = {
    "dora": (20.5, {"lora": LoraSpec(use_dora=True)}, {NAMES[1], NAMES[2], NAMES[3]}),
    "muon": (20.5, {"optimizer": OptimizerSpec(name="muon")}, {NAMES[0], NAMES[1], NAMES[3]}),
    "all": (85, {"lora": None, "trainable": "all"}, {NAMES[2], NAMES[3]}),
    "compile": (20.5, {"blocks": BlockOptions(compile=True)}, {NAMES[0], NAMES[1], NAMES[2]}),
    "swap": (20.5, {"blocks": BlockOptions(swap=1)}, {NAMES[0], NAMES[1], NAMES[3]}),
    "dropout": (20.5, {"lora": LoraSpec(dropout=0.1)}, {NAMES[0], NAMES[1], NAMES[2]}),
    "fsdp2": (18.5, {"strategy": FullyShardedStrategy()}, {NAMES[2], NAMES[3]}),
    "context parallel": (18.5, {"context_parallel": 2}, set(NAMES)),
    "cpu": (18.5, {"device_type": "cpu"}, {NAMES[0]}),
    "cpu, quantized": (10, {"device_type": "cpu", "blocks": BlockOptions(quantize="int8")}, set()),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_only_what_goes_with_the_configuration_is_listed(case: tuple[float, dict[str, Any], set[str]]) -> None:
    free_gib, options, expected = case
    remedies = Unfitting(free_gib, **options).remedies()
    assert {name for name in NAMES if any(name in how for how in remedies)} == expected


def test_what_is_done_already_is_gone_on_with() -> None:
    quantized = list(Unfitting(15, blocks=BlockOptions(quantize="fp8", swap=4)).remedies())
    assert quantized[0].startswith("offload with --model.blocks.swap ")
    assert int(quantized[0].rpartition(" ")[2]) > 4
    assert quantized[1] == "offload with --model.blocks.quantize nf4", "four swapped already are enough"


def test_long_clips_are_shared_by_as_few_neighbours_as_do() -> None:
    run = Unfitting(20, context_parallel=2)
    run.workload = replace(run.workload, tokens=2 * TOKENS)  # of each of the two
    remedies = run.remedies()
    (shared,) = (how for how in remedies if "context" in how)
    assert shared == "full with --config strategy_context_parallel.yaml --model.context_parallel 8, 8 GPUs a clip"
    assert remedies[shared] == pytest.approx(run.gib("full", tokens=TOKENS // 2), abs=0.06)
