"""A Wan VACE without weights: its layers' shapes, read in a second, for what is asked before gigabytes are loaded."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from regen_train.model.assemble import empty_transformer
from regen_train.model.base import (
    DIFFUSERS_CLASS,
    WAN_TEMPORAL_FACTOR,
    LoadedTransformer,
    config_beside,
    infer_config,
    temporal_factor_of,
    to_diffusers_state,
    transformer_folder,
)
from regen_train.model.block_options import BlockOptions
from regen_train.model.block_swap import check_num_swapped
from regen_train.model.lora import LoraSpec, add_lora
from regen_train.model.random_init import RANDOM_PREFIX, random_config
from regen_train.model.wan_vace import VACE_PARTS, Trainable, WanVace
from regen_train.pretrained import DTYPES, Precision, read_config, resolve_folder

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
        ValueError: What is found is no Wan VACE transformer, or it has fewer main blocks than are to be swapped.
    """
    config, temporal_factor = _read_config(pretrained, revision)
    loaded = LoadedTransformer(empty_transformer(config), pretrained, revision, temporal_factor)
    model = outline_of(loaded, dtype=dtype, lora=lora, trainable=trainable)
    check_num_swapped(blocks.swap, len(model.transformer.blocks))
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


def _read_config(pretrained: str, revision: str | None) -> tuple[Mapping[str, Any], int]:
    """Return the transformer's config and the pixel frames per latent frame."""
    if pretrained.startswith(RANDOM_PREFIX):
        return random_config(pretrained), WAN_TEMPORAL_FACTOR
    file = Path(pretrained).expanduser()
    if file.is_file():
        return infer_config(_read_shapes([file], file), config_beside(file)), WAN_TEMPORAL_FACTOR
    found = resolve_folder(
        pretrained, revision=revision, parts=("transformer/config.json", "vae/config.json", "config.json")
    )
    folder = transformer_folder(found.path)
    config = read_config(folder / "config.json")
    if config.get("_class_name") != DIFFUSERS_CLASS:
        config = infer_config(_read_shapes(sorted(folder.glob("*.safetensors")), folder), config)
    return config, temporal_factor_of(folder)


def _read_shapes(files: list[Path], source: Path) -> dict[str, Tensor]:
    """Read the headers of safetensors files; the tensors have shapes alone."""
    from safetensors import safe_open

    state: dict[str, Tensor] = {}
    for file in files:
        with safe_open(file, framework="pt") as opened:
            shapes = {name: opened.get_slice(name).get_shape() for name in opened.keys()}  # noqa: SIM118 - no dict
        state |= {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    return to_diffusers_state(state, source)
