"""Model FLOPs of one training step, counted from the shapes of the layers: what has to be computed, however it is.

Recomputation under checkpointing does not count, and attention's backward counts for the four matrix products it needs
(twice the forward's two), not for what a kernel computes again. Source of the convention: Chowdhery et al. 2022,
arXiv 2204.02311, appendix B. Elementwise work is left out, and so are DoRA's norms.
"""

from collections.abc import Iterable
from typing import Any

from torch import nn

from regen_train.model import WanVace
from regen_train.model.sharding import full_shape
from regen_train.schema import MAX_PROMPT_TOKENS


def training_flops(model: WanVace, tokens: int, *, prompt_tokens: int = MAX_PROMPT_TOKENS) -> int:
    """Return the FLOPs of forward and backward for one clip.

    Backward is counted where gradient has to pass: towards every parameter that learns, and no further.

    Args:
        model: With weights, or without any (on the meta device).
        tokens: Of the clip, reference frame included.
        prompt_tokens: Padding included.
    """
    return _Count(model.transformer, tokens, prompt_tokens).total()


class _Count:
    """Follows the transformer's forward pass, and with it where gradient is needed."""

    def __init__(self, transformer: Any, tokens: int, prompt_tokens: int) -> None:
        self.transformer, self.tokens, self.prompt_tokens = transformer, tokens, prompt_tokens
        self.width = transformer.config.num_attention_heads * transformer.config.attention_head_dim
        embedder = transformer.condition_embedder
        self.text_learns = _learns([embedder.text_embedder])
        self.time_learns = _learns([embedder.time_embedder, embedder.time_proj])

    def total(self) -> int:
        """Count embeddings, VACE blocks, main blocks and head, in the order of the forward pass."""
        model = self.transformer
        flops = self._embeddings()
        hidden = _learns([model.patch_embedding])
        control = _learns([model.vace_patch_embedding])
        for block in model.vace_blocks:
            if block.proj_in is not None:
                flops += _linear(block.proj_in, self.tokens, gradient=control)
                control = control or hidden or _learns([block.proj_in])
            flops += self._block(block, gradient=control)
            control = control or self.text_learns or _learns([_inner(block)])
            flops += _linear(block.proj_out, self.tokens, gradient=control)
        hints = control or _learns(block.proj_out for block in model.vace_blocks)
        for i, block in enumerate(model.blocks):
            flops += self._block(block, gradient=hidden)
            hidden = hidden or self.text_learns or _learns([block]) or (hints and i in model.config.vace_layers)
        return flops + _linear(model.proj_out, self.tokens, gradient=hidden or self.time_learns)

    def _embeddings(self) -> int:
        model, embedder = self.transformer, self.transformer.condition_embedder
        flops = sum(_product(c, self.tokens) for c in (model.patch_embedding, model.vace_patch_embedding))
        flops += _chain([embedder.text_embedder.linear_1, embedder.text_embedder.linear_2], self.prompt_tokens)
        time = embedder.time_embedder
        return flops + _chain([time.linear_1, time.linear_2, embedder.time_proj], 1)

    def _block(self, block: Any, *, gradient: bool) -> int:
        """Count a block without the VACE blocks' own projections.

        Args:
            block: Of the main branch or of VACE's.
            gradient: Whether the hidden states that come in need gradient.
        """
        own, cross, n = block.attn1, block.attn2, self.tokens
        gradient = gradient or self.time_learns or block.scale_shift_table.requires_grad
        inputs = [own.to_q, own.to_k, own.to_v]
        flops = sum(_linear(layer, n, gradient=gradient) for layer in inputs)
        gradient = gradient or _learns([*inputs, own.norm_q, own.norm_k])
        flops += self._attention(n, factor=3 if gradient else 1)
        flops += _linear(own.to_out[0], n, gradient=gradient)
        gradient = gradient or _learns([own.to_out[0], block.norm2])
        flops += _linear(cross.to_q, n, gradient=gradient)
        keys = [cross.to_k, cross.to_v]
        flops += sum(_linear(layer, self.prompt_tokens, gradient=self.text_learns) for layer in keys)
        query = gradient or _learns([cross.to_q, cross.norm_q])
        key_value = self.text_learns or _learns([*keys, cross.norm_k])
        flops += self._attention(self.prompt_tokens, factor=1 + query + key_value)
        gradient = query or key_value
        flops += _linear(cross.to_out[0], n, gradient=gradient)
        gradient = gradient or _learns([cross.to_out[0]])
        first, second = block.ffn.net[0].proj, block.ffn.net[2]
        flops += _linear(first, n, gradient=gradient)
        return flops + _linear(second, n, gradient=gradient or _learns([first]))

    def _attention(self, keys: int, *, factor: int) -> int:
        """Two products of [tokens, keys] with the width; as many again for the queries' gradient and for the keys'."""
        return factor * 4 * self.tokens * keys * int(self.width)


def _linear(layer: Any, rows: int, *, gradient: bool) -> int:
    """Count a linear layer with its LoRA, if it has one; ``gradient`` says whether its input needs any."""
    flops = _product(getattr(layer, "base_layer", layer), rows, gradient=gradient)
    for down in getattr(layer, "lora_A", {}).values():
        flops += _product(down, rows, gradient=gradient)
    for up in getattr(layer, "lora_B", {}).values():
        flops += _product(up, rows, gradient=up.weight.requires_grad)
    return flops


def _chain(layers: Iterable[Any], rows: int) -> int:
    flops, gradient = 0, False
    for layer in layers:
        flops += _linear(layer, rows, gradient=gradient)
        gradient = gradient or _learns([layer])
    return flops


def _product(layer: Any, rows: int, *, gradient: bool = False) -> int:
    # a quantized weight has fewer elements than it stands for
    size = layer.in_features * layer.out_features if hasattr(layer, "in_features") else full_shape(layer.weight).numel()
    return 2 * rows * int(size) * (1 + gradient + int(layer.weight.requires_grad))


def _inner(block: Any) -> nn.Module:
    """Return what a VACE block computes before its way out."""
    return nn.ModuleList([block.attn1, block.attn2, block.norm2, block.ffn])


def _learns(modules: Iterable[Any]) -> bool:
    return any(parameter.requires_grad for module in modules for parameter in module.parameters())
