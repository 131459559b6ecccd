"""A clip's tokens shared out among processes; self-attention exchanges tokens for heads (Ulysses).

Between the first block and the head every process computes its own tokens only. In self-attention each gets all tokens
of its share of the heads, so that any attention kernel serves. Source: Jacobs et al. 2023, arXiv 2309.14509.

Gradients: each process of a group ends with the same loss and gets the part of every gradient that comes through its
own tokens. The strategy's mean over all processes must be their sum within a group, so gradients are multiplied by the
group's size where the tokens are joined.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn


@dataclass(frozen=True)
class TokenShare:
    """Which tokens of a sequence a process computes: one run of them, the first runs a token longer where need be.

    Args:
        group: The processes that share each clip.
    """

    group: dist.ProcessGroup

    @property
    def size(self) -> int:
        """Number of processes that share a clip."""
        return self.group.size()

    def counts(self, total: int) -> list[int]:
        """Return how many of ``total`` tokens each process has."""
        each, longer = divmod(total, self.size)
        return [each + (rank < longer) for rank in range(self.size)]

    def own(self, tensor: Tensor, dim: int = 1) -> Tensor:
        """Return this process's tokens, as a view."""
        return tensor.tensor_split(self.size, dim=dim)[self.group.rank()]


def share_tokens(transformer: Any, group: dist.ProcessGroup) -> None:
    """Have the processes of a group compute each clip together; each gets the whole output.

    Args:
        transformer: diffusers' ``WanVACETransformer3DModel``.
        group: Processes that are given the same clips.

    Raises:
        ValueError: The heads cannot be shared out evenly; says among how many they can.
    """
    share, heads = TokenShare(group), int(transformer.config.num_attention_heads)
    if heads % share.size:
        fitting = [str(size) for size in range(1, heads + 1) if heads % size == 0]
        raise ValueError(
            f"context_parallel must divide the model's {heads} attention heads, got {share.size}; it can be "
            + ", ".join(fitting)
        )
    for block in (*transformer.vace_blocks, *transformer.blocks):
        block.attn1.set_processor(SharedSelfAttention(share))
    ends = _Ends(share)
    transformer.vace_blocks[0].register_forward_pre_hook(ends.before_vace_blocks)
    transformer.blocks[0].register_forward_pre_hook(ends.before_blocks)
    transformer.proj_out.register_forward_hook(ends.after_head)


class _Ends:
    """Cuts the states before the first blocks and joins them after the head.

    Args:
        share: How tokens are shared out.
    """

    def __init__(self, share: TokenShare) -> None:
        self.share = share
        self._total = 0

    def before_vace_blocks(self, block: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """Cut hidden states, which no later VACE block reads, and control states."""
        hidden_states, prompts, control_states, *rest = args
        return self.share.own(hidden_states), prompts, self.share.own(control_states), *rest

    def before_blocks(self, block: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """Cut hidden states."""
        hidden_states, *rest = args
        self._total = hidden_states.shape[1]
        return self.share.own(hidden_states), *rest

    def after_head(self, head: Any, args: tuple[Any, ...], own: Tensor) -> Tensor:
        """Join what the head made."""
        joined: Tensor = _Join.apply(own, self.share, self._total)
        return joined


class SharedSelfAttention:
    """diffusers' ``WanAttnProcessor`` for self-attention over tokens that are shared out.

    Args:
        share: How.
    """

    _attention_backend: Any = None  # diffusers' set_attention_backend looks for these two
    _parallel_config = None

    def __init__(self, share: TokenShare) -> None:
        self.share = share

    def __call__(
        self,
        attn: Any,
        hidden_states: Float[Tensor, "b n d"],
        encoder_hidden_states: None = None,
        attention_mask: None = None,
        rotary_emb: tuple[Tensor, Tensor] | None = None,
    ) -> Float[Tensor, "b n d"]:
        """Attend from the process's own tokens to all.

        Args:
            attn: diffusers' ``WanAttention``.
            hidden_states: Own tokens.
            encoder_hidden_states: None: this is self-attention.
            attention_mask: None.
            rotary_emb: Cosine and sine of all tokens' positions, [1, all, 1, head].
        """
        from diffusers.models.attention_dispatch import dispatch_attention_fn

        assert encoder_hidden_states is None
        assert attention_mask is None
        assert rotary_emb is not None
        counts = self.share.counts(rotary_emb[0].shape[1])
        cos, sin = (self.share.own(table) for table in rotary_emb)
        split = (attn.heads, -1)
        query = rotate(attn.norm_q(attn.to_q(hidden_states)).unflatten(2, split), cos, sin)
        key = rotate(attn.norm_k(attn.to_k(hidden_states)).unflatten(2, split), cos, sin)
        value = attn.to_v(hidden_states).unflatten(2, split)
        query, key, value = (_all_tokens(x, self.share, counts) for x in (query, key, value))
        out: Tensor = dispatch_attention_fn(query, key, value, backend=self._attention_backend)
        out = _all_heads(out, self.share, counts).flatten(2, 3).type_as(query)
        for layer in attn.to_out:
            out = layer(out)
        return out


def rotate(
    states: Float[Tensor, "b n a e"], cos: Float[Tensor, "1 n 1 e"], sin: Float[Tensor, "1 n 1 e"]
) -> Float[Tensor, "b n a e"]:
    """Turn pairs of channels by the angles of their position, as diffusers' ``WanAttnProcessor`` does."""
    first, second = rearrange(states, "b n a (e pair) -> pair b n a e", pair=2)
    cos, sin = cos[..., 0::2], sin[..., 1::2]
    turned: Tensor = torch.stack((first * cos - second * sin, first * sin + second * cos), dim=-1)
    return turned.flatten(-2).type_as(states)


def _all_tokens(states: Float[Tensor, "b n a e"], share: TokenShare, counts: list[int]) -> Float[Tensor, "b m k e"]:
    """Exchange own tokens with all heads for all tokens with own heads."""
    own = counts[share.group.rank()]
    sent = rearrange(states, "b n (p k) e -> (p n) b k e", p=share.size)
    got: Tensor = _Exchange.apply(sent, [own] * share.size, counts, share.group)
    return rearrange(got, "m b k e -> b m k e")


def _all_heads(states: Float[Tensor, "b m k e"], share: TokenShare, counts: list[int]) -> Float[Tensor, "b n a e"]:
    """Exchange back."""
    own = counts[share.group.rank()]
    sent = rearrange(states, "b m k e -> m b k e")
    got: Tensor = _Exchange.apply(sent, counts, [own] * share.size, share.group)
    return rearrange(got, "(p n) b k e -> b n (p k) e", p=share.size)


class _Exchange(torch.autograd.Function):
    """All-to-all over the first axis; backward goes the other way."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, sent: list[int], got: list[int], group: dist.ProcessGroup) -> Tensor:
        ctx.sent, ctx.got, ctx.group = sent, got, group
        out = states.new_empty((sum(got), *states.shape[1:]))
        dist.all_to_all_single(out, states.contiguous(), got, sent, group=group)
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        return _Exchange.apply(gradient, ctx.got, ctx.sent, ctx.group), None, None, None


class _Join(torch.autograd.Function):
    """All tokens from each process's own; backward gives each its own, times the size of the group."""

    @staticmethod
    def forward(ctx: Any, own: Tensor, share: TokenShare, total: int) -> Tensor:
        ctx.share = share
        counts = share.counts(total)
        padded = nn.functional.pad(own, (0, 0, 0, counts[0] - own.shape[1])).contiguous()
        parts = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(parts, padded, group=share.group)
        return torch.cat([part[:, :count] for part, count in zip(parts, counts, strict=True)], dim=1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return ctx.share.own(gradient) * ctx.share.size, None, None
