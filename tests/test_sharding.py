"""FSDP2: weights spread over processes compute, learn, load and are saved as whole ones are."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from processes import mean_over_processes, run_processes
from test_policies import gradients, inputs, loss_of
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh

from regen_train.model import (
    BlockOptions,
    LoraSpec,
    Spread,
    Upkeep,
    WanVace,
    compiling,
    estimate_bytes,
    load_wan_vace,
    wan_vace,
)
from regen_train.model.live_memory import LiveMemory
from regen_train.model.random_init import RANDOM_CONFIGS
from regen_train.model.sharding import is_sharded, own_part, whole
from regen_train.schema import Bucket

MAIN: list[dict[str, Any]] = [
    {"lora": LoraSpec(rank=4)},
    {"lora": LoraSpec(rank=4), "dtype": "bf16", "checkpointing": "full"},
]
OTHERS: list[dict[str, Any]] = [
    {"lora": LoraSpec(rank=4, use_dora=True)},
    {"lora": LoraSpec(rank=4), "checkpointing": "selective"},
    {"lora": LoraSpec(rank=4), "checkpointing": "offload"},
    {"trainable": "vace", "checkpointing": "full"},
    {"trainable": "all"},
]


def load(pretrained: str, *, sharded: bool, **options: Any) -> WanVace:
    mesh = init_device_mesh("cpu", (torch.distributed.get_world_size(),)) if sharded else None
    options = {"dtype": "fp32"} | options
    return load_wan_vace(pretrained, seed=3, spread=Spread(weights=mesh), **options).train()


def moved(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {name: value + 0.1 * torch.randn(value.shape, generator=generator) for name, value in state.items()}


def compare_with_whole(pretrained: str, options: dict[str, Any]) -> None:
    rank = torch.distributed.get_rank()
    expected, found = (load(pretrained, sharded=sharded, **options) for sharded in (False, True))
    parameters = dict(expected.transformer.named_parameters())
    for name, parameter in found.transformer.named_parameters():
        assert is_sharded(parameter), name
        assert parameter.dtype == parameters[name].dtype, name
        assert parameter.requires_grad == parameters[name].requires_grad, name
        assert torch.equal(whole(parameter.detach()), parameters[name]), name
    assert found.base == expected.base
    start = moved(expected.trainable_state())
    for model in (expected, found):
        model.load_trainable_state(start)
        model.losses = [loss_of(model, seed=rank + 10 * i) for i in range(2)]  # two passes, then one backward
        sum(model.losses).backward()
    tolerance = 1e-5 if expected.dtype == torch.float32 else 2e-2
    torch.testing.assert_close(found.losses, expected.losses, rtol=1e-6, atol=0)
    for name, gradient in gradients(expected).items():
        wanted = mean_over_processes(gradient)
        torch.testing.assert_close(
            whole(gradients(found)[name]), wanted, rtol=0, atol=tolerance * float(wanted.abs().max()), msg=name
        )
    saved = found.trainable_state()
    assert saved.keys() == (start.keys() if rank == 0 else set())
    assert all(torch.equal(saved[name], start[name]) for name in saved)
    assert found.adapter_norm() == pytest.approx(expected.adapter_norm(), rel=1e-6)


def load_frugally() -> None:
    with LiveMemory() as memory:
        model = load("random:tiny", sharded=True)
    parameters = list(model.parameters())
    total = sum(p.nbytes for p in parameters)
    own = sum(own_part(p.detach()).nbytes for p in parameters)
    assert own <= 0.51 * total
    assert memory.now >= own, "else nothing was counted"
    # besides its own parts a process has rotary tables, and one whole tensor at a time
    assert memory.peak < 0.7 * total, f"peak {memory.peak:,}, own {own:,}, total {total:,}"


def step_as_estimated() -> None:
    # As beside the tokens of a real clip, prompts must not count; padded to 512 they would outnumber these.
    wan_vace.pad_shortly = lambda prompts, *, num_tokens: prompts
    model, bucket = load("random:tiny", sharded=True, lora=LoraSpec(rank=4), checkpointing="full"), Bucket(9, 96, 96)
    optimizer, given = torch.optim.AdamW(model.trained_parameters().values()), inputs(model, bucket=bucket)
    with LiveMemory() as memory:
        model(**given).square().mean().backward()
        optimizer.step()
    counted = memory.peak + sum(own_part(p.detach()).nbytes for p in model.parameters())
    tokens = model.geometry.num_tokens(bucket, reference=False)
    upkeep = Upkeep(num_shards=torch.distributed.get_world_size())
    estimated = estimate_bytes(model, "full", tokens=tokens, batch=2, upkeep=upkeep)
    assert 0.75 < estimated / counted < 1.35, f"{estimated:,} bytes estimated, {counted:,} counted"


def compare_compiled_with_plain(policies: list[str]) -> None:
    compiling.BACKEND, compiling.keep_kernels = "aot_eager", lambda: None
    RANDOM_CONFIGS["tiny"] |= {"num_layers": 2, "vace_layers": [0]}

    def trained(policy: str, **options: Any) -> dict[str, Tensor]:
        model, values = load("random:tiny", sharded=True, checkpointing=policy, **options), {}
        model.load_trainable_state(moved(start))
        optimizer = torch.optim.SGD(model.trained_parameters().values(), lr=0.1)
        for step in range(2):
            optimizer.zero_grad()
            loss_of(model, seed=2 * step + torch.distributed.get_rank()).backward()
            optimizer.step()
            values |= {f"{name}, step {step}": whole(of) for name, of in gradients(model).items()}
        return values | {name: whole(value.detach()) for name, value in model.trained_parameters().items()}

    start = load("random:tiny", sharded=False).trainable_state()
    expected = trained("none")
    for policy in policies:
        found = trained(policy, blocks=BlockOptions(compile=True))
        for name, value in expected.items():
            assert (found[name] - value).norm() < 1e-4 * value.norm(), f"{policy}: {name}"
    assert compiling.compilation().graphs == 3, "each kind of block once, as where no weights are spread"


def compare_all(pretrained: str, cases: list[dict[str, Any]]) -> None:
    for options in cases:
        print(options, flush=True)  # of the case that fails
        compare_with_whole(pretrained, options)


def test_no_process_ever_holds_the_whole_base(tmp_path: Path) -> None:
    run_processes(2, load_frugally, tmp_path)


@pytest.mark.parametrize(
    "policies", [["selective"], pytest.param(["none", "full", "offload"], marks=pytest.mark.slow)], ids=" and ".join
)
def test_compiled_blocks_learn_what_plain_ones_learn(policies: list[str], tmp_path: Path) -> None:
    run_processes(2, compare_compiled_with_plain, tmp_path, policies)


def test_a_step_needs_the_memory_that_is_estimated(tmp_path: Path) -> None:
    run_processes(2, step_as_estimated, tmp_path)


@pytest.mark.parametrize(
    "cases", [MAIN, pytest.param(OTHERS, marks=pytest.mark.long)], ids=["as trained", "all options"]
)
def test_computes_learns_and_saves_as_one_process(
    cases: list[dict[str, Any]], tiny_model: Path, tmp_path: Path
) -> None:
    run_processes(2, compare_all, tmp_path, str(tiny_model), cases)


@pytest.mark.parametrize(
    ("blocks", "spread", "message"),
    [
        (
            BlockOptions(swap=2),
            "weights",
            "blocks.swap: 2 needs whole weights, which FSDP2 spreads; .* --trainer.strategy ddp",
        ),
        (BlockOptions(quantize="int8"), "weights", "blocks.quantize: int8 needs whole weights, which FSDP2 spreads"),
        (BlockOptions(compile=True), "tokens", "not made for context_parallel.* blocks.compile: false or context_para"),
    ],
    ids=["swap", "quantize", "compile"],
)
def test_what_cannot_be_done_to_shared_blocks_is_refused(blocks: BlockOptions, spread: str, message: str) -> None:
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    mesh = init_device_mesh("cpu", (1,))
    spreads = {"weights": Spread(weights=mesh), "tokens": Spread(tokens=mesh.get_group())}
    with pytest.raises(ValueError, match=message):
        load_wan_vace("random:tiny", blocks=blocks, spread=spreads[spread])
