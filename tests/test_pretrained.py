"""What is asked of the hub, and what users are told when it cannot be had."""

import json
import shutil
from pathlib import Path
from unittest.mock import MagicMock

import huggingface_hub
import pytest
import torch
from huggingface_hub import errors
from safetensors.torch import save_file

from regen_train.encoders import load_encoders
from regen_train.model import load_wan_vace
from regen_train.pretrained import read_config, read_safetensors, resolve_folder, state_sha256

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """A stand-in for the download of a snapshot: copies the files that the patterns let through."""

    def __init__(self, source: Path, cache: Path) -> None:
        self.source = source
        self.snapshot = cache / COMMIT

    def __call__(self, hub_id: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        assert (hub_id, revision) == ("owner/wan-vace", "v1")
        for file in {file for pattern in allow_patterns for file in self.source.glob(pattern)}:
            target = self.snapshot / file.relative_to(self.source)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
        return str(self.snapshot)


@pytest.fixture
def hub(tiny_model, tmp_path, monkeypatch) -> Hub:
    source = tmp_path / "source"
    shutil.copytree(tiny_model, source)
    (source / "transformer" / "pickle.bin").write_bytes(b"harm")
    hub = Hub(source, tmp_path / "cache")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", hub)
    return hub


def test_a_model_from_the_hub_knows_its_name_and_commit(hub, tiny_model):
    model = load_wan_vace("owner/wan-vace", revision="v1", lora=None)
    assert (model.base.name, model.base.revision) == ("owner/wan-vace", COMMIT)
    assert model.base.sha256 == load_wan_vace(str(tiny_model), lora=None).base.sha256
    downloaded = {str(file.relative_to(hub.snapshot)) for file in hub.snapshot.rglob("*") if file.is_file()}
    weights = "transformer/diffusion_pytorch_model.safetensors"
    assert downloaded == {"transformer/config.json", weights, "vae/config.json"}


def test_encoders_from_the_hub_do_without_the_transformers_weights(hub):
    encoders = load_encoders("owner/wan-vace", revision="v1", dtype="fp32")
    assert (encoders.name, encoders.revision) == ("owner/wan-vace", COMMIT)
    assert encoders.encode_prompts(["a person"])[0].shape == (3, 32)
    assert [file.name for file in (hub.snapshot / "transformer").iterdir()] == ["config.json"]


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (errors.GatedRepoError("", response=MagicMock()), "'owner/name' at revision 'v1' is gated: accept its licence"),
        (errors.RevisionNotFoundError("", response=MagicMock()), "knows no such revision; check the branch"),
        (errors.RepositoryNotFoundError("", response=MagicMock()), "knows no such repository or keeps it private"),
        (errors.LocalEntryNotFoundError(""), "neither a folder here nor in the hub cache"),
        (ConnectionError(), "the hub cannot be reached"),
    ],
)
def test_what_the_hub_refuses_is_told_with_a_remedy(monkeypatch, error, message):
    monkeypatch.setattr(huggingface_hub, "snapshot_download", MagicMock(side_effect=error))
    with pytest.raises(FileNotFoundError, match=message):
        resolve_folder("owner/name", revision="v1", parts=("vae",))


def test_a_folder_is_called_by_its_own_name(tiny_model, tmp_path):
    assert resolve_folder(str(tiny_model), revision=None, parts=()).name == tiny_model.name
    assert load_wan_vace(str(tiny_model / "transformer"), lora=None).base.name == tiny_model.name
    (tmp_path / "link").symlink_to(tiny_model)
    assert resolve_folder(str(tmp_path / "link"), revision=None, parts=()).name == tiny_model.name


@pytest.mark.parametrize("text", ["{", json.dumps([1])])
def test_configs_that_are_none_are_refused(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError, match="JSON"):
        read_config(tmp_path / "config.json")


def test_pickles_are_not_read(tmp_path):
    torch.save({}, tmp_path / "model.bin")
    with pytest.raises(FileNotFoundError, match=r"holds no \.safetensors file; weights as \.bin or \.pth"):
        read_safetensors(tmp_path)


def test_shards_of_a_model_are_one_model(tmp_path):
    state = {name: torch.randn(3, 4) for name in "abc"}
    save_file({"a": state["a"]}, tmp_path / "model-00001-of-00002.safetensors")
    save_file({"b": state["b"], "c": state["c"]}, tmp_path / "model-00002-of-00002.safetensors")
    assert state_sha256(read_safetensors(tmp_path)) == state_sha256(state)
    rounded = {name: tensor.bfloat16() for name, tensor in state.items()}
    assert state_sha256(rounded) == state_sha256(state)
    assert state_sha256(rounded, dtype=torch.float32) != state_sha256(state, dtype=torch.float32)
