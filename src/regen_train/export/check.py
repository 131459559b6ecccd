"""The gate: a file counts as exported only if what its consumer loads from it computes what the trained model does."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import torch
from torch import Tensor

from regen_train.model import LoraSpec, WanVace
from regen_train.model.assemble import assign_state, empty_transformer
from regen_train.model.base import LoadedTransformer
from regen_train.model.lora import add_lora, base_state
from regen_train.model.probe import make_probe, velocity_of

# Largest difference of the velocity, in fp32, between the trained model and a reloaded LoRA or fp32 merge.
FP32_LIMIT: Final = 1e-5
# How much farther from the fp32 velocity (root mean square) than the unmerged model in bf16 a bf16 merge may be.
BF16_SLACK: Final = 1.25
_ADAPTER: Final = "default"


class ExportMismatchError(RuntimeError):
    """What was written does not compute what the trained model does; the file is not kept."""


@dataclass(frozen=True)
class Agreement:
    """How far a reloaded export is from the trained model.

    Args:
        difference: Of the velocity on the probe; largest difference for fp32, root mean square for bf16.
        limit: What it may be at most.
    """

    difference: float
    limit: float


def fresh_base(model: WanVace, dtype: torch.dtype = torch.float32) -> Any:
    """Build an untouched transformer around the model's base weights; in the same dtype they are shared, not copied."""
    return assign_state(empty_transformer(plain_config(model)), base_state(model.transformer), dtype)


def plain_config(model: WanVace) -> dict[str, Any]:
    """Return the transformer's config without diffusers' own entries: one of them is the path it was loaded from."""
    return {name: value for name, value in model.transformer.config.items() if not name.startswith("_")}


def wrap(model: WanVace, transformer: Any, dtype: torch.dtype = torch.float32, lora: LoraSpec | None = None) -> WanVace:
    """Put another transformer into a `WanVace` like the given one."""
    loaded = LoadedTransformer(transformer, model.base.name, model.base.revision, model.geometry.temporal_factor)
    return WanVace(loaded, dtype=dtype, lora=lora, trainable="lora")


class Gate:
    """Compares what consumers load with the trained model; each velocity of the trained model is computed once.

    Args:
        model: The trained model, in fp32.
    """

    def __init__(self, model: WanVace) -> None:
        self.model = model
        self.probe = make_probe(model)

    @cached_property
    def expected(self) -> Tensor:
        """The trained model's velocity.

        Raises:
            ValueError: It is not finite, so nothing can be compared with it.
        """
        velocity = velocity_of(self.model, self.probe)
        if not velocity.isfinite().all():
            raise ValueError(
                "the trained model computes NaN or infinity: the run diverged, or the base is damaged; take an earlier "
                "checkpoint, or load the base again"
            )
        return velocity

    @cached_property
    def bf16_distance(self) -> float:
        """How far bf16 takes the unmerged model from its fp32 velocity, root mean square."""
        return _rms(velocity_of(_unmerged_bf16(self.model), self.probe) - self.expected)

    def check_fp32(self, what: str, reloaded: WanVace, faults: list[str]) -> Agreement:
        """Compare velocities in fp32.

        Args:
            what: The format, for the error.
            reloaded: What the format's consumer made of the file.
            faults: Weights that differ, as `lora_faults` and `state_faults` list them.

        Raises:
            ExportMismatchError: Weights or velocities differ; says which and by how much.
        """
        difference = float((velocity_of(reloaded, self.probe) - self.expected).abs().max())
        return _agree(what, Agreement(difference, FP32_LIMIT * max(1.0, _rms(self.expected))), faults)

    def check_bf16(self, what: str, reloaded: WanVace, faults: list[str]) -> Agreement:
        """Compare a bf16 merge with the unmerged model in bf16: it may be no farther from fp32, up to a slack.

        Raises:
            ExportMismatchError: As in `check_fp32`.
        """
        difference = _rms(velocity_of(reloaded, self.probe) - self.expected)
        return _agree(what, Agreement(difference, BF16_SLACK * self.bf16_distance), faults)


@torch.no_grad()
def lora_faults(model: WanVace, transformer: Any) -> list[str]:
    """List the modules whose LoRA, as another transformer has loaded it, is not the trained one, farthest first."""
    loaded = dict(transformer.named_modules())
    found = []
    for name, layer in model.transformer.named_modules():
        if _ADAPTER not in getattr(layer, "lora_A", {}):
            continue
        other = loaded[name]
        distance = _distance(layer, other) if _ADAPTER in getattr(other, "lora_A", {}) else math.inf
        if not distance <= FP32_LIMIT:
            found.append((distance, f"{name} (relative {distance:.1e})"))
    return [text for _, text in sorted(found, reverse=True)]


def state_faults(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> list[str]:
    """List the tensors that are missing, unexpected, or not the expected ones bit for bit after the cast."""
    faults = [f"{name} (missing)" for name in sorted(expected.keys() - found.keys())]
    faults += [f"{name} (unexpected)" for name in sorted(found.keys() - expected.keys())]
    for name in sorted(expected.keys() & found.keys()):
        want = expected[name].to(found[name].dtype)
        if not torch.equal(want, found[name]):
            far = (
                float((want.float() - found[name].float()).abs().max()) if want.shape == found[name].shape else math.inf
            )
            faults.append(f"{name} (by {far:.1e})")
    return faults


def _agree(what: str, agreement: Agreement, faults: list[str]) -> Agreement:
    if faults or not agreement.difference <= agreement.limit:
        which = f"; {len(faults)} weights differ: {', '.join(faults[:5])}" if faults else "; no single weight differs"
        more = f" and {len(faults) - 5} more" if len(faults) > 5 else ""
        raise ExportMismatchError(
            f"{what}: the reloaded export does not compute what the trained model does: velocity differs by "
            f"{agreement.difference:.2e}, limit {agreement.limit:.2e}{which}{more}. It was not kept; please report this"
        )
    return agreement


def _distance(layer: Any, other: Any) -> float:
    """Return the relative distance of two LoRA layers' effects on the weight."""
    want, got = (_product(one) for one in (layer, other))
    # |X - Y|^2 = <X, X> - 2 <X, Y> + <Y, Y>, without ever forming the products
    squares = _inner(want, want), _inner(got, got), _inner(want, got)
    distances = [_relative(max(squares[0] + squares[1] - 2 * squares[2], 0.0) ** 0.5, squares[0] ** 0.5)]
    if layer.use_dora[_ADAPTER] != other.use_dora[_ADAPTER]:
        return math.inf
    if layer.use_dora[_ADAPTER]:
        one, two = (each.lora_magnitude_vector[_ADAPTER].weight for each in (layer, other))
        distances.append(_relative(float((one - two).norm()), float(one.norm())))
    return max(distances)


def _product(layer: Any) -> tuple[Tensor, Tensor]:
    up, down = layer.lora_B[_ADAPTER].weight.double(), layer.lora_A[_ADAPTER].weight.double()
    return up * layer.scaling[_ADAPTER], down


def _inner(one: tuple[Tensor, Tensor], two: tuple[Tensor, Tensor]) -> float:
    """Return the inner product of two matrices given as B and A."""
    return float(((one[0].T @ two[0]) * (one[1] @ two[1].T)).sum())


def _relative(difference: float, length: float) -> float:
    return difference / length if length else (math.inf if difference else 0.0)


def _unmerged_bf16(model: WanVace) -> WanVace:
    transformer = fresh_base(model, torch.bfloat16)
    if model.lora is not None:
        add_lora(transformer, model.lora, seed=0)
    other = wrap(model, transformer, torch.bfloat16, model.lora)
    if model.lora is not None:
        other.load_lora_state(model.lora_state())
    return other


def _rms(values: Tensor) -> float:
    return float(values.square().mean().sqrt())
