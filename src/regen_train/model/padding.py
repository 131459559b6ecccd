"""Padding of prompts: for short videos counted, not computed, at the same result up to rounding.

Wan pads every prompt with zeros to 512 tokens and does not mask them, so they take part in cross-attention. All of them
have the same key and value. One token in their place, with the logarithm of their number added to its score, has the
same weight in the softmax. Where the video has fewer tokens than the padded prompt, that saves a third of a step or
more; for long videos it would save nothing, and their faster kernels take no such score.
"""

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from regen_train.schema import MAX_PROMPT_TOKENS

_MULTIPLE = 32
"""Lengths are rounded up to it, so that few shapes occur."""


def pad_shortly(prompt_embeds: Float[Tensor, "b l d"], *, num_tokens: int) -> Float[Tensor, "b n d"]:
    """Pad prompts with zeros to 512 tokens, or, for a short video in fp32, so far that the last can stand for the rest.

    Args:
        prompt_embeds: Of at most 512 tokens, padded with zeros already or not.
        num_tokens: Of the video.
    """
    length = prompt_embeds.shape[1]
    wanted = MAX_PROMPT_TOKENS
    if num_tokens < MAX_PROMPT_TOKENS and prompt_embeds.dtype == torch.float32:  # bf16 would round the score by 1 %
        used = prompt_embeds.ne(0).any(dim=2).any(dim=0).nonzero()
        wanted = min(wanted, _MULTIPLE * (int(used[-1] + 1) // _MULTIPLE + 1 if len(used) else 1))
    return nn.functional.pad(prompt_embeds, (0, 0, 0, wanted - length))


def count_padding(transformer: Any) -> None:
    """Have every cross-attention count the last token of a prompt of fewer than 512 as often as it stands for.

    Args:
        transformer: diffusers' ``WanVACETransformer3DModel``, given prompts of `pad_shortly` or of 512 tokens.
    """
    for block in (*transformer.blocks, *transformer.vace_blocks):
        block.attn2.register_forward_pre_hook(_add_score)


def _add_score(
    module: Any, args: tuple[Tensor, Tensor, None, None]
) -> tuple[Tensor, Tensor, Float[Tensor, "1 1 1 l"], None] | None:
    hidden, prompts, _, _ = args
    length = prompts.shape[1]
    if length >= MAX_PROMPT_TOKENS:
        return None
    scores = torch.zeros(1, 1, 1, length, dtype=hidden.dtype, device=hidden.device)
    scores[..., -1] = math.log(MAX_PROMPT_TOKENS - length + 1)
    return hidden, prompts, scores, None
