"""Take a LoRA file's tensors apart: which module, which factor, which tool's manner."""

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from jaxtyping import Float
from torch import Tensor

from regen_train.adapter.files import to_float32
from regen_train.adapter.names import lora_module

_PREFIXES: Final = ("transformer.", "diffusion_model.", "model.diffusion_model.", "pipe.vace.", "base_model.model.")
# peft puts the adapter's name before the last part: `lora_A.default.weight`.
_KEY = re.compile(
    r"(?P<module>.+)\.(?:"
    r"lora_(?P<side>A|B|down|up)(?:\.[^.]+)?\.weight"
    r"|(?P<alpha>alpha)"
    r"|(?P<magnitude>lora_magnitude_vector)(?:\.[^.]+){0,2}"
    r")"
)
MAX_LISTED_KEYS: Final = 5
_SIDES: Final = {"A": "down", "down": "down", "B": "up", "up": "up"}


@dataclass(frozen=True)
class Factors:
    """The low-rank factors of one module; its weight changes by ``scale * up @ down``.

    Args:
        down: A of the LoRA paper.
        up: B of the LoRA paper.
        magnitude: DoRA's magnitude vector.
        alpha: The module's own alpha, where the file has one.
    """

    down: Float[Tensor, "rank inputs"]
    up: Float[Tensor, "outputs rank"]
    magnitude: Float[Tensor, " outputs"] | None = None
    alpha: float | None = None

    @property
    def rank(self) -> int:
        """Rows of A."""
        return self.down.shape[0]


@dataclass(frozen=True)
class LoraFile:
    """A LoRA file, taken apart.

    Args:
        modules: Factors by the module's name in diffusers.
        tool: Whose manner the names are in.
    """

    modules: Mapping[str, Factors]
    tool: Literal["diffusers", "diffsynth", "comfyui"]

    @property
    def ranks(self) -> set[int]:
        """All ranks that occur."""
        return {factors.rank for factors in self.modules.values()}

    @property
    def has_alpha(self) -> bool:
        """Whether any module has an alpha of its own."""
        return any(factors.alpha is not None for factors in self.modules.values())

    @property
    def has_magnitude(self) -> bool:
        """Whether the modules have DoRA's magnitude vectors; all have or none has."""
        return any(factors.magnitude is not None for factors in self.modules.values())


def parse_factors(tensors: Mapping[str, Tensor]) -> LoraFile:
    """Sort a LoRA file's tensors by module and factor.

    Raises:
        ValueError: Keys that are no LoRA on VACE blocks (the first are listed), factors missing or of shapes that do
            not fit (all are listed).
    """
    parts: dict[str, dict[str, Tensor]] = defaultdict(dict)
    unknown, twice = [], []
    for key, tensor in tensors.items():
        parsed = _parse_key(key)
        if parsed is None:
            unknown.append(key)
        elif parsed[1] in parts[parsed[0]]:
            twice.append(key)
        else:
            parts[parsed[0]][parsed[1]] = tensor
    faults = [_explain_unknown(unknown, whole=not parts)] if unknown else []
    faults += [f"given twice: {', '.join(sorted(twice))}"] if twice else []
    faults += [f"{module}: {fault}" for module, part in sorted(parts.items()) for fault in _faults(part)]
    faults += [] if tensors else ["the file holds no tensors"]
    with_magnitude = [module for module, part in parts.items() if "magnitude" in part]
    if 0 < len(with_magnitude) < len(parts):
        faults.append(f"magnitude vectors are missing of {', '.join(sorted(set(parts) - set(with_magnitude)))}")
    if faults:
        raise ValueError("; ".join(faults))
    return LoraFile({module: _factors(part) for module, part in sorted(parts.items())}, _tool(list(tensors)))


def flatten(modules: Mapping[str, Factors]) -> dict[str, Tensor]:
    """Return the factors under our names, ``MODULE.lora_A.weight`` and so on."""
    state = {}
    for module, factors in modules.items():
        state[f"{module}.lora_A.weight"] = factors.down
        state[f"{module}.lora_B.weight"] = factors.up
        if factors.magnitude is not None:
            state[f"{module}.lora_magnitude_vector"] = factors.magnitude
    return state


def _parse_key(key: str) -> tuple[str, str] | None:
    match = _KEY.fullmatch(key)
    if match is None:
        return None
    name = match["module"]
    prefix = next((prefix for prefix in _PREFIXES if name.startswith(prefix)), "")
    module = lora_module(name.removeprefix(prefix))
    if module is None:
        return None
    return module, _SIDES[match["side"]] if match["side"] else match["alpha"] or "magnitude"


def _faults(part: Mapping[str, Tensor]) -> list[str]:
    missing = [name for name in ("down", "up") if name not in part]
    if missing:
        sides = {"down": "lora_A (lora_down)", "up": "lora_B (lora_up)"}
        return [f"{sides[name]} is missing" for name in missing]
    down, up, faults = part["down"], part["up"], []
    if down.ndim != 2 or up.ndim != 2 or down.shape[0] != up.shape[1] or 0 in (*down.shape, *up.shape):
        faults.append(f"A must be [rank, in] and B [out, rank], got {list(down.shape)} and {list(up.shape)}")
    elif "magnitude" in part and part["magnitude"].shape != up.shape[:1]:
        faults.append(f"the magnitude vector must be [{up.shape[0]}], got {list(part['magnitude'].shape)}")
    if "alpha" in part and (part["alpha"].numel() != 1 or not part["alpha"].item() > 0):
        faults.append(f"alpha must be one positive number, got {part['alpha'].tolist()}")
    return faults


def _factors(part: Mapping[str, Tensor]) -> Factors:
    return Factors(
        down=to_float32(part["down"]),
        up=to_float32(part["up"]),
        magnitude=to_float32(part["magnitude"]) if "magnitude" in part else None,
        alpha=float(part["alpha"].item()) if "alpha" in part else None,
    )


def _tool(keys: list[str]) -> Literal["diffusers", "diffsynth", "comfyui"]:
    if any("lora_up" in key or "diffusion_model." in key or key.endswith(".alpha") for key in keys):
        return "comfyui"
    if any(
        "self_attn" in key or "cross_attn" in key or re.search(r"ffn\.[02]\.|(before|after)_proj", key) for key in keys
    ):
        return "diffsynth"
    return "diffusers"


def _explain_unknown(keys: list[str], *, whole: bool) -> str:
    more = f" and {len(keys) - MAX_LISTED_KEYS} more" if len(keys) > MAX_LISTED_KEYS else ""
    listed = f"{', '.join(sorted(keys)[:MAX_LISTED_KEYS])}{more}"
    if whole and not any(re.search("lora|dora", key) for key in keys) and any(key.endswith(".weight") for key in keys):
        return f"this is a whole model, not a LoRA: {len(keys)} keys, {listed}"
    text = f"{len(keys)} keys are no LoRA on a projection of a VACE block: {listed}"
    if any(key.startswith("lora_unet_") for key in keys):
        text += (
            " (lora_unet_ names, where dots and underscores are the same, are not read: convert the file with "
            "musubi-tuner's convert_lora.py --target other)"
        )
    if any("dora_scale" in key for key in keys):
        text += " (DoRA as dora_scale is not read: merge it into the base with the tool that wrote it)"
    return text
