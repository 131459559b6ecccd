"""The adapter file: written whole, read from every tool, and nothing unsafe read."""

import json
import logging
import pickle
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from regen_train.adapter import (
    ADAPTER_FILE,
    LORA_TARGETS,
    AdapterMetadata,
    load_adapter,
    original_module,
    save_adapter,
    save_original_adapter,
)

METADATA = AdapterMetadata(
    base_name="Wan-AI/Wan2.1-VACE-1.3B-diffusers",
    base_revision="abc",
    base_sha256="0" * 64,
    rank=4,
    alpha=6.0,
    dropout=0.1,
    dataset_fingerprint="f" * 64,
    variant="structhuman",
    step=16_000,
    recipe={"sigma": "grid", "flow_shift": 5.0},
    settings={"optimizer": {"lr": 1e-4}, "precision": "bf16"},
)


def make_state(*, rank=4, blocks=2, dim=8, targets="attn+ffn", dora=False):
    generator = torch.Generator().manual_seed(rank)
    state = {}
    for block in range(blocks):
        for target in LORA_TARGETS[targets]:
            if target == "proj_in" and block:
                continue
            module = f"vace_blocks.{block}.{target}"
            state[f"{module}.lora_A.weight"] = torch.randn(rank, dim, generator=generator)
            state[f"{module}.lora_B.weight"] = torch.randn(dim, rank, generator=generator)
            if dora:
                state[f"{module}.lora_magnitude_vector"] = torch.rand(dim, generator=generator)
    return state


def renamed(state, *, prefix="", factors=("lora_A.weight", "lora_B.weight"), original=True):
    """Name our weights as another tool does."""
    out = {}
    for name, tensor in state.items():
        module, factor = name.rsplit(".lora_", 1)
        module = original_module(module) if original else module
        out[f"{prefix}{module}.{factors[0] if factor[0] == 'A' else factors[1]}"] = tensor
    return out


def same(left, right):
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize("targets", ["attn+ffn", "all"])
def test_what_is_saved_is_loaded(tmp_path, targets, dora):
    state = make_state(targets=targets, dora=dora)
    metadata = replace(METADATA, targets=targets, use_dora=dora, use_rslora=True)
    save_adapter(tmp_path / "run" / ADAPTER_FILE, state, metadata)
    adapter = load_adapter(tmp_path / "run")
    assert same(adapter.state, state)
    assert adapter.metadata == metadata
    assert (adapter.rank, adapter.alpha, adapter.targets, adapter.format) == (4, 6.0, targets, "regen_train")
    assert adapter.scale == pytest.approx(3.0)
    assert len(adapter.modules) == len(state) // (3 if dora else 2)
    assert [path.name for path in (tmp_path / "run").iterdir()] == [ADAPTER_FILE]


def test_the_file_is_what_diffusers_writes(tmp_path):
    save_adapter(tmp_path / ADAPTER_FILE, make_state(), METADATA)
    with safe_open(tmp_path / ADAPTER_FILE, framework="pt") as file:
        keys, metadata = list(file.keys()), file.metadata()
    assert "transformer.vace_blocks.0.attn1.to_q.lora_A.weight" in keys
    record = json.loads(metadata["lora_adapter_metadata"])
    assert (record["transformer.r"], record["transformer.lora_alpha"], record["transformer.lora_dropout"]) == (
        4,
        6,
        0.0,
    )
    assert len(record["transformer.target_modules"]) == 20
    assert metadata["format"] == "pt"


def test_original_names_fold_the_scale(tmp_path):
    state = make_state()
    save_original_adapter(tmp_path / "wan.safetensors", state, METADATA)
    adapter = load_adapter(tmp_path / "wan.safetensors")
    assert (adapter.alpha, adapter.scale) == (4.0, 1.0)
    assert adapter.metadata == replace(METADATA, alpha=4.0)
    for name, tensor in state.items():
        torch.testing.assert_close(adapter.state[name], tensor * (1.5 if "lora_B" in name else 1.0))
    save_original_adapter(tmp_path / "rs.safetensors", state, replace(METADATA, use_rslora=True))
    folded = load_adapter(tmp_path / "rs.safetensors")
    name = "vace_blocks.0.attn1.to_q.lora_B.weight"
    torch.testing.assert_close(folded.state[name], state[name] * 3.0)


def test_original_names_cannot_carry_dora(tmp_path):
    with pytest.raises(ValueError, match=r"cannot carry DoRA.*'merged'"):
        save_original_adapter(tmp_path / "wan.safetensors", make_state(dora=True), replace(METADATA, use_dora=True))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("prefix", "factors", "original", "tool"),
    [
        ("", ("lora_A.default.weight", "lora_B.default.weight"), True, "diffsynth"),
        ("", ("lora_A.weight", "lora_B.weight"), True, "diffsynth"),
        ("pipe.vace.", ("lora_A.default.weight", "lora_B.default.weight"), True, "diffsynth"),
        ("diffusion_model.", ("lora_A.weight", "lora_B.weight"), True, "comfyui"),
        ("diffusion_model.", ("lora_down.weight", "lora_up.weight"), True, "comfyui"),
        ("transformer.", ("lora_A.weight", "lora_B.weight"), False, "diffusers"),
        ("", ("lora_A.weight", "lora_B.weight"), False, "diffusers"),
    ],
)
def test_names_of_other_tools(tmp_path, caplog, prefix, factors, original, tool):
    state = make_state(targets="all")
    foreign = renamed(state, prefix=prefix, factors=factors, original=original)
    save_file({name: tensor.to(torch.bfloat16) for name, tensor in foreign.items()}, tmp_path / "lora.safetensors")
    with caplog.at_level(logging.WARNING):
        adapter = load_adapter(tmp_path)
    assert same(adapter.state, {name: tensor.bfloat16().float() for name, tensor in state.items()})
    assert (adapter.format, adapter.rank, adapter.scale, adapter.metadata) == (tool, 4, 1.0, None)
    assert ("alpha is unknown" in caplog.text) is (tool == "diffusers")


def test_alpha_tensors_and_mixed_ranks(tmp_path):
    state = make_state()
    foreign = renamed(state, prefix="diffusion_model.", factors=("lora_down.weight", "lora_up.weight"))
    modules = sorted({name.rsplit(".lora_", 1)[0] for name in foreign})
    save_file(foreign | {f"{module}.alpha": torch.tensor(2.0) for module in modules}, tmp_path / "one.safetensors")
    adapter = load_adapter(tmp_path / "one.safetensors")
    assert (adapter.alpha, adapter.scale) == (2.0, 0.5)
    assert same(adapter.state, state)

    small = {name: tensor for name, tensor in foreign.items() if name.startswith(modules[0])}
    foreign |= {name: (tensor[:2] if "down" in name else tensor[:, :2]).contiguous() for name, tensor in small.items()}
    save_file(foreign | {f"{modules[0]}.alpha": torch.tensor(3.0)}, tmp_path / "two.safetensors")
    adapter = load_adapter(tmp_path / "two.safetensors")
    assert (adapter.rank, adapter.scale) == (4, 1.0)
    module = "vace_blocks.0.attn2.to_k"
    assert modules[0].endswith("vace_blocks.0.cross_attn.k")
    delta = adapter.state[f"{module}.lora_B.weight"] @ adapter.state[f"{module}.lora_A.weight"]
    up, down = (state[f"{module}.lora_{side}.weight"] for side in "BA")
    torch.testing.assert_close(delta, 1.5 * up[:, :2] @ down[:2])
    assert torch.equal(
        adapter.state["vace_blocks.1.ffn.net.2.lora_B.weight"], state["vace_blocks.1.ffn.net.2.lora_B.weight"]
    )


def test_metadata_of_diffusers(tmp_path):
    state = make_state()
    record = {"transformer.r": 4, "transformer.lora_alpha": 8, "transformer.use_rslora": True}
    named = {f"transformer.{name}": tensor for name, tensor in state.items()}
    save_file(named, tmp_path / "a.safetensors", {"lora_adapter_metadata": json.dumps(record)})
    adapter = load_adapter(tmp_path / "a.safetensors")
    assert (adapter.format, adapter.alpha, adapter.scale) == ("diffusers", 8.0, 4.0)
    record["transformer.alpha_pattern"] = {"^vace_blocks.0.attn1.to_q": 2}
    save_file(named, tmp_path / "b.safetensors", {"lora_adapter_metadata": json.dumps(record)})
    adapter = load_adapter(tmp_path / "b.safetensors")
    assert (adapter.alpha, adapter.scale, adapter.use_rslora) == (4.0, 1.0, False)
    for module, scale in (("vace_blocks.0.attn1.to_q", 1.0), ("vace_blocks.1.attn1.to_q", 4.0)):
        name = f"{module}.lora_B.weight"
        torch.testing.assert_close(adapter.state[name], state[name] * scale)


def break_half(state):
    del state["transformer.vace_blocks.0.attn1.to_q.lora_A.weight"]
    state["transformer.vace_blocks.1.ffn.net.2.lora_B.weight"] = torch.zeros(8, 3)


def break_names(state):
    state["transformer.blocks.0.attn1.to_q.lora_A.weight"] = torch.zeros(4, 8)
    state["text_encoder.q.lora_A.weight"] = torch.zeros(4, 8)


def break_kohya(state):
    state["lora_unet_vace_blocks_0_self_attn_q.lora_down.weight"] = torch.zeros(4, 8)


def break_values(state):
    state["transformer.vace_blocks.0.attn1.to_q.lora_A.weight"][0, 0] = torch.nan
    state["transformer.vace_blocks.0.attn1.to_k.lora_A.weight"] = torch.zeros(4, 8, dtype=torch.int8)


def break_twice(state):
    state["vace_blocks.0.attn1.to_q.lora_A.weight"] = torch.zeros(4, 8)


def break_magnitude(state):
    state["transformer.vace_blocks.0.attn1.to_q.lora_magnitude_vector"] = torch.zeros(7)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (
            break_half,
            r"attn1\.to_q: lora_A \(lora_down\) is missing.*ffn\.net\.2: A must be \[rank, in\].*\[4, 8\].*\[8, 3\]",
        ),
        (break_names, r"2 keys are no LoRA.*text_encoder\.q\.lora_A\.weight, transformer\.blocks\.0\.attn1"),
        (break_kohya, r"lora_unet_.*convert_lora\.py --target other"),
        (break_values, r"to_k\.lora_A\.weight is I8"),
        (break_twice, r"given twice"),
        (break_magnitude, r"must be \[8\], got \[7\].*magnitude vectors are missing of vace_blocks\.0\.attn1\.to_k"),
    ],
)
def test_every_fault_is_named(tmp_path, harm, message):
    state = {f"transformer.{name}": tensor for name, tensor in make_state().items()}
    harm(state)
    save_file(state, tmp_path / "lora.safetensors")
    with pytest.raises(ValueError, match=message):
        load_adapter(tmp_path)


def test_not_a_number_is_refused(tmp_path):
    state = make_state()
    state["vace_blocks.0.attn1.to_q.lora_A.weight"][0, 0] = torch.inf
    save_file(state, tmp_path / "lora.safetensors")
    with pytest.raises(ValueError, match=r"attn1\.to_q\.lora_A\.weight holds NaN or infinity: the run diverged"):
        load_adapter(tmp_path)
    save_file({name: tensor * torch.nan for name, tensor in state.items()}, tmp_path / "lora.safetensors")
    with pytest.raises(ValueError, match=rf"holds NaN or infinity, and so do {len(state) - 1} more tensors"):
        load_adapter(tmp_path)


def test_few_of_many_unknown_keys_are_listed(tmp_path):
    lora = {f"blocks.{block}.attn1.to_q.lora_A.weight": torch.zeros(4, 8) for block in range(8)}
    save_file(lora, tmp_path / "lora.safetensors")
    with pytest.raises(ValueError, match=r"8 keys are no LoRA.*blocks\.4\.attn1\.to_q\.lora_A\.weight and 3 more$"):
        load_adapter(tmp_path)


def test_a_whole_model_is_called_one(tmp_path):
    model = {f"blocks.{block}.self_attn.q.weight": torch.zeros(8, 8) for block in range(8)}
    save_file(model, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"this is a whole model, not a LoRA: 8 keys, .* and 3 more$"):
        load_adapter(tmp_path)


class Bomb:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was read",))


def test_no_pickle_is_read(tmp_path):
    for name, message in (
        ("lora.pt", r"must be a \.safetensors file; .* not read as adapters"),
        ("lora.safetensors", "not a whole safetensors file|must be a safetensors file of at most"),
    ):
        (tmp_path / name).write_bytes(pickle.dumps(Bomb()))
        with pytest.raises(ValueError, match=message):
            load_adapter(tmp_path / name)


def test_torn_and_lying_files_are_refused(tmp_path):
    save_adapter(tmp_path / ADAPTER_FILE, make_state(), METADATA)
    whole = (tmp_path / ADAPTER_FILE).read_bytes()
    header = json.dumps({"a": {"dtype": "F32", "shape": [1 << 40, 1 << 20], "data_offsets": [0, 1 << 62]}}).encode()
    for content in (whole[:-5], whole[:100], b"", len(header).to_bytes(8, "little") + header, b"\xff" * 64):
        (tmp_path / ADAPTER_FILE).write_bytes(content)
        with pytest.raises(ValueError, match="safetensors file"):
            load_adapter(tmp_path)


def test_a_folder_must_be_unambiguous(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no adapter"):
        load_adapter(tmp_path)
    with pytest.raises(FileNotFoundError, match="no such file"):
        load_adapter(tmp_path / "absent.safetensors")
    save_adapter(tmp_path / "a.safetensors", make_state(), METADATA)
    save_adapter(tmp_path / "b.safetensors", make_state(), METADATA)
    with pytest.raises(ValueError, match=r"several files, name one: a\.safetensors, b\.safetensors"):
        load_adapter(tmp_path)
    save_adapter(tmp_path / ADAPTER_FILE, make_state(), METADATA)
    assert load_adapter(tmp_path).rank == 4


def test_a_failed_write_leaves_what_was_there(tmp_path, monkeypatch):
    path = tmp_path / ADAPTER_FILE
    save_adapter(path, make_state(), METADATA)
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("regen_train.adapter.files.sync", full)
    with pytest.raises(OSError, match="No space left"):
        save_adapter(path, make_state(rank=2), replace(METADATA, rank=2))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_metadata_must_agree_with_the_tensors(tmp_path):
    with pytest.raises(ValueError, match=r"says rank 5 .* say rank \[4\]"):
        save_adapter(tmp_path / "a.safetensors", make_state(), replace(METADATA, rank=5))
    named = {f"transformer.{name}": tensor for name, tensor in make_state().items()}
    save_file(named, tmp_path / "a.safetensors", {"regen_train": replace(METADATA, rank=8, use_dora=True).to_json()})
    with pytest.raises(ValueError, match=r"says rank 8, the tensors have \[4\]; .*use_dora True"):
        load_adapter(tmp_path)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ("[1, 2]", "not a json object"),
        ("{", "not a json object"),
        ({"rank": "4", "step": True, "colour": 1}, "colour is unknown.*rank must be int, got '4'.*step must be int"),
        ({"settings": [1]}, "settings must be dict"),
        ({"base_name": None, "alpha": -1}, "base_name must be str"),
        ({"alpha": -1.0}, "must be positive"),
        ({"schema_version": 2}, "schema_version 2, this regen_train reads 1"),
    ],
)
def test_metadata_faults(record, message):
    text = record if isinstance(record, str) else json.dumps(json.loads(METADATA.to_json()) | record)
    with pytest.raises(ValueError, match=message):
        AdapterMetadata.from_json(text)


def test_metadata_round_trip_and_base():
    assert AdapterMetadata.from_json(METADATA.to_json()) == METADATA
    METADATA.check_base("a copy", "0" * 64)
    replace(METADATA, base_sha256=None).check_base("any", "1" * 64)
    with pytest.raises(ValueError, match=r"trained on base Wan-AI/.* this base is toy \(sha256 1111.*--pretrained"):
        METADATA.check_base("toy", "1" * 64)
