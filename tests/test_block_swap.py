"""Swapped blocks: bit-equal outputs and gradients, two of them on the device, and nothing that moves them there."""

from pathlib import Path

import pytest
import torch
from test_policies import gradients, inputs, loss_of, tiny
from torch import Tensor

from regen_train.model import BlockOptions, LoraSpec, WanVace, compiling, estimate_bytes
from regen_train.model.block_swap import swapped_places
from regen_train.model.checkpointing import POLICIES
from regen_train.model.outline import outline_wan_vace
from regen_train.model.random_init import RANDOM_CONFIGS
from regen_train.training_cli import TrainingCLI

NUM_BLOCKS = 4


def two_passes(model: WanVace) -> dict[str, Tensor]:
    """Return gradients of two passes before one backward, as in a mixed batch."""
    torch.manual_seed(0)  # of the dropout
    (loss_of(model) + loss_of(model, seed=1)).backward()
    return gradients(model)


LORA = {"lora": LoraSpec(rank=4)}


@pytest.mark.parametrize(
    ("policy", "options", "quantize"),
    [
        *((policy, LORA, "none") for policy in POLICIES),
        ("selective", {"lora": LoraSpec(rank=4, dropout=0.5), "dtype": "bf16"}, "none"),
        ("none", {"trainable": "vace"}, "none"),
        ("none", LORA, "int8"),
        ("full", LORA, "int8"),
    ],
)
def test_no_number_changes(policy, options, quantize):
    plain = tiny(policy, blocks=BlockOptions(quantize=quantize), **options)
    expected, state = two_passes(plain), plain.state_dict()
    for swapped in (3, 4):
        model = tiny(policy, blocks=BlockOptions(swap=swapped, quantize=quantize), **options)
        for _ in range(2):
            model.zero_grad()
            found = two_passes(model)
            assert all(torch.equal(found[name], gradient) for name, gradient in expected.items()), f"{swapped} swapped"
        with torch.inference_mode():
            assert torch.equal(model.eval()(**inputs(model)), plain.eval()(**inputs(plain)))
        assert model.num_parameters() == plain.num_parameters()
        assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
        plain.train()


def test_two_blocks_are_there_and_each_is_copied_once_on_its_way():
    model = tiny("none", blocks=BlockOptions(swap=NUM_BLOCKS))
    swap = model.swap
    block = sum(parameter.nbytes for parameter in model.transformer.blocks[0].parameters())
    assert (swap.host_bytes, swap.resident_bytes) == (4 * block, 0)
    copies = []
    for _ in range(3):
        loss = loss_of(model)
        copies.append(swap.num_copies)
        loss.backward()
        copies.append(swap.num_copies)
    # The last two of a pass are the first two of the next.
    assert copies == [4, 6, 8, 10, 12, 14]
    assert swap.resident_bytes == 2 * block
    waiting = [block.attn1.to_q.weight.data_ptr() for block in model.transformer.blocks[2:]]
    assert waiting == [host[_position(model)].data_ptr() for host in swap._hosts[2:]]


def _position(model: WanVace) -> int:
    names = [name for name, _ in model.transformer.blocks[0].named_parameters()]
    return names.index("attn1.to_q.weight")


def test_the_next_block_is_copied_before_one_computes():
    model = tiny("full", blocks=BlockOptions(swap=NUM_BLOCKS))
    there = []
    for place, block in enumerate(model.transformer.blocks):
        block.register_forward_pre_hook(
            lambda *_, place=place: there.append((place, sorted(slot.place for slot in model.swap._slots)))
        )
    loss_of(model).backward()
    # main block 0 needs no backward pass
    forward = [(0, [0, 1]), (1, [1, 2]), (2, [2, 3]), (3, [2, 3])]
    assert there == [*forward, (3, [2, 3]), (2, [1, 2]), (1, [0, 1])]


def test_moving_the_model_leaves_swapped_blocks_where_they_are():
    model = tiny("none", blocks=BlockOptions(swap=2)).to("meta")
    assert swapped_places(NUM_BLOCKS, 2) == [0, 2]
    assert [block.ffn.net[2].weight.is_meta for block in model.transformer.blocks] == [False, True, False, True]
    assert model.transformer.vace_blocks[0].ffn.net[2].base_layer.weight.is_meta


def test_spread_evenly():
    assert swapped_places(40, 20) == list(range(0, 40, 2))
    assert swapped_places(4, 4) == [0, 1, 2, 3]
    assert swapped_places(30, 4) == [0, 7, 15, 22]


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
def test_compiled_blocks_are_swapped_too(monkeypatch):
    torch._dynamo.reset()
    monkeypatch.setattr(compiling, "BACKEND", "aot_eager")
    monkeypatch.setitem(RANDOM_CONFIGS, "tiny", RANDOM_CONFIGS["tiny"] | {"num_layers": 3, "vace_layers": [0]})
    expected = two_passes(tiny("none", blocks=BlockOptions(compile=True)))
    for policy in ("none", "full"):
        found = two_passes(tiny(policy, blocks=BlockOptions(compile=True, swap=3)))
        assert all(torch.equal(found[name], gradient) for name, gradient in expected.items()), policy


def test_the_estimate_knows():
    options = {"lora": LoraSpec(rank=4), "dtype": "fp32"}
    plain = outline_wan_vace("random:tiny", **options)
    block = sum(parameter.nbytes for parameter in plain.transformer.blocks[0].parameters())
    for swapped, saved in ((2, 0), (3, block), (4, 2 * block)):
        model = outline_wan_vace("random:tiny", blocks=BlockOptions(swap=swapped), **options)
        sizes = [estimate_bytes(m, "full", tokens=100, batch=1) for m in (plain, model)]
        assert sizes[0] - sizes[1] == saved


def test_more_blocks_than_there_are_are_not_estimated():
    with pytest.raises(ValueError, match=r"blocks\.swap must be from 0 to 30, the model's main blocks, got 99"):
        outline_wan_vace("random:wan2.1-vace-1.3b", blocks=BlockOptions(swap=99))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"blocks": BlockOptions(swap=5)}, "blocks.swap must be from 0 to 4, the model's main blocks, got 5"),
        ({"blocks": BlockOptions(swap=-1)}, "blocks.swap must be at least 0, got -1"),
        ({"blocks": BlockOptions(swap=2), "trainable": "all"}, "blocks.swap: 2 is for frozen weights"),
        (
            {"blocks": BlockOptions(swap=2, compile=True), "checkpointing": "selective"},
            "needs checkpointing none, full or offload, got selective",
        ),
    ],
)
def test_what_cannot_be_swapped_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        tiny(options.pop("checkpointing", "none"), **options)


def test_a_run_is_the_same_and_ddp_leaves_the_blocks_alone(quick_arguments, tmp_path: Path, capsys):
    def fit(folder: str, steps: int, *more: str) -> TrainingCLI:
        run = ["--trainer.default_root_dir", str(tmp_path / folder), "--trainer.max_steps", str(steps)]
        return TrainingCLI.run(["fit", *quick_arguments, *run, *more])

    expected = fit("plain", 3).model.wan.trainable_state()
    fit("swapped", 2, "--model.blocks.swap", "3")
    done = fit("swapped", 3, "--model.blocks.swap", "3", "--ckpt_path", "last")
    assert "swapped" in capsys.readouterr().out
    found = done.model.wan.trainable_state()
    assert all(torch.equal(value, found[name]) for name, value in expected.items())
    ignored = done.model._ddp_params_and_buffers_to_ignore
    assert {name.split(".")[3] for name in ignored} == {"0", "1", "2"}
    assert all(name.startswith("model.transformer.blocks.") for name in ignored)
