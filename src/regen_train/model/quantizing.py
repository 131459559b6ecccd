"""The frozen base in fewer bytes, and how far that takes the model from what it was."""

from typing import Any

import torch
from torch import nn

from regen_train import flow
from regen_train.model.block_options import Quantize, Quantized
from regen_train.model.block_swap import NUM_SLOTS
from regen_train.model.probe import make_probe, velocity_of
from regen_train.model.quantized_linear import (
    Quantization,
    QuantizedLinear,
    stored_bytes,
)
from regen_train.model.sharding import full_shape
from regen_train.model.wan_vace import WanVace


@torch.no_grad()
def quantize_base(model: WanVace, kind: Quantized) -> Quantization:
    """Quantize the frozen linear layers of all blocks; embeddings, norms, head and what learns stay as they are.

    The model keeps the name and hash of the base as it was, so that what is trained goes with that.
    """
    model.base  # noqa: B018 - hash the weights before they go
    probe = make_probe(model)
    target = flow.velocity_target(probe.latents, probe.noise)
    before, bytes_before = velocity_of(model, probe), frozen_bytes(model, "none")
    for name in list(frozen_linears(model.transformer)):
        owner, _, leaf = name.rpartition(".")
        linear: Any = model.transformer.get_submodule(name)
        setattr(model.transformer.get_submodule(owner), leaf, QuantizedLinear(linear, kind))
    after = velocity_of(model, probe)
    return Quantization(
        kind=kind,
        bytes_before=bytes_before,
        bytes_after=frozen_bytes(model, kind),
        velocity_error=float((after - before).norm() / before.norm()),
        loss_before=float((before - target).square().mean()),
        loss_after=float((after - target).square().mean()),
    )


def frozen_linears(transformer: Any) -> dict[str, Any]:
    """Return the linear layers of the blocks whose weights do not learn, by name, quantized or not."""
    return {
        name: module
        for name, module in transformer.named_modules()
        if name.startswith(("blocks.", "vace_blocks."))
        and isinstance(module, nn.Linear | QuantizedLinear)
        and ".lora_" not in name
        and not module.weight.requires_grad
    }


def frozen_bytes(model: WanVace, kind: Quantize, *, swap: int = 0) -> int:
    """Return the bytes of all weights that do not learn, by their shapes.

    Args:
        model: With or without weights, quantized or not yet.
        kind: What its frozen linear layers are or will be kept in.
        swap: How many main blocks are or will be swapped: only what is on the device counts.
    """
    layers = list(frozen_linears(model.transformer).values())
    waiting = max(swap - NUM_SLOTS, 0)
    return _bytes(model, layers, kind) - waiting * _bytes(model.transformer.blocks[0], layers, kind)


def _bytes(module: nn.Module, layers: list[Any], kind: Quantize) -> int:
    frozen = {id(p): full_shape(p).numel() * p.element_size() for p in module.parameters() if not p.requires_grad}
    if kind == "none":
        return sum(frozen.values())
    inside = [layer for layer in layers if id(layer.weight) in frozen]
    for layer in inside:
        frozen.pop(id(layer.weight))
        frozen.pop(id(getattr(layer, "weight_scale", None)), None)
    return sum(frozen.values()) + sum(stored_bytes(kind, (layer.out_features, layer.in_features)) for layer in inside)
