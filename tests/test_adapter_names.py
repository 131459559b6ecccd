"""The key tables against diffusers' own converter."""

import pytest
import torch
from diffusers import WanVACETransformer3DModel
from diffusers.loaders.single_file_utils import convert_wan_transformer_to_diffusers
from hypothesis import given, settings
from hypothesis import strategies as st

from regen_train.adapter import LORA_TARGETS, lora_targets, names, to_diffusers_names, to_original_names
from regen_train.adapter.names import BLOCK_NAMES, ROOT_NAMES, lora_module, original_module


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    with torch.device("meta"):
        model = WanVACETransformer3DModel(
            num_attention_heads=1, attention_head_dim=12, ffn_dim=16, num_layers=3, vace_layers=[0, 2], text_dim=8
        )
    return dict(model.state_dict())


def test_a_whole_model_survives_our_table_and_the_converter_of_diffusers(state):
    original = {theirs: state[ours] for ours, theirs in to_original_names(state).items()}
    assert len(original) == len(state)
    back = convert_wan_transformer_to_diffusers(dict(original))
    assert back.keys() == state.keys()
    assert all(back[name] is state[name] for name in state), "a tensor came back under another name"


def test_both_directions_are_each_other_s_inverse(state):
    to_original = to_original_names(state)
    assert to_diffusers_names(to_original.values()) == {theirs: ours for ours, theirs in to_original.items()}


def test_tables_are_one_to_one():
    for table in (BLOCK_NAMES, ROOT_NAMES):
        assert len(set(table.values())) == len(table)


def test_proj_out_of_a_block_and_of_the_head_are_told_apart():
    renamed = to_original_names(["proj_out.weight", "vace_blocks.3.proj_out.weight", "vace_blocks.0.proj_in.bias"])
    assert list(renamed.values()) == [
        "head.head.weight",
        "vace_blocks.3.after_proj.weight",
        "vace_blocks.0.before_proj.bias",
    ]
    renamed = to_original_names(["scale_shift_table", "blocks.1.scale_shift_table", "blocks.1.norm2.weight"])
    assert list(renamed.values()) == ["head.modulation", "blocks.1.modulation", "blocks.1.norm3.weight"]


def test_every_unknown_key_is_listed():
    with pytest.raises(ValueError, match=r"2 keys have no counterpart.*blocks\.0\.attn3\.to_q\.weight, nonsense"):
        to_original_names(["blocks.0.attn3.to_q.weight", "proj_out.bias", "nonsense"])


@given(block=st.integers(0, 50), target=st.sampled_from(LORA_TARGETS["all"]))
@settings(max_examples=30, deadline=None)
def test_lora_modules_are_known_under_both_names(block, target):
    module = f"vace_blocks.{block}.{target}"
    assert lora_module(module) == module
    assert lora_module(original_module(module)) == module


@pytest.mark.parametrize(
    "name", ["blocks.0.attn1.to_q", "vace_blocks.0.norm2", "proj_out", "vace_blocks.0.self_attn.x", ""]
)
def test_lora_elsewhere_is_unknown(name):
    assert lora_module(name) is None


def test_target_sets():
    assert lora_targets(["vace_blocks.0.attn1.to_q", "vace_blocks.1.ffn.net.2"]) == "attn+ffn"
    assert lora_targets(["vace_blocks.0.attn1.to_q", "vace_blocks.0.proj_in"]) == "all"
    assert names.LORA_TARGETS["attn+ffn"] == names.ATTN_FFN
