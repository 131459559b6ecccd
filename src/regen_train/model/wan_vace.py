"""Frozen Wan VACE with trainable LoRA; the only file that speaks diffusers' argument names and timesteps."""

import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from regen_train.model.assemble import compare_states, keep_time_embedding_precise
from regen_train.model.base import BaseInfo, LoadedTransformer
from regen_train.model.block_options import BlockOptions
from regen_train.model.block_swap import BlockSwap
from regen_train.model.checkpointing import Policy
from regen_train.model.lora import LoraSpec, base_state, lora_parameters, merged_state, update_norm
from regen_train.model.padding import count_padding, pad_shortly
from regen_train.model.quantized_linear import Quantization, QuantizedLinear
from regen_train.model.sharding import Spread, full_shape, gathered, put
from regen_train.pretrained import state_sha256
from regen_train.schema import MAX_PROMPT_TOKENS, Geometry

Trainable = Literal["lora", "vace", "all"]
VACE_PARTS = ("vace_blocks.", "vace_patch_embedding.")

_NUM_TRAIN_TIMESTEPS = 1000


@dataclass(frozen=True)
class ParameterCount:
    """Numbers of parameters, LoRA included.

    Args:
        total: All.
        trainable: Those that get gradient.
    """

    total: int
    trainable: int


class WanVace(nn.Module):
    """Wan VACE as training and sampling see it: noised latents in, velocity out.

    Args:
        loaded: The transformer and where it came from.
        dtype: Precision of the computation.
        lora: The factors inside, None for none.
        trainable: What gets gradient: the factors, the VACE blocks with their patch embedding, or everything. Without
            factors ``lora`` trains nothing.
    """

    def __init__(
        self, loaded: LoadedTransformer, *, dtype: torch.dtype, lora: LoraSpec | None, trainable: Trainable
    ) -> None:
        super().__init__()
        self.transformer = loaded.module
        keep_time_embedding_precise(self.transformer)
        count_padding(self.transformer)
        self.dtype = dtype
        self.lora = lora
        self.trainable = trainable
        self.checkpointing: Policy = "none"
        self.block_options = BlockOptions()
        self.quantization: Quantization | None = None
        self.swap: BlockSwap | None = None
        self.spread = Spread()
        self.prompt_tokens = MAX_PROMPT_TOKENS  # that the last forward pass computed, padding included
        self.geometry = _geometry(self.transformer.config, loaded.temporal_factor)
        self._source = (loaded.name, loaded.revision)

    @property
    def hidden_size(self) -> int:
        """Width of the hidden states."""
        return int(self.transformer.config.num_attention_heads * self.transformer.config.attention_head_dim)

    @property
    def num_blocks(self) -> int:
        """Main and VACE blocks together."""
        return len(self.transformer.blocks) + len(self.transformer.vace_blocks)

    @cached_property
    def base(self) -> BaseInfo:
        """The base weights' name and hash; hashing takes seconds for a base of gigabytes, once."""
        return BaseInfo(*self._source, state_sha256(base_state(self.transformer)))

    def forward(
        self,
        noised_latents: Float[Tensor, "b c f h w"],
        sigma: Float[Tensor, " b"],
        prompt_embeds: Float[Tensor, "b l d"],
        vace_context: Float[Tensor, "b k f h w"],
        conditioning_scale: float | Sequence[float] = 1.0,
    ) -> Float[Tensor, "b c f h w"]:
        """Predict the velocity, noise - latents.

        Args:
            noised_latents: Latents at noise level ``sigma``, any precision.
            sigma: Noise level in [0, 1], 1 = noise.
            prompt_embeds: Of at most 512 tokens. Zeros up to 512 are part of the input: Wan does not mask them.
            vace_context: Inactive and reactive latents and folded mask.
            conditioning_scale: Strength of the VACE hints, one for all or one per VACE block.

        Returns:
            The velocity in the precision of ``noised_latents``.

        Raises:
            ValueError: ``conditioning_scale`` has another length than there are VACE blocks.
        """
        scale = self._scale(conditioning_scale, noised_latents.device)
        num_tokens = math.prod(noised_latents.shape[2:]) // math.prod(self.geometry.patch_size)
        # Every length of prompts would be compiled for, and kernels chosen by name need not take scores.
        named = self.transformer.blocks[0].attn2.processor._attention_backend is not None
        if named or self.block_options.compile:
            num_tokens = MAX_PROMPT_TOKENS
        prompts = pad_shortly(prompt_embeds.to(self.dtype), num_tokens=num_tokens)
        self.prompt_tokens = prompts.shape[1]
        with self._precision(noised_latents.device.type):
            velocity: Tensor = self.transformer(
                hidden_states=noised_latents.to(self.dtype),
                # In fp32: bf16 holds no more than 294 of 1,000 timesteps apart.
                timestep=_NUM_TRAIN_TIMESTEPS * sigma.float(),
                encoder_hidden_states=prompts,
                control_hidden_states=vace_context.to(self.dtype),
                control_hidden_states_scale=scale,
                return_dict=False,
            )[0]
        return velocity.to(noised_latents.dtype)

    def num_parameters(self) -> ParameterCount:
        """Count the parameters."""
        counts = [(full_shape(parameter).numel(), parameter.requires_grad) for parameter in self.parameters()]
        hidden = sum(module.num_hidden for module in self.modules() if isinstance(module, QuantizedLinear))
        return ParameterCount(sum(n for n, _ in counts) + hidden, sum(n for n, trained in counts if trained))

    def adapter_norm(self) -> float:
        """Return the Frobenius norm of all LoRA updates together: 0 where nothing was learned."""
        return 0.0 if self.lora is None else update_norm(self.transformer, self.lora)

    def lora_state(self) -> dict[str, Tensor]:
        """Return `gathered` factors: ``vace_blocks.0.attn1.to_q.lora_A.weight`` and so on."""
        return gathered(lora_parameters(self.transformer))

    def load_lora_state(self, state: Mapping[str, Tensor]) -> None:
        """Set the factors.

        Raises:
            ValueError: Names or shapes differ; lists all.
        """
        _assign(lora_parameters(self.transformer), state, what="LoRA factors")

    def trainable_state(self) -> dict[str, Tensor]:
        """Return all that is trained, `gathered`: what a checkpoint stores."""
        return gathered(self.trained_parameters())

    def load_trainable_state(self, state: Mapping[str, Tensor]) -> None:
        """Set all that is trained.

        Raises:
            ValueError: Names or shapes differ; lists all.
        """
        _assign(self.trained_parameters(), state, what=f"trained weights (trainable: {self.trainable})")

    def merged_state(self, dtype: torch.dtype) -> dict[str, Tensor]:
        """Return all weights under diffusers' names, on the CPU, LoRA merged in fp32 and then cast to ``dtype``."""
        return merged_state(self.transformer, dtype)

    def trained_parameters(self) -> dict[str, nn.Parameter]:
        """Return the parameters that get gradient, under the names of `trainable_state`."""
        named = lora_parameters(self.transformer) if self.trainable == "lora" else self.transformer.named_parameters()
        return {name: parameter for name, parameter in dict(named).items() if parameter.requires_grad}

    def _scale(self, conditioning_scale: float | Sequence[float], device: torch.device) -> Tensor:
        blocks = len(self.transformer.vace_blocks)
        if isinstance(conditioning_scale, int | float):  # made where it is needed: a copy would wait for the device
            return torch.full((blocks,), conditioning_scale, dtype=self.dtype, device=device)
        if len(conditioning_scale) != blocks:
            raise ValueError(
                f"conditioning_scale must be one number or {blocks}, one per VACE block, got {len(conditioning_scale)}"
            )
        return torch.tensor(conditioning_scale, dtype=self.dtype, device=device)

    def _precision(self, device_type: str) -> AbstractContextManager[None]:
        # fp32 weights (LoRA, or what is trained) beside a bf16 base need autocast, in sampling as in training.
        if self.dtype == torch.float32:
            return nullcontext()
        return torch.autocast(device_type, dtype=self.dtype)


@torch.no_grad()
def _assign(parameters: Mapping[str, Tensor], state: Mapping[str, Tensor], *, what: str) -> None:
    compare_states(state, parameters, what=what)
    for name, parameter in parameters.items():
        put(state[name], parameter)


def _geometry(config: Any, temporal_factor: int) -> Geometry:
    mask_channels = config.vace_in_channels - 2 * config.in_channels
    factor = math.isqrt(max(mask_channels, 0))
    if mask_channels < 1 or factor**2 != mask_channels:
        raise ValueError(
            f"vace_in_channels must be 2 x in_channels + a square (the folded mask), got {config.vace_in_channels} "
            f"with in_channels {config.in_channels}"
        )
    return Geometry(
        latent_channels=config.in_channels,
        spatial_factor=factor,
        temporal_factor=temporal_factor,
        patch_size=tuple(config.patch_size),
        text_dim=config.text_dim,
    )
