"""Read a LoRA file of any of the tools that train Wan VACE into our names."""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from torch import Tensor
from torch.nn.functional import pad

from regen_train.adapter.factors import Factors, LoraFile, flatten, parse_factors
from regen_train.adapter.files import read_adapter_file
from regen_train.adapter.metadata import DIFFUSERS_KEY, DIFFUSERS_PREFIX, OWN_KEY, AdapterMetadata, lora_scale
from regen_train.adapter.names import lora_targets

logger = logging.getLogger(__name__)

ADAPTER_FILE: Final = "pytorch_lora_weights.safetensors"


@dataclass(frozen=True)
class Adapter:
    """LoRA weights in our names, whatever tool wrote them.

    Args:
        state: fp32 on the CPU; ``vace_blocks.N.attn1.to_q.lora_A.weight``, ``.lora_B.weight`` and, for DoRA,
            ``.lora_magnitude_vector``. A module trained at a lower rank than the others is padded with zeros.
        rank: Rank of every module.
        alpha: The scale is alpha / rank (rsLoRA: alpha / sqrt(rank)). Where the modules' scales or ranks differed they
            were folded into B, and alpha is the rank.
        targets: The smallest of ``attn+ffn`` and ``all`` that covers the modules.
        use_dora: Whether there are magnitude vectors.
        use_rslora: Whether the scale is alpha / sqrt(rank).
        format: The tool whose manner the file is in.
        metadata: Our own record; None in files of other tools.
    """

    state: Mapping[str, Tensor]
    rank: int
    alpha: float
    targets: str
    use_dora: bool
    use_rslora: bool
    format: Literal["regen_train", "diffusers", "diffsynth", "comfyui"]
    metadata: AdapterMetadata | None

    @property
    def scale(self) -> float:
        """What B A is multiplied by."""
        return lora_scale(self.alpha, self.rank, use_rslora=self.use_rslora)

    @property
    def modules(self) -> tuple[str, ...]:
        """The modules it sits on, by diffusers' names."""
        return tuple(sorted({name.rsplit(".lora_", 1)[0] for name in self.state}))


def load_adapter(path: str | Path) -> Adapter:
    """Read a LoRA file: ours, or one of diffusers, DiffSynth-Studio (as the ReGenHuman release) or ComfyUI.

    Args:
        path: A safetensors file, or a folder that holds one (or several, one of them named as diffusers names it).

    Raises:
        FileNotFoundError: Nothing is there.
        ValueError: Not a LoRA on VACE blocks that can be read; all faults and unknown keys are listed.
    """
    file = find_adapter(Path(path))
    content = read_adapter_file(file)
    try:
        lora = parse_factors(content.tensors)
        if OWN_KEY in content.metadata:
            return _own(lora, AdapterMetadata.from_json(content.metadata[OWN_KEY]))
        if DIFFUSERS_KEY in content.metadata:
            return _with_diffusers_record(lora, content.metadata[DIFFUSERS_KEY])
        return _without_record(lora, file)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error


def find_adapter(path: Path) -> Path:
    """Return the one adapter file at ``path``, which may be the file itself or its folder.

    Raises:
        FileNotFoundError: There is none.
        ValueError: A folder holds several and none is named as diffusers names it; all are listed.
    """
    if not path.is_dir():
        return path
    files = sorted(path.glob("*.safetensors"))
    if not files:
        raise FileNotFoundError(f"{path}: holds no adapter (*.safetensors)")
    named = [file for file in files if file.name == ADAPTER_FILE]
    if len(files) > 1 and not named:
        raise ValueError(f"{path}: holds several files, name one: {', '.join(file.name for file in files)}")
    return named[0] if named else files[0]


def _own(lora: LoraFile, metadata: AdapterMetadata) -> Adapter:
    faults = []
    if lora.has_alpha:
        faults.append("alpha is given both by tensors and by the metadata")
    if lora.ranks != {metadata.rank}:
        faults.append(f"the metadata says rank {metadata.rank}, the tensors have {sorted(lora.ranks)}")
    if lora.has_magnitude != metadata.use_dora:
        faults.append(f"the metadata says use_dora {metadata.use_dora}, the magnitude vectors say otherwise")
    if faults:
        raise ValueError("; ".join(faults))
    return Adapter(
        state=flatten(lora.modules),
        rank=metadata.rank,
        alpha=metadata.alpha,
        targets=lora_targets(lora.modules),
        use_dora=metadata.use_dora,
        use_rslora=metadata.use_rslora,
        format="regen_train",
        metadata=metadata,
    )


def _with_diffusers_record(lora: LoraFile, text: str) -> Adapter:
    """Take alpha from the json of which diffusers makes its LoraConfig."""
    try:
        loaded = dict(json.loads(text))
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"the '{DIFFUSERS_KEY}' metadata is not a json object: {error}") from error
    record = {key.removeprefix(DIFFUSERS_PREFIX): value for key, value in loaded.items()}
    if lora.has_alpha:
        raise ValueError("alpha is given both by tensors and by the metadata")
    if lora.has_magnitude != bool(record.get("use_dora", False)):
        raise ValueError("the metadata's use_dora does not agree with the magnitude vectors in the file")
    default = _positive(record, "lora_alpha", 8.0)  # peft's default
    pattern = dict(record.get("alpha_pattern") or {})
    alphas = {module: _positive(pattern, _pattern_key(pattern, module), default) for module in lora.modules}
    return _adapter(lora, alphas, use_rslora=bool(record.get("use_rslora", False)))


def _without_record(lora: LoraFile, file: Path) -> Adapter:
    if lora.tool == "diffusers":
        logger.warning(
            "%s: has no '%s' metadata, so alpha is unknown; assumed alpha = rank, as diffusers does. If it was trained "
            "with another alpha, it is applied at the wrong strength.",
            file,
            DIFFUSERS_KEY,
        )
    # Without an alpha DiffSynth-Studio and ComfyUI apply B A as it is.
    alphas = {module: float(factors.alpha or factors.rank) for module, factors in lora.modules.items()}
    return _adapter(lora, alphas, use_rslora=False)


def _adapter(lora: LoraFile, alphas: Mapping[str, float], *, use_rslora: bool) -> Adapter:
    """Bring all modules to one rank and one alpha, folding scales into B only where they differ."""
    rank, modules, values = max(lora.ranks), lora.modules, set(alphas.values())
    if len(values) == 1 and len(lora.ranks) == 1:
        alpha = values.pop()
    else:
        alpha = float(rank)
        modules = {
            name: _fold_and_pad(factors, lora_scale(alphas[name], factors.rank, use_rslora=use_rslora), rank)
            for name, factors in modules.items()
        }
        use_rslora = False
        logger.info("alpha or rank differ between modules: scales folded into B, ranks padded to %d", rank)
    return Adapter(
        state=flatten(modules),
        rank=rank,
        alpha=alpha,
        targets=lora_targets(modules),
        use_dora=lora.has_magnitude,
        use_rslora=use_rslora,
        format=lora.tool,
        metadata=None,
    )


def _fold_and_pad(factors: Factors, scale: float, rank: int) -> Factors:
    missing = rank - factors.rank
    return Factors(
        down=pad(factors.down, (0, 0, 0, missing)),
        up=pad(factors.up * scale, (0, missing)),
        magnitude=factors.magnitude,
    )


def _pattern_key(pattern: Mapping[str, Any], module: str) -> str:
    """Find a module in peft's patterns, read as names and not as regular expressions: the file is not trusted."""
    return next((key for key in pattern if f".{module}".endswith(f".{key.removeprefix('^')}")), module)


def _positive(record: Mapping[str, Any], key: str, default: float) -> float:
    value = record.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
        raise ValueError(f"{key} must be a positive number, got {value!r}")
    return float(value)
