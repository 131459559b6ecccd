"""Models of transformers from a folder or the hub: what is downloaded, what is refused, which weights they are."""

import os
from pathlib import Path
from unittest.mock import MagicMock

import huggingface_hub
import pytest
import torch
from huggingface_hub.utils import filter_repo_objects
from safetensors.torch import save_file

from regen_train.pretrained import PretrainedFolder, model_revision, resolve_model

COMMIT = "0123456789abcdef0123456789abcdef01234567"
NEEDED = {
    "chat_template.jinja",
    "config.json",
    "merges.txt",
    "model-00001-of-00002.safetensors",
    "model-00002-of-00002.safetensors",
    "model.safetensors.index.json",
    "preprocessor_config.json",
    "spiece.model",
    "tokenizer.json",
}
UNWANTED = {"README.md", "model.pt", "onnx/model.safetensors", "onnx/config.json", "pytorch_model.bin"}


@pytest.fixture
def folder(tmp_path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    save_file({"weight": torch.ones(2)}, folder / "model.safetensors")
    return folder


def test_of_a_repository_only_safe_files_of_its_root_are_downloaded(tmp_path, monkeypatch):
    def download(hub_id: str, *, revision: str | None, **patterns: list[str]) -> str:
        assert (hub_id, revision) == ("owner/name", "v1")
        snapshot = tmp_path / COMMIT
        snapshot.mkdir()
        for name in filter_repo_objects(sorted(NEEDED | UNWANTED), **patterns):
            (snapshot / name).touch()
        return str(snapshot)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    model = resolve_model("owner/name", "v1")
    assert (model.name, model.revision, model_revision(model)) == ("owner/name", COMMIT, COMMIT)
    assert {file.name for file in model.path.iterdir()} == NEEDED


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors"])
def test_a_folder_without_config_or_safe_weights_is_refused(folder, missing):
    (folder / missing).unlink()
    torch.save({}, folder / "pytorch_model.bin")
    with pytest.raises(FileNotFoundError, match=r"it has no .*pickles are not read, take a revision or a copy"):
        resolve_model(str(folder))


@pytest.mark.parametrize("pretrained", ["no such folder", "/nowhere/at/all", "gpt2"])
def test_what_is_neither_folder_nor_hub_id_is_refused(pretrained):
    with pytest.raises(FileNotFoundError, match="existing folder of a model or a hub id OWNER/NAME"):
        resolve_model(pretrained)


def test_a_hub_that_cannot_be_reached_is_told_with_a_remedy(monkeypatch):
    monkeypatch.setattr(huggingface_hub, "snapshot_download", MagicMock(side_effect=ConnectionError()))
    with pytest.raises(FileNotFoundError, match=r"cannot be reached.*hf download owner/name"):
        resolve_model("owner/name")


def test_a_folder_is_known_by_its_contents(folder, tmp_path):
    model = resolve_model(str(folder))
    assert (model.name, model.revision) == ("model", None)
    first = model_revision(model)
    (folder / "README.md").write_text("means nothing")
    assert model_revision(model) == first
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in folder.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    assert model_revision(PretrainedFolder(copy, "copy")) == first


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_changed_file_is_another_revision(folder, name):
    model = resolve_model(str(folder))
    first = model_revision(model)
    (folder / name).write_bytes(b"other")
    os.utime(folder / name, ns=(1, 1))
    assert model_revision(model) != first
