"""Is it worth fusing single pieces of a block? Each piece plain and compiled, beside the whole block it is a part of.

    python benchmarks/fuse_pieces.py [--tokens 1024] [--dtype bf16] [--device cuda]

The pieces are what diffusers' Wan block does between its matrix products: rotary embedding of queries and keys, the
norms of queries and keys, three norms of which two are modulated, two gated sums. Forward and backward, at the
1.3B model's width, in turns; on one CPU thread the processor's time. "Share" is how much of a block's step the compiled
piece would save. `model.blocks.compile` fuses all of them. Prints markdown; minutes on a CPU, most of them to compile.
"""

import argparse
import statistics
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import layer_norm, rms_norm
from train_step_ways import seconds_of

from regen_train.pretrained import DTYPES

_WIDTH, _HEADS, _FFN = 1536, 12, 8960


def rotary(x: Tensor) -> Tensor:
    """Rotate queries and keys, pair by pair, as diffusers does."""
    out = []
    for each in (x, x * 1.0):
        heads = each.unflatten(2, (_HEADS, -1))
        first, second = heads.unflatten(-1, (-1, 2)).unbind(-1)
        cosine = torch.ones(1, x.shape[1], 1, first.shape[-1], device=x.device)
        rotated = torch.empty_like(heads)
        rotated[..., 0::2] = first * cosine - second * cosine
        rotated[..., 1::2] = first * cosine + second * cosine
        out.append(rotated.type_as(each))
    return out[0] + out[1]


def key_norms(x: Tensor) -> Tensor:
    """Norm queries and keys over all heads."""
    weight = torch.ones(_WIDTH, device=x.device, dtype=x.dtype)
    return rms_norm(x, (_WIDTH,), weight, 1e-6) + rms_norm(x * 1.0, (_WIDTH,), weight, 1e-6)


def modulated_norms(x: Tensor) -> Tensor:
    """Norm three times in fp32, twice with scale and shift, as a block does around attention and the FFN."""
    scale, shift = torch.ones(1, 1, _WIDTH, device=x.device), torch.zeros(1, 1, _WIDTH, device=x.device)
    for modulated in (True, False, True):
        normed = layer_norm(x.float(), (_WIDTH,))
        x = (normed * (1 + scale) + shift if modulated else normed).type_as(x)
    return x


def gated_sums(x: Tensor) -> Tensor:
    """Add what attention and FFN give, gated, in fp32."""
    gate = torch.ones(1, 1, _WIDTH, device=x.device)
    for _ in range(2):
        x = (x.float() + x * gate).type_as(x)
    return x


PIECES: dict[str, Callable[[Tensor], Tensor]] = {
    "rotary embedding": rotary,
    "norms of queries and keys": key_norms,
    "norms and modulation": modulated_norms,
    "gated sums": gated_sums,
}


def main() -> None:
    """Print a row for each piece."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--dtype", default="bf16", choices=["bf16", "fp32"])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=["cpu", "cuda"])
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    x = torch.randn(1, options.tokens, _WIDTH, device=options.device).to(DTYPES[options.dtype]).requires_grad_()
    block = _block(options.device, DTYPES[options.dtype])

    def step(work: Callable[[Tensor], Tensor]) -> float:
        return seconds_of(lambda: work(x).float().square().mean().backward(), options.device)

    step(block)
    whole = statistics.median(step(block) for _ in range(options.rounds))
    print(f"{options.tokens:,} tokens, {options.dtype}, {options.device}; a block forward and backward {whole:.3f} s\n")
    print("| piece | plain s | compiled s | ratio | share of a block saved |\n|---|---|---|---|---|")
    for name, piece in PIECES.items():
        compiled: Callable[[Tensor], Tensor] = torch.compile(piece, fullgraph=True, dynamic=False)
        step(piece), step(compiled)
        pairs = [(step(piece), step(compiled)) for _ in range(options.rounds)]
        plain, fused = (statistics.median(times) for times in zip(*pairs, strict=True))
        print(
            f"| {name} | {plain:.4f} | {fused:.4f} | {plain / fused:.1f} | {(plain - fused) / whole:.1%} |", flush=True
        )


def _block(device: str, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    from diffusers.models.transformers.transformer_wan import WanTransformerBlock

    block = WanTransformerBlock(_WIDTH, _FFN, _HEADS, "rms_norm_across_heads", True).to(device, dtype)
    block.requires_grad_(False)
    words = torch.randn(1, 512, _WIDTH, device=device).to(dtype)
    time = torch.zeros(1, 6, _WIDTH, device=device)

    def run(x: Tensor) -> Tensor:
        angles = torch.ones(1, x.shape[1], 1, _WIDTH // _HEADS, device=device)
        out: Tensor = block(x, words, time, (angles, angles))
        return out

    return run


if __name__ == "__main__":
    main()
