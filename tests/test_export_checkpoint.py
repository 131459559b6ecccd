"""From a checkpoint, an adapter or another tool's LoRA to exported files; refusals; the model card."""

import json
import logging
import pickle
import re
from dataclasses import asdict, replace

import pytest
import torch
from diffusers import WanVACETransformer3DModel
from safetensors.torch import load_file, save_file
from test_export import SPECS, assert_near, make_trained, metadata_of, velocity, wrong_names

from regen_train.adapter import ADAPTER_FILE, load_adapter, save_adapter
from regen_train.export import ExportMismatchError, export_checkpoint, export_diffusers, export_wan
from regen_train.export.card import model_card
from regen_train.export.checkpoint import check_formats
from regen_train.export.sources import read_trained
from regen_train.model import LoraSpec, load_wan_vace
from regen_train.model.lora import base_state
from regen_train.model.random_init import random_config, random_transformer


def write_checkpoint(path, model, metadata, *, pretrained="random:tiny", trainable="lora", **extra):
    content = {
        "state_dict": {f"model.{name}": tensor for name, tensor in model.trainable_state().items()},
        "regen_train": {**asdict(metadata), "pretrained": pretrained, "trainable": trainable},
    }
    torch.save(content | extra, path)
    return path


@pytest.fixture
def trained():
    return make_trained()


def test_a_checkpoint_in_all_formats(tmp_path, trained):
    model, metadata = trained
    report = export_checkpoint(write_checkpoint(tmp_path / "last.ckpt", model, metadata), tmp_path / "out")
    assert [file.format for file in report.files] == ["diffusers", "wan", "merged", "merged"]
    assert all(file.path.exists() and file.difference <= file.limit for file in report.files)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "README.md",
        "merged",
        "pytorch_lora_weights.safetensors",
        "wan_lora.safetensors",
    ]
    adapter = load_adapter(tmp_path / "out")
    assert adapter.metadata == replace(metadata, weights="raw")
    assert all(torch.equal(adapter.state[name], tensor) for name, tensor in model.lora_state().items())


def test_an_adapter_is_exported_without_naming_its_base(tmp_path, trained):
    model, metadata = trained
    save_adapter(tmp_path / ADAPTER_FILE, model.lora_state(), metadata)
    report = export_checkpoint(tmp_path, tmp_path / "out", ["merged"], dtype="fp32")
    merged = WanVACETransformer3DModel.from_pretrained(report.files[0].path)
    assert_near(velocity(merged), velocity(model.transformer))
    assert (report.metadata.step, report.card.name) == (30, "README.md")


def test_the_moving_average_is_exported_under_the_names_that_training_gives_it(tmp_path, trained):
    model, metadata = trained
    average = {
        f"model.{name}": 0.5 * parameter.detach()
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }
    assert all(name.startswith("model.transformer.") and ".default." in name for name in average)
    path = write_checkpoint(tmp_path / "last.ckpt", model, metadata, ema_state_dict=average)
    report = export_checkpoint(path, tmp_path / "out", ["diffusers"], ema=True)
    adapter = load_adapter(report.files[0].path)
    assert report.metadata.weights == "ema"
    assert all(torch.equal(adapter.state[name], 0.5 * tensor) for name, tensor in model.lora_state().items())
    with pytest.raises(ValueError, match=r"holds no moving average.*ema\.decay"):
        export_checkpoint(write_checkpoint(path, model, metadata), tmp_path / "out", ema=True)


@pytest.mark.parametrize("trainable", ["vace", "all"])
def test_trained_base_weights_are_exported_merged(tmp_path, trainable):
    model = load_wan_vace("random:tiny", dtype="fp32", lora=None, trainable=trainable)
    metadata = metadata_of(model)
    model.load_trainable_state({name: tensor + 0.01 for name, tensor in model.trainable_state().items()})
    path = write_checkpoint(tmp_path / "last.ckpt", model, metadata, trainable=trainable)
    with pytest.raises(ValueError, match=f"'diffusers' holds a LoRA, but the checkpoint trained '{trainable}'.*'wan'"):
        export_checkpoint(path, tmp_path / "out")
    report = export_checkpoint(path, tmp_path / "out", ["merged"])
    exported = load_file(report.files[0].path / "diffusion_pytorch_model.safetensors")
    want = model.transformer.state_dict()
    assert all(torch.equal(want[name].to(tensor.dtype), tensor) for name, tensor in exported.items())
    assert report.files[0].difference <= report.files[0].limit


def test_formats_are_checked_before_anything_is_loaded(tmp_path):
    model, metadata = make_trained(SPECS["DoRA"])
    path = write_checkpoint(tmp_path / "last.ckpt", model, metadata, pretrained="does/not-exist")
    with pytest.raises(ValueError, match=r"'wan' cannot carry DoRA: .*'merged'"):
        export_checkpoint(path, tmp_path / "out", ["diffusers", "wan"])
    with pytest.raises(ValueError, match=r"'onnx' is no format; known are .*'wan' cannot carry DoRA"):
        check_formats(["wan", "onnx"], read_trained(path, ema=False))
    with pytest.raises(ValueError, match="at least one format"):
        export_checkpoint(path, tmp_path / "out", [])
    report = export_checkpoint(path, tmp_path / "out", ["diffusers", "merged"], pretrained="random:tiny")
    assert len(report.files) == 3


def test_another_base_is_refused(tmp_path, trained):
    model, metadata = trained
    other = random_transformer(random_config("random:tiny"), dtype=torch.float32, seed=1)
    other.save_pretrained(tmp_path / "other")
    path = write_checkpoint(tmp_path / "last.ckpt", model, metadata)
    with pytest.raises(ValueError, match=r"trained on base random:tiny .* this base is other \(sha256"):
        export_checkpoint(path, tmp_path / "out", pretrained=str(tmp_path / "other"))
    save_adapter(tmp_path / "lora" / ADAPTER_FILE, model.lora_state(), metadata)
    spec = replace(SPECS["alpha is not rank"], init=str(tmp_path / "lora"))
    with pytest.raises(ValueError, match="the weights with the first hash"):
        load_wan_vace(str(tmp_path / "other"), lora=spec)
    assert not (tmp_path / "out").exists()


def test_a_folders_last_name_is_not_looked_up_in_the_working_folder(tmp_path, tiny_model, monkeypatch):
    model, metadata = make_trained(pretrained=str(tiny_model))
    save_adapter(tmp_path / "lora" / ADAPTER_FILE, model.lora_state(), metadata)
    (tmp_path / tiny_model.name).symlink_to(tiny_model)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=rf"trained on base {tiny_model.name} .*name it with --pretrained PATH"):
        export_checkpoint(tmp_path / "lora", tmp_path / "out", ["diffusers"])
    report = export_checkpoint(tmp_path / "lora", tmp_path / "out", ["diffusers"], pretrained=str(tiny_model))
    assert report.files[0].path.is_file()
    path = write_checkpoint(tmp_path / "a.ckpt", model, metadata, pretrained=str(tiny_model))
    assert read_trained(path, ema=False).base == str(tiny_model)


@pytest.mark.parametrize("ema", [False, True])
def test_diverged_weights_are_refused(tmp_path, trained, ema):
    model, metadata = trained
    good = {f"model.{name}": tensor for name, tensor in model.lora_state().items()}
    bad = {name: torch.full_like(tensor, torch.nan) for name, tensor in good.items()}
    parts = {"state_dict": good, "ema_state_dict": bad} if ema else {"state_dict": bad, "ema_state_dict": good}
    path = write_checkpoint(tmp_path / "a.ckpt", model, metadata, **parts)
    with pytest.raises(ValueError, match=rf"NaN or infinity \({len(bad)} tensors, first .*take an earlier checkpoint"):
        export_checkpoint(path, tmp_path / "out", ema=ema)
    assert read_trained(path, ema=not ema).state
    assert not (tmp_path / "out").exists()


def test_weights_that_overflow_are_not_reported_as_a_fault_of_the_export(tmp_path, trained):
    model, metadata = trained
    huge = {f"model.{name}": tensor * 1e30 for name, tensor in model.lora_state().items()}
    path = write_checkpoint(tmp_path / "a.ckpt", model, metadata, state_dict=huge)
    with pytest.raises(ValueError, match="computes NaN or infinity: the run diverged"):
        export_checkpoint(path, tmp_path / "out", ["diffusers"])
    assert not (tmp_path / "out").exists()


class Bomb:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was run",))


def test_checkpoints_that_cannot_be_read(tmp_path, trained):
    model, metadata = trained
    path = write_checkpoint(tmp_path / "a.ckpt", model, metadata)
    whole = path.read_bytes()
    with pytest.raises(FileNotFoundError, match="no such checkpoint"):
        export_checkpoint(tmp_path / "absent.ckpt", tmp_path / "out")
    for harmed in (whole[:-100], whole[: len(whole) // 2], b"", flip(whole, len(whole) // 2)):
        path.write_bytes(harmed)
        with pytest.raises(ValueError, match=r"a\.ckpt: is (torn|damaged)"):
            export_checkpoint(path, tmp_path / "out")
    torch.save({"state_dict": {}, "regen_train": Bomb()}, path)
    with pytest.raises(ValueError, match="more than tensors and plain values"):
        export_checkpoint(path, tmp_path / "out")
    path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(ValueError, match="is torn or not a checkpoint"):
        export_checkpoint(path, tmp_path / "out")
    torch.save({"state_dict": {}}, path)
    with pytest.raises(ValueError, match="does not say what was trained"):
        export_checkpoint(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def flip(content, place):
    return content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :]


def test_a_checkpoint_with_other_tensors_is_refused(tmp_path, trained):
    model, metadata = trained
    path = write_checkpoint(tmp_path / "a.ckpt", model, metadata)
    content = torch.load(path, weights_only=True)
    for side in "AB":
        del content["state_dict"][f"model.vace_blocks.0.attn1.to_q.lora_{side}.weight"]
    torch.save(content, path)
    with pytest.raises(ValueError, match=r"missing vace_blocks\.0\.attn1\.to_q\.lora_A\.weight"):
        export_checkpoint(path, tmp_path / "out", ["diffusers"])


def test_a_failure_in_one_format_leaves_no_file_of_any(tmp_path, trained, monkeypatch):
    path = write_checkpoint(tmp_path / "last.ckpt", *trained)
    monkeypatch.setattr("regen_train.export.writing._original", wrong_names)
    with pytest.raises(ExportMismatchError, match="merged/wan_vace_merged"):
        export_checkpoint(path, tmp_path / "new" / "out")
    assert [entry.name for entry in tmp_path.iterdir()] == ["last.ckpt"]


def test_the_card_tells_how_to_load_exactly_what_was_written(tmp_path, trained):
    path = write_checkpoint(tmp_path / "last.ckpt", *trained)
    card = export_checkpoint(path, tmp_path / "wan", ["wan"]).card.read_text()
    assert "## ComfyUI" in card
    assert "## diffusers" not in card
    assert "## Merged" not in card
    card = export_checkpoint(path, tmp_path / "merged", ["merged"], dtype="fp32").card.read_text()
    assert "## Merged weights (fp32)" in card
    assert "load_lora" not in card
    assert "rank 4, alpha 6" in card
    assert str(tmp_path) not in card


def test_the_code_on_the_card_runs(tmp_path, tiny_model, monkeypatch):
    model, metadata = make_trained(pretrained=str(tiny_model))
    path = write_checkpoint(tmp_path / "last.ckpt", model, metadata, pretrained=str(tiny_model))
    card = export_checkpoint(path, tmp_path / "out", ["diffusers", "merged"]).card.read_text()
    blocks = re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL)
    monkeypatch.chdir(tmp_path / "out")
    (tmp_path / "out" / "PATH" / "TO").mkdir(parents=True)
    (tmp_path / "out" / "PATH" / "TO" / "BASE").symlink_to(tiny_model)
    expected = velocity(model.transformer)
    assert len(blocks) == 2
    for block in blocks:
        names: dict[str, object] = {}
        exec(block, names)  # noqa: S102 - running it is the test
        got = velocity(names["pipe"].transformer, torch.bfloat16)
        assert float((got - expected).square().mean().sqrt()) < 0.02


def test_the_card_names_a_base_of_the_hub_and_gives_a_placeholder_for_any_other(tmp_path, trained):
    model, metadata = trained
    files = [export_diffusers(model, tmp_path, metadata), export_wan(model, tmp_path, metadata)]

    def card(name):
        return model_card(
            replace(metadata, base_name=name, recipe={"flow_shift": 5.0}, settings={"optimizer": {"lr": 1e-4}}),
            files,
            trainable="lora",
            dtype="bf16",
            folder=tmp_path,
        )

    hub, local = card("Wan-AI/Wan2.1-VACE-1.3B-diffusers"), card("my-base")
    assert "PATH/TO/BASE" not in hub
    assert "\nbase_model: Wan-AI/Wan2.1-VACE-1.3B-diffusers\ntags:" in hub
    assert 'from_pretrained("Wan-AI/Wan2.1-VACE-1.3B-diffusers", dtype' in hub
    assert 'base = "models/Wan-AI/Wan2.1-VACE-1.3B"' in hub
    assert "base_model:" not in local
    assert "| base | my-base |" in local
    assert "identified by its sha256" in local
    assert 'from_pretrained("PATH/TO/BASE", dtype' in local
    assert 'base = "PATH/TO/BASE"' in local
    settings = re.search(r"Settings of the training:\n\n```json\n(.*?)```", local, flags=re.DOTALL)
    assert settings is not None
    assert json.loads(settings[1]) == {"flow_shift": 5.0, "optimizer": {"lr": 1e-4}}


RELEASE_MODULES = [f"{attention}.{part}" for attention in ("self_attn", "cross_attn") for part in "qkvo"] + [
    "ffn.0",
    "ffn.2",
]


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    """A base with the 15 VACE blocks of Wan2.1-VACE-1.3B, narrow, and a LoRA named as the paper's release names it."""
    folder = tmp_path_factory.mktemp("release")
    config = random_config("random:tiny") | {"num_layers": 15, "vace_layers": list(range(15))}
    base = random_transformer(config, dtype=torch.float32, seed=0)
    base.save_pretrained(folder / "base")
    generator = torch.Generator().manual_seed(5)
    width = {"ffn.0": (64, 128), "ffn.2": (128, 64)}
    lora = {}
    for block in range(15):
        for module in RELEASE_MODULES:
            inputs, outputs = width.get(module, (64, 64))
            name = f"vace_blocks.{block}.{module}"
            lora[f"{name}.lora_A.default.weight"] = 0.1 * torch.randn(32, inputs, generator=generator)
            lora[f"{name}.lora_B.default.weight"] = 0.02 * torch.randn(outputs, 32, generator=generator)
    assert len(lora) == 300
    save_file({name: tensor.to(torch.bfloat16) for name, tensor in lora.items()}, folder / "step-16000.safetensors")
    return folder


@pytest.fixture(scope="module")
def release_velocity(release):
    """What DiffSynth-Studio makes of the two: W + B A, as alpha = rank."""
    from diffusers.loaders.single_file_utils import convert_wan_transformer_to_diffusers

    transformer = WanVACETransformer3DModel.from_pretrained(release / "base")
    lora = load_file(release / "step-16000.safetensors")
    change = {
        name.replace("lora_B.default.", ""): up.float() @ lora[name.replace("lora_B", "lora_A")].float()
        for name, up in lora.items()
        if "lora_B" in name
    }
    state = transformer.state_dict()
    plain = velocity(transformer)
    for name, delta in convert_wan_transformer_to_diffusers(change).items():
        state[name] += delta
    expected = velocity(transformer)
    assert float((expected - plain).abs().max()) > 0.01
    return expected


def test_the_release_is_sampled_and_continued(release, release_velocity, caplog):
    with caplog.at_level(logging.WARNING):
        model = load_wan_vace(
            str(release / "base"), dtype="fp32", lora=LoraSpec(init=str(release / "step-16000.safetensors"))
        )
    assert "does not say on which base" in caplog.text
    assert_near(velocity(model.transformer), release_velocity)
    assert len(model.trainable_state()) == 300
    model.transformer.train()
    inputs = {
        "hidden_states": torch.randn(1, 16, 1, 4, 4),
        "timestep": torch.tensor([500.0]),
        "encoder_hidden_states": torch.randn(1, 4, 32),
        "control_hidden_states": torch.randn(1, 96, 1, 4, 4),
    }
    model.transformer(**inputs, return_dict=False)[0].square().mean().backward()
    grads = [parameter.grad for parameter in model.parameters() if parameter.requires_grad]
    assert len(grads) == 300
    assert all(grad is not None and bool(grad.abs().sum() > 0) for grad in grads)


def test_the_release_is_converted_and_merged_and_comes_back(release, release_velocity, tmp_path):
    file = release / "step-16000.safetensors"
    with pytest.raises(ValueError, match=r"does not say what base .* name it with --pretrained PATH"):
        export_checkpoint(file, tmp_path)
    report = export_checkpoint(file, tmp_path, pretrained=str(release / "base"), dtype="fp32")
    merged = WanVACETransformer3DModel.from_pretrained(report.files[2].path)
    assert_near(velocity(merged), release_velocity)
    original = load_file(file)
    for name, tensor in load_file(tmp_path / "wan_lora.safetensors").items():
        back = name.removeprefix("diffusion_model.").replace(".weight", ".default.weight")
        assert torch.equal(original.pop(back).float(), tensor)
    assert not original
    assert load_adapter(tmp_path).alpha == 32.0


def test_a_lora_on_some_modules_is_exported_whole(release, tmp_path):
    lora = load_file(release / "step-16000.safetensors")
    some = {
        name: tensor
        for name, tensor in lora.items()
        if name.startswith(("vace_blocks.0.", "vace_blocks.3.self_attn.q"))
    }
    save_file(some, tmp_path / "some.safetensors")
    report = export_checkpoint(
        tmp_path / "some.safetensors", tmp_path / "out", ["diffusers"], pretrained=str(release / "base")
    )
    state = load_adapter(report.files[0].path).state
    assert all(
        not state[name].any() for name in state if name.endswith("lora_B.weight") and name.startswith("vace_blocks.7.")
    )
    model = load_wan_vace(str(release / "base"), dtype="fp32", lora=None)
    assert base_state(model.transformer).keys() >= {f"{name.rsplit('.lora_', 1)[0]}.weight" for name in state}
