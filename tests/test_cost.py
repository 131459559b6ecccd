"""Counted FLOPs against those that PyTorch counts."""

import pytest
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from regen_train.model import LoraSpec, WanVace, load_wan_vace
from regen_train.training.flops import training_flops
from regen_train.training.matmul_rate import matmul_rate

LATENT, PROMPT_TOKENS = (3, 8, 12), 64  # one of which is a zero that stands for the padding
TOKENS = 3 * 4 * 6

CASES = {
    "lora": {"lora": LoraSpec(rank=4)},
    "lora on all": {"lora": LoraSpec(rank=3, targets="all")},
    "vace": {"trainable": "vace"},
    "all": {"trainable": "all"},
}


def _velocity(model: WanVace, batch: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    geometry = model.geometry
    latents, context, prompts = (
        torch.randn(batch, *shape, generator=generator)
        for shape in (
            (geometry.latent_channels, *LATENT),
            (geometry.context_channels, *LATENT),
            (PROMPT_TOKENS - 1, geometry.text_dim),
        )
    )
    return model(latents, torch.full((batch,), 0.5), prompts, context)


@pytest.mark.parametrize("options", CASES.values(), ids=CASES.keys())
def test_flops_are_those_that_pytorch_counts(options: dict) -> None:
    model = load_wan_vace("random:tiny", dtype="fp32", **options).train()
    counter = FlopCounterMode(display=False)
    with counter, sdpa_kernel(SDPBackend.MATH):
        _velocity(model).square().mean().backward()
    assert training_flops(model, TOKENS, prompt_tokens=PROMPT_TOKENS) == counter.get_total_flops()


def test_recomputed_blocks_do_not_count() -> None:
    plain, full = (
        load_wan_vace("random:tiny", dtype="fp32", lora=LoraSpec(rank=4), checkpointing=policy)
        for policy in ("none", "full")
    )
    assert training_flops(plain, TOKENS) == training_flops(full, TOKENS)


def test_the_matmul_rate_is_measured_once() -> None:
    device = torch.device("cpu")
    rate = matmul_rate(device, torch.float32)
    assert 1e8 < rate < 1e14
    assert matmul_rate(device, torch.float32) == rate
