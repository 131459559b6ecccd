"""Context parallelism: processes that share a clip's tokens compute and learn as one process does."""

from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from processes import mean_over_processes, run_processes
from test_policies import gradients, inputs
from torch.distributed.device_mesh import init_device_mesh
from torch.profiler import ProfilerActivity, profile

from regen_train.model import BlockOptions, LoraSpec, Spread, WanVace, load_wan_vace
from regen_train.model.context_parallel import share_tokens
from regen_train.schema import Bucket

EVEN, UNEVEN = Bucket(5, 32, 48), Bucket(9, 16, 48)  # 12 and 9 tokens
MAIN = [{"lora": LoraSpec(rank=4)}, {"lora": LoraSpec(rank=4), "checkpointing": "full"}]
OTHERS = [
    {"lora": LoraSpec(rank=4), "checkpointing": "selective"},
    {"lora": LoraSpec(rank=4), "checkpointing": "offload"},
    {"lora": LoraSpec(rank=4), "attention": "_native_math"},
    {"trainable": "all"},
]
FROZEN = [  # not with FSDP2
    {"lora": LoraSpec(rank=4), "checkpointing": "full", "blocks": BlockOptions(swap=3)},
    {"lora": LoraSpec(rank=4), "blocks": BlockOptions(quantize="int8")},
]


def load(spread: Spread, **options) -> WanVace:
    model = load_wan_vace("random:tiny", **({"dtype": "fp32", "spread": spread} | options)).train()
    generator = torch.Generator().manual_seed(1)
    start = {
        name: torch.randn(parameter.shape, generator=generator).div(5)
        for name, parameter in model.trained_parameters().items()
    }
    if model.lora is not None:
        model.load_lora_state(start)
    return model


def note_length(lengths: list[int], block, args) -> None:
    lengths.append(args[0].shape[1])


def compare_with_one_process(fully_sharded: bool, cases: list[dict[str, Any]]) -> None:
    mesh = init_device_mesh("cpu", (2,))
    spread = Spread(mesh if fully_sharded else None, mesh.get_group())
    for options, bucket in product(cases, (EVEN, UNEVEN)):
        print(options, bucket, flush=True)  # of the case that fails
        models = [load(one, **options) for one in (Spread(), spread)]
        lengths = []
        models[1].transformer.blocks[1].register_forward_pre_hook(partial(note_length, lengths))
        outputs = []
        for model in models:
            outputs.append(model(**inputs(model, bucket=bucket)))
            outputs[-1].square().mean().backward()
        torch.testing.assert_close(outputs[1], outputs[0], atol=2e-6, rtol=1e-5)
        own = models[1].geometry.num_tokens(bucket, reference=False) / 2
        assert abs(lengths[0] - own) <= 0.5, "a process computes its share only"
        for name, gradient in gradients(models[0]).items():
            shared = gradients(models[1])[name]
            shared = shared.full_tensor() if fully_sharded else mean_over_processes(shared)
            torch.testing.assert_close(
                shared, gradient, atol=1e-4 * float(gradient.abs().max()), rtol=1e-4, msg=f"{name}: {{}}".format
            )


@pytest.mark.parametrize(
    ("fully_sharded", "cases"),
    [
        pytest.param(False, MAIN, id="as trained"),
        pytest.param(False, [*OTHERS, *FROZEN], id="all that can be chosen", marks=pytest.mark.long),
        pytest.param(True, [*MAIN, *OTHERS], id="with FSDP2", marks=pytest.mark.long),
    ],
)
def test_output_and_gradients_are_those_of_one_process(
    fully_sharded: bool, cases: list[dict[str, Any]], tmp_path: Path
) -> None:
    run_processes(2, compare_with_one_process, tmp_path, fully_sharded, cases)


def share_among_all() -> None:
    model = load_wan_vace("random:tiny", lora=LoraSpec(rank=4), dtype="fp32")
    with pytest.raises(ValueError, match="must divide the model's 2 attention heads, got 3; it can be 1, 2"):
        share_tokens(model.transformer, torch.distributed.group.WORLD)


def test_heads_that_cannot_be_shared_out_are_told(tmp_path: Path) -> None:
    run_processes(3, share_among_all, tmp_path)


def test_the_kernel_that_was_named_computes_shared_attention() -> None:
    torch.distributed.init_process_group("gloo", rank=0, world_size=1, store=torch.distributed.HashStore())
    spread, called = Spread(tokens=torch.distributed.group.WORLD), {}
    for attention in ("_native_flash", "_native_math"):
        model = load(spread, lora=LoraSpec(rank=4), attention=attention)
        with profile(activities=[ProfilerActivity.CPU]) as seen:
            model(**inputs(model, bucket=EVEN))
        called[attention] = sum("scaled_dot_product_flash" in event.name for event in seen.events())
    assert called == {"_native_flash": 2 * model.num_blocks, "_native_math": 0}
