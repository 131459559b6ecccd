"""Find pretrained weights on disk or on the Hugging Face hub, and say exactly which weights they are."""

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from regen_train.files import file_sha256

Precision = Literal["bf16", "fp32"]
DTYPES: dict[str, torch.dtype] = {"bf16": torch.bfloat16, "fp32": torch.float32}

TOY = "toy"
_TOY_FOLDER = Path(__file__).parent / "toy" / "model"
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
# Tensors and text only: a pickle in a repository is never downloaded.
_SAFE_FILES = ("*.json", "*.safetensors", "*.model", "*.txt")
# Some models keep their chat template in a file of its own.
_MODEL_FILES = (*_SAFE_FILES, "*.jinja")


@dataclass(frozen=True)
class PretrainedFolder:
    """A folder with pretrained weights.

    Args:
        path: Where it lies.
        name: The hub id, or the folder's own name; never a full path, since it is written into what users share.
        revision: The commit on the hub; None for a folder of the user's.
    """

    path: Path
    name: str
    revision: str | None = None


def resolve_folder(pretrained: str, *, revision: str | None, parts: Sequence[str]) -> PretrainedFolder:
    """Return the local folder of a pretrained pipeline, downloading the wanted parts of a hub id if need be.

    Args:
        pretrained: A folder, a hub id such as ``Wan-AI/Wan2.1-VACE-1.3B-diffusers``, or ``toy`` for the small model
            of a drawn world that comes with this package.
        revision: Branch, tag or commit on the hub; None for its main branch. Means nothing for a folder.
        parts: What to download of a hub id: folders such as ``vae``, files such as ``vae/config.json``.

    Raises:
        FileNotFoundError: There is no such folder, and no such hub id can be had; says why and what to do.
    """
    if pretrained == TOY:
        return PretrainedFolder(_TOY_FOLDER, TOY)
    folder = Path(pretrained).expanduser()
    if folder.is_dir():
        return PretrainedFolder(folder, folder.resolve().name)
    if folder.exists() or not _HUB_ID.fullmatch(pretrained):
        raise FileNotFoundError(
            "pretrained must be an existing diffusers folder, a hub id OWNER/NAME, or toy; found none in "
            f"{pretrained!r}"
        )
    files = [part for part in parts if part.endswith(".json")]
    patterns = files + [f"{part}/{kind}" for part in parts if part not in files for kind in _SAFE_FILES]
    path = _download(pretrained, revision, allow_patterns=patterns)
    return PretrainedFolder(path, pretrained, path.name)


def resolve_model(pretrained: str, revision: str | None = None) -> PretrainedFolder:
    """Return the local folder of one transformers model, downloading it if need be: tensors and text, no pickles.

    Args:
        pretrained: A folder, or a hub id such as ``facebook/sam3``.
        revision: Branch, tag or commit on the hub; None for its main branch. Means nothing for a folder.

    Raises:
        FileNotFoundError: There is no such folder, it lacks config.json or weights as safetensors, or no such hub id
            can be had; says why and what to do.
    """
    folder = Path(pretrained).expanduser()
    if folder.is_dir():
        found = PretrainedFolder(folder, folder.resolve().name)
    elif folder.exists() or not _HUB_ID.fullmatch(pretrained):
        raise FileNotFoundError(
            f"pretrained must be an existing folder of a model or a hub id OWNER/NAME; found neither in {pretrained!r}"
        )
    else:
        # the root only: folders hold copies for other programs
        path = _download(pretrained, revision, allow_patterns=list(_MODEL_FILES), ignore_patterns=["*/*"])
        found = PretrainedFolder(path, pretrained, path.name)
    missing = [kind for kind in ("config.json", "*.safetensors") if not any(found.path.glob(kind))]
    if missing:
        raise FileNotFoundError(
            f"{pretrained!r} is no model that can be read here: it has no {' and no '.join(missing)}; "
            "weights as .bin or .pth pickles are not read, take a revision or a copy with safetensors"
        )
    return found


def model_revision(model: PretrainedFolder) -> str:
    """Return which weights a model of `resolve_model` has: its commit on the hub or, for a folder, a checksum.

    The checksum is a SHA-256 over the names and contents of all files that decide what the model does: weights,
    configs, tokenizer and processor. It is kept until one of them changes on disk.
    """
    if model.revision is not None:
        return model.revision
    files = sorted({file for kind in _MODEL_FILES for file in model.path.glob(kind) if file.is_file()})
    lines = (f"{file.name}\0{_checksum(file, file.stat().st_size, file.stat().st_mtime_ns)}\n" for file in files)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


@lru_cache(maxsize=256)
def _checksum(file: Path, size: int, modified: int) -> str:
    """Return the file's checksum; size and time of change are there to tell a changed file from the one known."""
    return file_sha256(file)


def _download(hub_id: str, revision: str | None, **patterns: Any) -> Path:
    from huggingface_hub import errors, snapshot_download

    where = f"{hub_id!r}" + (f" at revision {revision!r}" if revision else "")
    try:
        return Path(snapshot_download(hub_id, revision=revision, **patterns))
    except errors.GatedRepoError as error:
        raise FileNotFoundError(
            f"{where} is gated: accept its licence on the hub, then log in with `hf auth login`"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise FileNotFoundError(f"{where}: the hub knows no such revision; check the branch, tag or commit") from error
    except errors.RepositoryNotFoundError as error:
        raise FileNotFoundError(
            f"{where}: there is no such folder here, and the hub knows no such repository or keeps it private; "
            "check the spelling, or log in with `hf auth login`"
        ) from error
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled, OSError) as error:
        raise FileNotFoundError(
            f"{where} is neither a folder here nor in the hub cache, and the hub cannot be reached "
            f"(HF_HUB_OFFLINE={os.environ.get('HF_HUB_OFFLINE', '')!r}): download it on a machine with a network "
            f"with `hf download {hub_id}`, and pass the folder"
        ) from error


def read_config(path: Path) -> dict[str, Any]:
    """Read a config.json.

    Raises:
        FileNotFoundError: There is none.
        ValueError: It holds no JSON object.
    """
    if not path.is_file():
        raise FileNotFoundError(f"expected the config file {path}; is the folder a diffusers pipeline?")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is no JSON: {error}") from error
    if not isinstance(config, dict):
        raise ValueError(f"{path} must hold a JSON object, got {type(config).__name__}")  # noqa: TRY004
    return config


def read_safetensors(folder: Path) -> dict[str, Tensor]:
    """Map all tensors of a folder's safetensors files; memory-mapped, so that only what is used is read.

    Raises:
        FileNotFoundError: The folder holds no safetensors file.
    """
    from safetensors.torch import load_file

    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise FileNotFoundError(f"{folder} holds no .safetensors file; weights as .bin or .pth pickles are not read")
    return {name: tensor for file in files for name, tensor in load_file(file).items()}


def state_sha256(state: Mapping[str, Tensor], *, dtype: torch.dtype = torch.bfloat16) -> str:
    """Return one SHA-256 over named tensors, whatever file, order or precision they came in.

    Args:
        state: Name to tensor.
        dtype: What values are rounded to first. With bf16, the fp32 and the bf16 copy of one model agree.

    Returns:
        Hex digest of the name-sorted list of name, shape and the tensor's own digest.
    """
    names = sorted(state)
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        digests = list(pool.map(lambda name: _tensor_digest(state[name], dtype), names))
    lines = (f"{name}\0{list(state[name].shape)}\0{digest}\n" for name, digest in zip(names, digests, strict=True))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _tensor_digest(tensor: Tensor, dtype: torch.dtype) -> str:
    flat = tensor.detach().to(device="cpu", dtype=dtype).reshape(-1).contiguous()
    return hashlib.sha256(flat.view(torch.uint8).numpy().data).hexdigest()
