"""A Wan VACE without weights: its layers' shapes, read in a second, for what is asked before gigabytes are loaded."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from regen_train.adapter import to_diffusers_names
from regen_train.model.assemble import empty_transformer
from regen_train.model.base import LoadedTransformer, infer_config
from regen_train.model.block_options import BlockOptions
from regen_train.model.lora import LoraSpec, add_lora
from regen_train.model.random_init import RANDOM_PREFIX, random_config
from regen_train.model.wan_vace import VACE_PARTS, Trainable, WanVace
from regen_train.pretrained import DTYPES, Precision, read_config, resolve_folder

_TEMPORAL_FACTOR = 4
_PLAIN_BLOCKS = BlockOptions()


def outline_wan_vace(
    pretrained: str,
    *,
    dtype: Precision = "bf16",
    lora: LoraSpec | None = None,
    trainable: Trainable = "lora",
    revision: str | None = None,
    blocks: BlockOptions = _PLAIN_BLOCKS,
) -> WanVace:
    """Return what `load_wan_vace` would, with parameters on the meta device: shapes, precisions and what learns.

    Of a hub id only the configs are downloaded.

    Args:
        pretrained: As for `load_wan_vace`.
        dtype: As there.
        lora: As there.
        trainable: As there.
        revision: As there.
        blocks: As there; sizes are counted by them, and the layers are as without.

    Raises:
        FileNotFoundError: Nothing is found under ``pretrained``; says what would be.
        ValueError: What is found is no Wan VACE transformer.
    """
    config, temporal_factor = _read_config(pretrained, revision)
    loaded = LoadedTransformer(empty_transformer(config), pretrained, revision, temporal_factor)
    model = outline_of(loaded, dtype=dtype, lora=lora, trainable=trainable)
    model.block_options = blocks
    return model


def outline_of(loaded: LoadedTransformer, *, dtype: Precision, lora: LoraSpec | None, trainable: Trainable) -> WanVace:
    """Return `outline_wan_vace` of a transformer without weights."""
    module = loaded.module.requires_grad_(False)
    model = WanVace(loaded, dtype=DTYPES[dtype], lora=lora if trainable == "lora" else None, trainable=trainable)
    if model.lora is not None:
        add_lora(module, model.lora, seed=0)
    precise = set(module._keep_in_fp32_modules)
    for name, parameter in module.named_parameters():
        learns = ".lora_" in name or trainable == "all" or (trainable == "vace" and name.startswith(VACE_PARTS))
        parameter.requires_grad_(learns)
        if not learns and not precise & set(name.split(".")):
            parameter.data = parameter.data.to(DTYPES[dtype])
    return model


def _read_config(pretrained: str, revision: str | None) -> tuple[dict[str, Any], int]:
    """Return the transformer's config and the pixel frames per latent frame."""
    if pretrained.startswith(RANDOM_PREFIX):
        return random_config(pretrained), _TEMPORAL_FACTOR
    file = Path(pretrained).expanduser()
    if file.is_file():
        beside = file.with_name("config.json")
        return _config_of_files([file], read_config(beside) if beside.is_file() else {}), _TEMPORAL_FACTOR
    parts = ("transformer/config.json", "vae/config.json", "config.json")
    found = resolve_folder(pretrained, revision=revision, parts=parts).path
    folder = found / "transformer" if (found / "transformer").is_dir() else found
    vae = (folder.parent if folder.name == "transformer" else folder) / "vae" / "config.json"
    factor = int(read_config(vae).get("scale_factor_temporal", _TEMPORAL_FACTOR)) if vae.is_file() else _TEMPORAL_FACTOR
    config = read_config(folder / "config.json")
    if config.get("_class_name") != "WanVACETransformer3DModel":
        config = _config_of_files(sorted(folder.glob("*.safetensors")), config)
    return config, factor


def _config_of_files(files: list[Path], beside: Mapping[str, Any]) -> dict[str, Any]:
    """Read shapes from the headers of safetensors files, no tensors."""
    from safetensors import safe_open

    state: dict[str, Tensor] = {}
    for file in files:
        with safe_open(file, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118 - no dict
                shape = opened.get_slice(name).get_shape()
                state[name.removeprefix("model.diffusion_model.")] = torch.empty(shape, device="meta")
    if "vace_patch_embedding.weight" not in state:
        raise ValueError(
            f"{files[0].parent if files else 'the folder'} holds no VACE blocks; expected Wan2.1-VACE weights under "
            "original or diffusers' names"
        )
    if "condition_embedder.time_proj.weight" not in state:
        names = to_diffusers_names(state)
        state = {names[name]: tensor for name, tensor in state.items()}
    return infer_config(state, beside)
