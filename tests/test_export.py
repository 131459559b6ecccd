"""Promise 4: weights travel. Every export loads in its target and computes what the trained model does."""

import json
from pathlib import Path

import pytest
import torch
from diffusers import WanVACEPipeline, WanVACETransformer3DModel
from diffusers.loaders.single_file_utils import convert_wan_transformer_to_diffusers
from safetensors import SafetensorError
from safetensors.torch import load_file

from regen_train.adapter import ADAPTER_FILE, AdapterMetadata, to_original_names
from regen_train.export import ExportMismatchError, export_diffusers, export_merged, export_wan
from regen_train.export.staging import staged
from regen_train.model import LoraSpec, load_wan_vace
from regen_train.model.lora import base_state

SPECS = {
    "alpha is not rank": LoraSpec(rank=4, alpha=6.0, targets="all", dropout=0.1),
    "rsLoRA": LoraSpec(rank=4, alpha=2.0, use_rslora=True),
    "DoRA": LoraSpec(rank=4, alpha=6.0, targets="all", use_dora=True),
}
PLAIN = SPECS["alpha is not rank"]


def make_trained(spec=PLAIN, *, dtype="fp32", pretrained="random:tiny"):
    """A model whose LoRA does something, and its metadata."""
    model = load_wan_vace(pretrained, dtype=dtype, lora=spec)
    generator = torch.Generator().manual_seed(7)
    state = model.lora_state()
    model.load_lora_state({n: t + 0.1 * torch.randn(t.shape, generator=generator) for n, t in state.items()})
    return model, metadata_of(model)


def metadata_of(model):
    spec = model.lora or LoraSpec()
    return AdapterMetadata(
        base_name=model.base.name,
        base_revision=model.base.revision,
        base_sha256=model.base.sha256,
        rank=spec.rank,
        alpha=spec.effective_alpha,
        targets=spec.targets,
        dropout=spec.dropout,
        use_dora=spec.use_dora,
        use_rslora=spec.use_rslora,
        variant="structhuman",
        step=30,
    )


@torch.no_grad()
def velocity(transformer, dtype=torch.float32):
    """Run a transformer as diffusers does, on an input that the exporter does not know."""
    generator = torch.Generator().manual_seed(3)

    def draw(*shape):
        return torch.randn(shape, generator=generator).to(dtype)

    config = transformer.config
    return transformer.eval()(
        hidden_states=draw(1, config.in_channels, 3, 4, 4),
        timestep=torch.tensor([700.0]),
        encoder_hidden_states=draw(1, 512, config.text_dim),
        control_hidden_states=draw(1, config.vace_in_channels, 3, 4, 4),
        return_dict=False,
    )[0].float()


def plain_transformer(model, state=None):
    """An untouched copy of the model's base, or one with the given state."""
    transformer = WanVACETransformer3DModel.from_config(dict(model.transformer.config))
    transformer.load_state_dict(base_state(model.transformer) if state is None else state)
    return transformer


def assert_near(actual, expected):
    assert float((actual - expected).abs().max()) <= 1e-5


def load_lora(transformer, file):
    pipeline = WanVACEPipeline(tokenizer=None, text_encoder=None, vae=None, scheduler=None, transformer=transformer)
    pipeline.load_lora_weights(str(file.parent), weight_name=file.name)


def fuse_as_diffsynth(model, file):
    """Add B A to the original-named weights, as DiffSynth-Studio and ComfyUI do with a file that has no alpha."""
    lora = load_file(file)
    state = {
        theirs: base_state(model.transformer)[ours].clone()
        for ours, theirs in to_original_names(base_state(model.transformer)).items()
    }
    for name in [name for name in lora if ".lora_B." in name]:
        module = name.removeprefix("diffusion_model.").removesuffix(".lora_B.weight")
        state[f"{module}.weight"] += lora[name] @ lora[name.replace("lora_B", "lora_A")]
    return plain_transformer(model, convert_wan_transformer_to_diffusers(state))


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS.keys())
def test_diffusers_makes_the_trained_model_of_the_lora_file(tmp_path, spec):
    model, metadata = make_trained(spec)
    written = export_diffusers(model, tmp_path, metadata)
    expected, transformer = velocity(model.transformer), plain_transformer(model)
    assert float((velocity(transformer) - expected).abs().max()) > 0.05, "the LoRA does nothing: the test is empty"
    load_lora(transformer, tmp_path / ADAPTER_FILE)
    assert_near(velocity(transformer), expected)
    assert written.path == tmp_path / ADAPTER_FILE
    assert written.difference <= written.limit


def test_dropout_of_the_training_is_not_left_on_in_diffusers(tmp_path):
    model, metadata = make_trained()
    export_diffusers(model, tmp_path, metadata)
    transformer = plain_transformer(model).eval()
    load_lora(transformer, tmp_path / ADAPTER_FILE)
    assert not [module for module in transformer.modules() if isinstance(module, torch.nn.Dropout) and module.p == 0.1]


@pytest.mark.parametrize("name", ["alpha is not rank", "rsLoRA"])
def test_original_readers_make_the_trained_model_of_the_lora_file(tmp_path, name):
    model, metadata = make_trained(SPECS[name])
    written = export_wan(model, tmp_path, metadata)
    assert all(key.startswith("diffusion_model.vace_blocks.") for key in load_file(written.path))
    assert_near(velocity(fuse_as_diffsynth(model, written.path)), velocity(model.transformer))


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS.keys())
def test_merged_weights_in_fp32(tmp_path, spec):
    model, metadata = make_trained(spec)
    folder, file = export_merged(model, tmp_path, metadata, dtype="fp32")
    expected = velocity(model.transformer)
    assert_near(velocity(WanVACETransformer3DModel.from_pretrained(folder.path)), expected)
    single = WanVACETransformer3DModel.from_single_file(str(file.path), config=str(folder.path), local_files_only=True)
    assert_near(velocity(single), expected)


def test_merged_weights_in_bf16_are_no_farther_than_the_unmerged_model(tmp_path):
    model, metadata = make_trained()
    folder, file = export_merged(model, tmp_path, metadata)
    expected = velocity(model.transformer)

    def distance(transformer):
        return float((velocity(transformer, torch.bfloat16) - expected).square().mean().sqrt())

    unmerged = WanVACETransformer3DModel.from_pretrained(save_base(model, tmp_path), torch_dtype=torch.bfloat16)
    export_diffusers(model, tmp_path / "lora", metadata)
    load_lora(unmerged, tmp_path / "lora" / ADAPTER_FILE)
    limit = 1.25 * distance(unmerged)
    assert distance(WanVACETransformer3DModel.from_pretrained(folder.path, torch_dtype=torch.bfloat16)) <= limit
    dtypes = {name: tensor.dtype for name, tensor in load_file(file.path).items()}
    assert dtypes["vace_blocks.0.after_proj.weight"] == torch.bfloat16
    assert dtypes["time_embedding.0.weight"] == torch.float32


def test_large_merged_weights_are_sharded(tmp_path, monkeypatch):
    monkeypatch.setattr("regen_train.export.writing.SHARD_SIZE", "300KB")
    model, metadata = make_trained()
    folder, _ = export_merged(model, tmp_path, metadata, dtype="fp32")
    assert len(list(folder.path.glob("*.safetensors"))) > 2
    assert (folder.path / "diffusion_pytorch_model.safetensors.index.json").is_file()
    assert_near(velocity(WanVACETransformer3DModel.from_pretrained(folder.path)), velocity(model.transformer))


def save_base(model, folder):
    plain_transformer(model).save_pretrained(folder / "base")
    return folder / "base"


def test_merged_shards_and_config_name_no_path(tmp_path):
    base = save_base(load_wan_vace("random:tiny", dtype="fp32", lora=None), tmp_path)
    model, metadata = make_trained(pretrained=str(base))
    folder, _ = export_merged(model, tmp_path / "out", metadata)
    config = json.loads((folder.path / "config.json").read_text())
    assert "_name_or_path" not in config
    for path in (tmp_path / "out").rglob("*"):
        assert path.is_dir() or str(tmp_path).encode() not in path.read_bytes()


def test_merged_weights_serve_in_a_pipeline(tmp_path, tiny_model):
    model, metadata = make_trained(pretrained=str(tiny_model))
    folder, _ = export_merged(model, tmp_path, metadata, dtype="fp32")
    transformer = WanVACETransformer3DModel.from_pretrained(folder.path)
    pipeline = WanVACEPipeline.from_pretrained(tiny_model, transformer=transformer)
    assert_near(velocity(pipeline.transformer), velocity(model.transformer))


def wrong_fold(factors, scale):
    return factors.up


def wrong_record(metadata, modules):
    config = {"r": 4, "lora_alpha": 4, "target_modules": sorted(modules)}
    return json.dumps({f"transformer.{name}": value for name, value in config.items()})


def wrong_names(state):
    renamed = {theirs: state[ours] for ours, theirs in to_original_names(state).items()}
    one, two = "vace_blocks.1.self_attn.k.weight", "vace_blocks.1.self_attn.v.weight"
    return renamed | {one: renamed[two], two: renamed[one]}


def wrong_merge(transformer, dtype):
    return {name: tensor.to("cpu", dtype) for name, tensor in base_state(transformer).items()}


@pytest.mark.parametrize(
    ("export", "where", "wrong", "message"),
    [
        (
            export_wan,
            "adapter.saving.fold_scale",
            wrong_fold,
            r"wan: .*limit 1\.00e-05; 23 weights differ: vace_blocks",
        ),
        (export_diffusers, "adapter.saving.diffusers_record", wrong_record, r"diffusers: .*23 weights differ"),
        (
            export_merged,
            "export.writing._original",
            wrong_names,
            r"wan_vace_merged.* 2 weights differ: .*1\.attn1\.to_k",
        ),
        (export_merged, "model.wan_vace.merged_state", wrong_merge, r"merged: .*no single weight differs"),
    ],
)
def test_a_wrong_file_is_caught_and_not_kept(tmp_path, monkeypatch, export, where, wrong, message):
    model, metadata = make_trained()
    monkeypatch.setattr(f"regen_train.{where}", wrong)
    with pytest.raises(ExportMismatchError, match=message):
        export(model, tmp_path / "out", metadata)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_export_leaves_the_earlier_one(tmp_path, monkeypatch):
    model, metadata = make_trained()
    export_merged(model, tmp_path, metadata)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    monkeypatch.setattr("regen_train.export.writing._original", wrong_names)
    with pytest.raises(ExportMismatchError):
        export_merged(model, tmp_path, metadata)
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    monkeypatch.undo()
    export_merged(model, tmp_path, metadata, dtype="fp32")
    assert sorted(before) == sorted(path for path in tmp_path.rglob("*") if path.is_file())
    assert before != {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


def test_a_full_disk_is_named_and_leaves_nothing(tmp_path, monkeypatch):
    model, metadata = make_trained()

    def full(*_, **__):
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(WanVACETransformer3DModel, "save_pretrained", full)
    with pytest.raises(OSError, match=r"^merged/transformer: could not be written .*No space left.*free some space"):
        export_merged(model, tmp_path / "new" / "out", metadata)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr("regen_train.adapter.files.save_file", full)
    with pytest.raises(OSError, match=r"could not be written .*No space left.*free some space"):
        export_wan(model, tmp_path / "out", metadata)
    assert list(tmp_path.iterdir()) == []


def test_an_output_that_is_a_file_is_refused(tmp_path):
    model, metadata = make_trained()
    (tmp_path / "file").write_text("kept")
    for output in (tmp_path / "file", tmp_path / "file" / "out"):
        with pytest.raises(ValueError, match=r"output must be a folder, got the file .*file$"):
            export_wan(model, output, metadata)
    assert (tmp_path / "file").read_text() == "kept"


def test_tidying_up_does_not_hide_the_error(tmp_path):
    def fail_beside_a_stranger():
        with staged(tmp_path / "out"):
            (tmp_path / "out" / "stranger").touch()
            raise RuntimeError("the real error")

    with pytest.raises(RuntimeError, match="the real error"):
        fail_beside_a_stranger()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["stranger"]


def test_files_are_as_readable_as_any_other(tmp_path):
    model, metadata = make_trained()
    export_merged(model, tmp_path, metadata)
    export_wan(model, tmp_path, metadata)
    (tmp_path / "plain").touch()
    assert {path.stat().st_mode for path in tmp_path.rglob("*") if path.is_file()} == {
        (tmp_path / "plain").stat().st_mode
    }


def test_what_cannot_be_exported_is_refused(tmp_path):
    dora, metadata = make_trained(SPECS["DoRA"])
    with pytest.raises(ValueError, match=r"cannot carry DoRA.*'merged'"):
        export_wan(dora, tmp_path / "out", metadata)
    rounded = load_wan_vace("random:tiny", dtype="bf16")
    with pytest.raises(ValueError, match="load the model with dtype 'fp32'"):
        export_diffusers(rounded, tmp_path / "out", metadata_of(rounded))
    bare = load_wan_vace("random:tiny", dtype="fp32", lora=None)
    with pytest.raises(ValueError, match="has none: export 'merged'"):
        export_diffusers(bare, tmp_path / "out", metadata_of(bare))
    assert not Path(tmp_path / "out").exists()
