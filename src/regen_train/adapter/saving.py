"""Write LoRA weights: our own file, and the one of DiffSynth-Studio and ComfyUI."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from regen_train.adapter.factors import Factors, LoraFile, flatten, parse_factors
from regen_train.adapter.files import write_weights
from regen_train.adapter.metadata import DIFFUSERS_KEY, DIFFUSERS_PREFIX, OWN_KEY, AdapterMetadata, diffusers_record
from regen_train.adapter.names import original_module

ORIGINAL_PREFIX = "diffusion_model."


def save_adapter(path: str | Path, lora_state: Mapping[str, Tensor], metadata: AdapterMetadata) -> None:
    """Write an adapter whole or not at all; diffusers' ``load_lora_weights`` reads it.

    Args:
        path: The safetensors file; its folder is made. What was there stays until the new file is complete.
        lora_state: ``vace_blocks.N.attn1.to_q.lora_A.weight`` and so on; written in fp32.
        metadata: Must agree with the tensors.

    Raises:
        ValueError: Names or shapes are not those of LoRA on VACE blocks, or do not agree with the metadata.
        OSError: The file could not be written; nothing is left of it.
    """
    lora = _checked(lora_state, metadata)
    tensors = {f"{DIFFUSERS_PREFIX}{name}": tensor for name, tensor in flatten(lora.modules).items()}
    record = diffusers_record(metadata, lora.modules)
    write_weights(_safetensors(path), tensors, {DIFFUSERS_KEY: record, OWN_KEY: metadata.to_json()})


def save_original_adapter(path: str | Path, lora_state: Mapping[str, Tensor], metadata: AdapterMetadata) -> None:
    """Write LoRA weights as DiffSynth-Studio and ComfyUI read them: original names, the scale folded into B.

    Args:
        path: As in `save_adapter`.
        lora_state: As in `save_adapter`.
        metadata: As in `save_adapter`; written with alpha = rank, which is what holds for the folded weights.

    Raises:
        ValueError: As in `save_adapter`, and for DoRA, which this format cannot carry.
        OSError: The file could not be written; nothing is left of it.
    """
    if metadata.use_dora:
        raise ValueError("the wan format cannot carry DoRA: export 'merged' weights instead (or 'diffusers')")
    lora = _checked(lora_state, metadata)
    tensors = {}
    for name, factors in lora.modules.items():
        original = f"{ORIGINAL_PREFIX}{original_module(name)}"
        tensors[f"{original}.lora_A.weight"] = factors.down
        tensors[f"{original}.lora_B.weight"] = fold_scale(factors, metadata.scale)
    folded = replace(metadata, alpha=float(metadata.rank), use_rslora=False)
    write_weights(_safetensors(path), tensors, {OWN_KEY: folded.to_json()})


def fold_scale(factors: Factors, scale: float) -> Tensor:
    """Return B times the scale, so that ``B A`` is the whole change of the weight."""
    return factors.up * scale


def _checked(lora_state: Mapping[str, Tensor], metadata: AdapterMetadata) -> LoraFile:
    lora = parse_factors(lora_state)
    if lora.ranks != {metadata.rank} or lora.has_magnitude != metadata.use_dora or lora.has_alpha:
        raise ValueError(
            f"the adapter's metadata says rank {metadata.rank} and use_dora {metadata.use_dora}, the tensors say rank "
            f"{sorted(lora.ranks)} and use_dora {lora.has_magnitude}"
        )
    return lora


def _safetensors(path: str | Path) -> Path:
    if not str(path).endswith(".safetensors"):
        raise ValueError(f"{path}: an adapter's file name ends in .safetensors")
    return Path(path)
