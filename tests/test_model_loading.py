"""Where a base may come from, that it is the same base in every form, and what is said when it is not there."""

import json
import logging
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from regen_train.adapter import AdapterMetadata, original_module, save_adapter, to_original_names
from regen_train.model import LoraSpec, load_wan_vace
from regen_train.model.base import infer_config
from regen_train.pretrained import state_sha256

WEIGHTS = "diffusion_pytorch_model.safetensors"


def load(pretrained, **options):
    return load_wan_vace(str(pretrained), **({"dtype": "fp32", "lora": None} | options))


@pytest.fixture(scope="module")
def original_file(tiny_model, tmp_path_factory):
    state = load_file(tiny_model / "transformer" / WEIGHTS)
    names = to_original_names(state)
    folder = tmp_path_factory.mktemp("original")
    save_file({names[name]: tensor for name, tensor in state.items()}, folder / "wan.safetensors")
    # As the original release has it; the head count cannot be read from shapes.
    (folder / "config.json").write_text(json.dumps({"_class_name": "VaceWanModel", "num_heads": 2, "eps": 1e-6}))
    return folder / "wan.safetensors"


def test_every_form_of_a_base_is_the_same_base(tiny_model, original_file):
    expected = load(tiny_model)
    forms = [
        load(tiny_model / "transformer"),
        load(original_file),
        load(original_file.parent),
        load("random:tiny"),
        load(tiny_model, dtype="bf16"),
        load(original_file, dtype="bf16"),
        load(tiny_model, lora=LoraSpec()),
    ]
    assert {form.base.sha256 for form in forms} == {expected.base.sha256}
    assert expected.base.name == tiny_model.name
    config = {name: value for name, value in expected.transformer.config.items() if not name.startswith("_")}
    for form in forms[:3]:
        state = form.transformer.state_dict()
        assert all(torch.equal(state[name], tensor) for name, tensor in expected.transformer.state_dict().items())
        found = {name: form.transformer.config[name] for name in config}
        assert json.dumps(found, sort_keys=True) == json.dumps(config, sort_keys=True)


def test_the_hash_tells_bases_apart(tiny_model):
    state = dict(load(tiny_model).transformer.state_dict())
    name = "blocks.3.attn1.to_q.weight"
    changed = state | {name: state[name].clone()}
    changed[name][0, 0] *= 1.1
    renamed = {key.replace("blocks.3", "blocks.9"): tensor for key, tensor in state.items()}
    reshaped = state | {name: state[name].reshape(-1)}
    assert len({state_sha256(s) for s in (state, changed, renamed, reshaped)}) == 4
    assert state_sha256(dict(reversed(state.items()))) == state_sha256(state)


def test_original_names_agree_with_diffusers_conversion(original_file, tiny_model):
    from diffusers.loaders.single_file_utils import convert_wan_transformer_to_diffusers

    converted = convert_wan_transformer_to_diffusers(load_file(original_file))
    expected = load_file(tiny_model / "transformer" / WEIGHTS)
    assert converted.keys() == expected.keys()
    assert all(torch.equal(converted[name], tensor) for name, tensor in expected.items())


def test_without_a_config_heads_are_128_wide_and_hints_evenly_spread():
    from regen_train.model.assemble import empty_transformer
    from regen_train.model.random_init import random_config

    module = empty_transformer(random_config("random:wan2.1-vace-1.3b"))
    found = infer_config(module.state_dict(), {})
    assert {name: list(v) if isinstance(v, tuple) else v for name, v in found.items()} == {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in module.config.items()
        if name in found
    }


def test_geometry_is_read_from_the_configs(tiny_model):
    from regen_train.encoders import load_vae

    assert load(tiny_model).geometry == load_vae(str(tiny_model)).geometry


def test_loading_leaves_the_global_random_state_alone(tiny_model):
    before = torch.random.get_rng_state()
    load(tiny_model, lora=LoraSpec())
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize(
    ("pretrained", "message"),
    [
        ("random:huge", r"no random initialisation 'random:huge'; known are random:tiny, random:wan2\.1-vace-1\.3b"),
        ("no such thing", "must be an existing diffusers folder, a hub id OWNER/NAME, or toy"),
        ("owner/name", r"neither a folder here nor in the hub cache.*HF_HUB_OFFLINE='1'.*hf download owner/name"),
    ],
)
def test_what_is_not_there_is_named_with_a_remedy(pretrained, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        load(pretrained)


def test_files_that_do_not_fit_are_refused(tiny_model, tmp_path):
    pickle = tmp_path / "model.pth"
    pickle.write_bytes(b"")
    with pytest.raises(ValueError, match=r"must be \.safetensors, got model\.pth; pickles"):
        load(pickle)
    save_file({"blocks.0.weight": torch.zeros(1)}, tmp_path / "plain.safetensors")
    with pytest.raises(ValueError, match="holds no VACE blocks"):
        load(tmp_path / "plain.safetensors")
    with pytest.raises(FileNotFoundError, match="expected the config file"):
        load(tmp_path)
    torn = tmp_path / "torn"
    shutil.copytree(tiny_model / "transformer", torn)
    state = load_file(torn / WEIGHTS)
    del state["proj_out.bias"], state["blocks.1.ffn.net.2.bias"]
    save_file(state | {"strange": torch.zeros(1)}, torn / WEIGHTS, {"format": "pt"})
    with pytest.raises(ValueError, match=r"missing blocks\.1\.ffn\.net\.2\.bias; missing proj_out\.bias.*strange"):
        load(torn)


def trained(tiny_model, **spec):
    model = load(tiny_model, lora=LoraSpec(rank=4, **spec), seed=5)
    state = {name: torch.randn_like(tensor) for name, tensor in model.lora_state().items()}
    metadata = AdapterMetadata(
        base_name=model.base.name,
        base_revision=model.base.revision,
        base_sha256=model.base.sha256,
        rank=4,
        alpha=model.lora.effective_alpha,
        targets=model.lora.targets,
    )
    return state, metadata


def release_name(name: str) -> str:
    module, side = name.split(".lora_")
    return f"{original_module(module)}.lora_{side[0]}.default.weight"


def test_training_starts_from_an_adapter(tiny_model, tmp_path, caplog):
    state, metadata = trained(tiny_model)
    save_adapter(tmp_path / "own.safetensors", state, metadata)
    save_file({release_name(name): tensor for name, tensor in state.items()}, tmp_path / "imported.safetensors")
    for name, warns in (("own", False), ("imported", True)):
        caplog.clear()
        with caplog.at_level(logging.WARNING, logger="regen_train"):
            model = load(tiny_model, lora=LoraSpec(rank=4, init=str(tmp_path / f"{name}.safetensors")))
        assert all(torch.equal(tensor, state[key]) for key, tensor in model.lora_state().items())
        assert ("does not say on which base it was trained" in caplog.text) == warns


def test_an_adapter_that_does_not_fit_is_refused_with_all_faults(tiny_model, tmp_path):
    state, metadata = trained(tiny_model)
    path = tmp_path / "own.safetensors"
    save_adapter(path, state, metadata)
    with pytest.raises(ValueError, match=r"rank is 4 in the file, 8 in the spec.*alpha.*targets is attn\+ffn.*all"):
        load(tiny_model, lora=LoraSpec(rank=8, targets="all", init=str(path)))
    with pytest.raises(ValueError, match=r"trained on base model .*, this base is random:tiny"):
        load("random:tiny", lora=LoraSpec(rank=4, init=str(path)), seed=1)
    with pytest.raises(FileNotFoundError, match="no such file"):
        load("random:tiny", lora=LoraSpec(rank=4, init=str(tmp_path / "nowhere.safetensors")))
