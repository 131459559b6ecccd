"""Key tables: the names of weights in diffusers and in the original Wan code; each table serves both directions.

Names of the original are those of the Wan 2.1 and VACE checkpoints, which DiffSynth-Studio and ComfyUI use too.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Final

# Modules inside ``blocks.N`` and ``vace_blocks.N``: diffusers name to original name.
BLOCK_NAMES: Final[Mapping[str, str]] = {
    **{
        f"{ours}.{ours_part}": f"{theirs}.{theirs_part}"
        for ours, theirs in (("attn1", "self_attn"), ("attn2", "cross_attn"))
        for ours_part, theirs_part in (
            ("to_q", "q"),
            ("to_k", "k"),
            ("to_v", "v"),
            ("to_out.0", "o"),
            ("norm_q", "norm_q"),
            ("norm_k", "norm_k"),
        )
    },
    "norm2": "norm3",
    "ffn.net.0.proj": "ffn.0",
    "ffn.net.2": "ffn.2",
    "scale_shift_table": "modulation",
    "proj_in": "before_proj",
    "proj_out": "after_proj",
}

# Modules at the root of the model.
ROOT_NAMES: Final[Mapping[str, str]] = {
    "patch_embedding": "patch_embedding",
    "vace_patch_embedding": "vace_patch_embedding",
    "condition_embedder.time_embedder.linear_1": "time_embedding.0",
    "condition_embedder.time_embedder.linear_2": "time_embedding.2",
    "condition_embedder.time_proj": "time_projection.1",
    "condition_embedder.text_embedder.linear_1": "text_embedding.0",
    "condition_embedder.text_embedder.linear_2": "text_embedding.2",
    "proj_out": "head.head",
    "scale_shift_table": "head.modulation",
}

# What LoRA may sit on inside a VACE block, by the name of the target set.
ATTN_FFN: Final = (
    *(f"{attention}.{part}" for attention in ("attn1", "attn2") for part in ("to_q", "to_k", "to_v", "to_out.0")),
    "ffn.net.0.proj",
    "ffn.net.2",
)
LORA_TARGETS: Final[Mapping[str, tuple[str, ...]]] = {"attn+ffn": ATTN_FFN, "all": (*ATTN_FFN, "proj_in", "proj_out")}

_BLOCK = re.compile(r"((?:vace_)?blocks\.\d+)\.(.+)")
_VACE_BLOCK = re.compile(r"vace_blocks\.\d+\.(.+)")


def _reverse(table: Mapping[str, str]) -> dict[str, str]:
    return {theirs: ours for ours, theirs in table.items()}


_TO_ORIGINAL = (BLOCK_NAMES, ROOT_NAMES)
_TO_DIFFUSERS = (_reverse(BLOCK_NAMES), _reverse(ROOT_NAMES))


def original_module(name: str) -> str | None:
    """Return the original name of a module of diffusers' WanVACETransformer3DModel, None if it has none.

    Tables and weights that are parameters of their own (``scale_shift_table``) count as modules here.
    """
    return _rename_module(name, *_TO_ORIGINAL)


def diffusers_module(name: str) -> str | None:
    """Return diffusers' name of a module of the original Wan VACE model, None if it has none."""
    return _rename_module(name, *_TO_DIFFUSERS)


def to_original_names(names: Iterable[str]) -> dict[str, str]:
    """Map every key of a whole diffusers state dict to its original name.

    Raises:
        ValueError: Some keys have no original name; all are listed.
    """
    return _rename_all(names, _TO_ORIGINAL, "an original Wan VACE name")


def to_diffusers_names(names: Iterable[str]) -> dict[str, str]:
    """Map every key of a whole original state dict to its name in diffusers.

    Raises:
        ValueError: Some keys have no name in diffusers; all are listed.
    """
    return _rename_all(names, _TO_DIFFUSERS, "a diffusers WanVACE name")


def lora_module(name: str) -> str | None:
    """Return diffusers' name of a VACE-block projection given under either name; None if LoRA does not go there."""
    for candidate in (name, diffusers_module(name)):
        match = _VACE_BLOCK.fullmatch(candidate or "")
        if match and match[1] in LORA_TARGETS["all"]:
            return candidate
    return None


def lora_targets(modules: Iterable[str]) -> str:
    """Return the smallest target set (``attn+ffn`` or ``all``) that covers modules named as in diffusers."""
    projections = {module.split(".", 2)[2] for module in modules}
    return next(name for name, targets in LORA_TARGETS.items() if projections <= set(targets))


def _rename_module(name: str, block: Mapping[str, str], root: Mapping[str, str]) -> str | None:
    match = _BLOCK.fullmatch(name)
    if match is None:
        return root.get(name)
    inner = block.get(match[2])
    return None if inner is None else f"{match[1]}.{inner}"


def _rename_all(names: Iterable[str], tables: tuple[Mapping[str, str], Mapping[str, str]], goal: str) -> dict[str, str]:
    renamed, unknown = {}, []
    for name in names:
        module, dot, parameter = name.rpartition(".")
        if parameter not in ("weight", "bias"):
            module, dot, parameter = name, "", ""
        target = _rename_module(module, *tables)
        if target is None:
            unknown.append(name)
        else:
            renamed[name] = f"{target}{dot}{parameter}"
    if unknown:
        raise ValueError(f"{len(unknown)} keys have no counterpart in {goal}: {', '.join(sorted(unknown))}")
    return renamed
