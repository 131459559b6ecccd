"""LoRA on the VACE blocks, through peft."""

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from regen_train.draws import generator_for
from regen_train.model.quantized_linear import QuantizedLinear
from regen_train.model.sharding import whole

# peft matches a pattern against whole module names. A list of suffixes would also hit the frozen backbone, whose
# blocks use the same names, and its output head.
_ATTENTION_AND_FFN = r"attn[12]\.(?:to_[qkv]|to_out\.0)|ffn\.net\.(?:0\.proj|2)"
TARGET_PATTERNS = {
    "attn+ffn": rf"vace_blocks\.\d+\.(?:{_ATTENTION_AND_FFN})",
    "all": rf"vace_blocks\.\d+\.(?:proj_in|proj_out|{_ATTENTION_AND_FFN})",
}
_ADAPTER = "default"


@dataclass(frozen=True)
class LoraSpec:
    """Which low-rank factors are added to the VACE blocks.

    Args:
        rank: Rank of the factors.
        alpha: Scale of the update, which is alpha / rank times the product of the factors; null means rank.
        targets: ``attn+ffn`` = the attention and feed-forward projections, as in the paper's release and
            DiffSynth-Studio; ``all`` = also the projections into and out of the VACE blocks.
        dropout: Probability that an input of the factors is dropped in training.
        init: Adapter or LoRA file to start from: ours, diffusers', DiffSynth-Studio's or ComfyUI's; null starts anew.
        use_dora: Learn direction and magnitude apart. Source: Liu et al. 2024, arXiv 2402.09353.
        use_rslora: Scale by alpha / sqrt(rank). Source: Kalajdzievski 2023, arXiv 2312.03732.
    """

    rank: int = 32
    alpha: float | None = None
    targets: Literal["attn+ffn", "all"] = "attn+ffn"
    dropout: float = 0.0
    init: str | None = None
    use_dora: bool = False
    use_rslora: bool = False

    def __post_init__(self) -> None:
        faults = []
        if self.rank < 1:
            faults.append(f"rank must be at least 1, got {self.rank}")
        if self.alpha is not None and not (self.alpha > 0 and math.isfinite(self.alpha)):
            faults.append(f"alpha must be a positive number or null, got {self.alpha}")
        if self.targets not in TARGET_PATTERNS:
            faults.append(f"targets must be one of {', '.join(TARGET_PATTERNS)}, got {self.targets!r}")
        if not 0 <= self.dropout < 1:
            faults.append(f"dropout must be in [0, 1), got {self.dropout}")
        if faults:
            raise ValueError("; ".join(faults))

    @property
    def effective_alpha(self) -> float:
        """Alpha, or the rank where alpha is left open."""
        return float(self.rank if self.alpha is None else self.alpha)


def add_lora(transformer: Any, spec: LoraSpec, *, seed: int) -> None:
    """Insert fresh fp32 factors: A uniform as in peft, keyed by (seed, name), B zero, so that the output is unchanged.

    Neither reads nor moves the global random state.
    """
    from peft import LoraConfig

    alpha = spec.effective_alpha
    config = LoraConfig(
        r=spec.rank,
        # peft declares an int; whole numbers stay whole in what other tools read.
        lora_alpha=int(alpha) if alpha.is_integer() else alpha,
        lora_dropout=spec.dropout,
        target_modules=TARGET_PATTERNS[spec.targets],
        use_dora=spec.use_dora,
        use_rslora=spec.use_rslora,
    )
    with torch.random.fork_rng(devices=[]):
        transformer.add_adapter(config, adapter_name=_ADAPTER)
    for name, parameter in lora_parameters(transformer).items():
        parameter.data = parameter.data.float()
        if name.endswith("lora_A.weight") and not parameter.is_meta:
            parameter.data.copy_(first_lora_a(name, parameter.shape, seed=seed))


def first_lora_a(name: str, shape: torch.Size, *, seed: int) -> Float[Tensor, "r i"]:
    """Draw the start of a factor A by its name in `lora_parameters`."""
    bound = shape[1] ** -0.5
    generator = generator_for(seed, name, "lora_init")
    drawn: Tensor = torch.empty(shape).uniform_(-bound, bound, generator=generator)
    return drawn


def lora_parameters(transformer: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """Return the factors by the names that files give them, such as ``vace_blocks.0.attn1.to_q.lora_A.weight``."""
    return {
        name.replace(f".lora_magnitude_vector.{_ADAPTER}.weight", ".lora_magnitude_vector").replace(
            f".{_ADAPTER}.", "."
        ): parameter
        for name, parameter in transformer.named_parameters()
        if ".lora_" in name
    }


@torch.no_grad()
def update_norm(transformer: torch.nn.Module, spec: LoraSpec) -> float:
    """Return the Frobenius norm of all updates B A together, scaled as they are added; DoRA's magnitudes left out."""
    factors = {name: whole(factor) for name, factor in lora_parameters(transformer).items()}
    pairs = [
        (down.float(), factors[name.replace("lora_A", "lora_B")].float())
        for name, down in factors.items()
        if name.endswith("lora_A.weight")
    ]
    # |B A|^2 = <B^T B, A A^T>: small matrices of rank x rank instead of the whole update
    square = sum(((up.T @ up) * (down @ down.T)).sum() for down, up in pairs)
    scale = spec.effective_alpha / (math.sqrt(spec.rank) if spec.use_rslora else spec.rank)
    return scale * math.sqrt(max(float(square), 0.0))


def base_state(transformer: torch.nn.Module) -> dict[str, Tensor]:
    """Return the base weights under diffusers' names, as if no LoRA had been inserted; no copies.

    Raises:
        ValueError: They were quantized.
    """
    if any(isinstance(module, QuantizedLinear) for module in transformer.modules()):
        raise ValueError("the base is quantized and its own weights are gone; load it with blocks.quantize: none")
    return {
        name.replace(".base_layer.", "."): tensor
        for name, tensor in transformer.state_dict().items()
        if ".lora_" not in name
    }


@torch.no_grad()
def merged_state(transformer: torch.nn.Module, dtype: torch.dtype) -> dict[str, Tensor]:
    """Return all weights under diffusers' names with the LoRA merged in, on the CPU.

    Merges in fp32 and casts last: casting first adds the rounding of the base to that of the sum.
    """
    state = {name: tensor.to("cpu", dtype) for name, tensor in base_state(transformer).items()}
    for name, module in transformer.named_modules():
        if _ADAPTER in getattr(module, "lora_A", {}):
            state[f"{name}.weight"] = merged_weight(module).to("cpu", dtype)
    return state


@torch.no_grad()
def merged_weight(layer: Any) -> Float[Tensor, "o i"]:
    """Return a peft linear layer's weight with its update, in fp32."""
    merged: Tensor = layer.base_layer.weight.float() + layer.get_delta_weight(_ADAPTER).float()
    if layer.use_dora[_ADAPTER]:
        magnitude = layer.lora_magnitude_vector[_ADAPTER].weight.float()
        merged *= (magnitude / merged.norm(dim=1)).unsqueeze(1)
    return merged
