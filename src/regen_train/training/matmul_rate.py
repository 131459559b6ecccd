"""How fast this device multiplies matrices: what a step's speed is measured against."""

import time
from functools import lru_cache

import torch

_SIDE = {"cuda": 8192, "cpu": 1024}
_SECONDS = 0.2
_MOST = 50


@lru_cache(maxsize=8)
def matmul_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Measure the FLOP/s of a large square matrix product, once per process; takes a fraction of a second.

    With the settings of the moment, such as TF32 and the number of threads.

    Args:
        device: Where to.
        dtype: Of the factors.
    """
    side = _SIDE.get(device.type, 4096)
    left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    out = torch.empty_like(left)
    best = float("inf")
    since = time.perf_counter()
    for _ in range(_MOST):
        _wait(device)
        start = time.perf_counter()
        for _ in range(5 if device.type == "cuda" else 1):
            torch.mm(left, right, out=out)
        _wait(device)
        best = min(best, (time.perf_counter() - start) / (5 if device.type == "cuda" else 1))
        if time.perf_counter() - since > _SECONDS:
            break
    return 2 * side**3 / best


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
