"""Randomness by name: every random draw of a sample is keyed by (seed, sample, purpose).

A draw so keyed does not depend on how many processes train, on what was drawn before it, or on whether the run was
killed in between. The generators live on the CPU, so that a draw is the same on every device.
"""

import hashlib

import torch
from jaxtyping import Float, Int64
from torch import Tensor


def generator_for(seed: int, sample: int | str, purpose: str) -> torch.Generator:
    """Return the CPU generator of one draw.

    Args:
        seed: The run's seed.
        sample: The global sample number of the stream, or a sample's key where the draw must not depend on the order.
        purpose: What is drawn, such as ``"noise"``; two purposes never share a sequence.

    Returns:
        A generator seeded from SHA-256 of the three, the same on every machine and in every version of Python.
    """
    digest = hashlib.sha256(f"{seed}\x00{sample!r}\x00{purpose}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def uniform(seed: int, sample: int | str, purpose: str) -> float:
    """Return one uniform draw in [0, 1), keyed as in `generator_for`."""
    return float(torch.rand((), generator=generator_for(seed, sample, purpose), dtype=torch.float64))


def permutation(length: int, seed: int, sample: int | str, purpose: str) -> Int64[Tensor, " n"]:
    """Return a permutation of [0, length), keyed as in `generator_for`."""
    return torch.randperm(length, generator=generator_for(seed, sample, purpose))


def send(drawn: Float[Tensor, "*s"], device: torch.device) -> Float[Tensor, "*s"]:
    """Return what was drawn on a device; a GPU is not waited for."""
    if device.type != "cuda":
        return drawn.to(device)
    return drawn.pin_memory().to(device, non_blocking=True)
