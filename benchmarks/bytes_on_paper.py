"""How many bytes one training step moves, operator by operator, on shapes alone; what a compiler that fuses could save.

    python benchmarks/bytes_on_paper.py [--pretrained random:wan2.1-vace-1.3b] [--buckets 49x480x832 81x480x832]
      [--bandwidth 4.8]

Runs forward and backward of the model without weights, with a reference frame, all in bf16 but what Wan keeps in fp32,
and counts what every operator reads and writes in memory, once each: plain PyTorch's traffic without caches. Attention
counts as a kernel that reads queries, keys and values and writes the result; `selective` keeps that, as it does on a
GPU. Matrix products hide their bytes behind their FLOPs; the others have nothing to hide behind: their bytes by the
bandwidth (TB/s; an H200's by default) come on top of the floor by FLOPs, unless they are fused. Casts of autocast are
not counted. Prints markdown; a minute on any machine.
"""

import argparse
from collections import Counter
from itertools import product
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from regen_train.model import LoraSpec, WanVace
from regen_train.model.checkpointing import Policy, set_checkpointing
from regen_train.model.outline import outline_wan_vace
from regen_train.schema import MAX_PROMPT_TOKENS, Bucket

_PRODUCTS = {"aten.mm.default", "aten.addmm.default", "aten.bmm.default", "aten.convolution.default"}
_ATTENTION = {"flash_attn.on_paper.default", "flash_attn.on_paper_backward.default"}
_FREE = {
    "aten.empty_like.default",
    "aten.new_empty_strided.default",
    "aten.detach.default",
    "aten._unsafe_view.default",
}


class Traffic(TorchDispatchMode):
    """Counts the bytes of every operator's inputs and outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.by_operator: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operator and count."""
        out = func(*args, **(kwargs or {}))
        if not func.is_view and str(func) not in _FREE:
            self.by_operator[str(func)] += sum(t.nbytes for t in tree_leaves((args, kwargs, out)) if _is_tensor(t))
        return out


# A fused kernel of this namespace, as `selective` keeps the outputs of; on shapes alone.
@torch.library.custom_op("flash_attn::on_paper", mutates_args=())
def _attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return torch.empty_like(query)


@torch.library.custom_op("flash_attn::on_paper_backward", mutates_args=())
def _attend_backward(
    gradient: Tensor, out: Tensor, query: Tensor, key: Tensor, value: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)


_attend.register_fake(lambda query, key, value: torch.empty_like(query))
_attend_backward.register_fake(lambda gradient, out, *inputs: tuple(torch.empty_like(tensor) for tensor in inputs))
_attend.register_autograd(
    lambda ctx, gradient: _attend_backward(gradient, *ctx.saved_tensors),
    setup_context=lambda ctx, inputs, output: ctx.save_for_backward(output, *inputs),
)


def _attention(query: Tensor, key: Tensor, value: Tensor, **_: Any) -> Tensor:
    out: Tensor = _attend(query, key, value)
    return out


def count(model: WanVace, bucket: Bucket, policy: Policy) -> Counter[str]:
    """Return the bytes of one step by operator."""
    set_checkpointing(model.transformer, policy)
    channels, frames, height, width = model.geometry.latent_shape(bucket)

    def empty(*shape: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
        return torch.empty(1, *shape, dtype=dtype, device="meta")

    with Traffic() as traffic, patch("torch.nn.functional.scaled_dot_product_attention", _attention):
        velocity = model.transformer(
            hidden_states=empty(channels, frames + 1, height, width),
            timestep=empty(dtype=torch.float32),
            encoder_hidden_states=empty(MAX_PROMPT_TOKENS, model.geometry.text_dim),
            control_hidden_states=empty(model.geometry.context_channels, frames + 1, height, width),
            control_hidden_states_scale=torch.ones(len(model.transformer.vace_blocks), device="meta").bfloat16(),
            return_dict=False,
        )[0]
        velocity.float().square().mean().backward()
    return traffic.by_operator


def main() -> None:
    """Print bytes and their seconds, by kind of operator and by policy."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pretrained", default="random:wan2.1-vace-1.3b")
    parser.add_argument("--buckets", type=Bucket.parse, nargs="+", default=[Bucket(49, 480, 832), Bucket(81, 480, 832)])
    parser.add_argument("--bandwidth", type=float, default=4.8, help="TB/s")
    options = parser.parse_args()
    model = outline_wan_vace(options.pretrained, lora=LoraSpec(rank=32)).train().to("meta")
    vars(model.transformer.condition_embedder.time_embedder).pop("forward")  # there is no autocast on shapes alone
    for parameter in model.trained_parameters().values():
        parameter.data = parameter.data.bfloat16()
    print(
        "| tokens | checkpointing | matrix products TB | attention TB | the rest TB | the rest, s | largest of it, TB |"
    )
    print("|---|---|---|---|---|---|---|")
    policies: tuple[Policy, ...] = ("none", "selective", "full")
    for bucket, policy in product(options.buckets, policies):
        by_operator = count(model, bucket, policy)
        products = sum(by_operator.pop(name, 0) for name in _PRODUCTS) / 1e12
        attention = sum(by_operator.pop(name) for name in _ATTENTION) / 1e12
        total = by_operator.total() / 1e12
        largest = ", ".join(f"{name.split('.')[1]} {size / 1e12:.2f}" for name, size in by_operator.most_common(6))
        tokens = model.geometry.num_tokens(bucket, reference=True)
        row = f"{products:.2f} | {attention:.2f} | {total:.2f} | {total / options.bandwidth:.2f} | {largest}"
        print(f"| {tokens:,} | {policy} | {row} |", flush=True)


def _is_tensor(leaf: object) -> bool:
    return isinstance(leaf, Tensor)


if __name__ == "__main__":
    main()
