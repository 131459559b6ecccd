"""Muon: momentum whose matrices are made orthogonal; trains small convolutional networks in a few hundred steps."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)


class Muon(torch.optim.Optimizer):
    """Muon for weights of any number of axes, each taken as a matrix [out, all else]; PyTorch's own takes only 2.

    Args:
        parameters: Weights with at least 2 axes.
        lr: Learning rate; the update of a square matrix has about this spectral norm.
        momentum: Of the gradient's moving average, taken ahead (Nesterov).
        newton_schulz_steps: Iterations towards an orthogonal matrix.

    Source: Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks".
    """

    def __init__(
        self, parameters: Iterable[nn.Parameter], lr: float = 0.02, momentum: float = 0.95, newton_schulz_steps: int = 5
    ) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "newton_schulz_steps": newton_schulz_steps})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Move every weight that has a gradient."""
        assert closure is None
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                average = self.state[weight].setdefault("momentum", torch.zeros_like(weight))
                average.lerp_(weight.grad, 1 - group["momentum"])
                ahead = weight.grad.lerp(average, group["momentum"]).flatten(1)
                update = orthogonal(ahead, group["newton_schulz_steps"])
                scale = max(1.0, update.shape[0] / update.shape[1]) ** 0.5
                weight.add_(update.reshape(weight.shape), alpha=-group["lr"] * scale)


def orthogonal(matrix: Float[Tensor, "m n"], steps: int) -> Float[Tensor, "m n"]:
    """Return a matrix with the same singular vectors whose singular values are about 1 (0.7 to 1.2)."""
    first, third, fifth = _COEFFICIENTS
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    wide = wide / (wide.norm() + 1e-7)
    for _ in range(steps):
        square = wide @ wide.T
        wide = first * wide + (third * square + fifth * square @ square) @ wide
    return wide if matrix.shape[0] <= matrix.shape[1] else wide.T
