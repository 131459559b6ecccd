"""Muon: momentum whose matrices are made orthogonal; small networks learn in a fraction of AdamW's steps."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_NEWTON_SCHULZ_STEPS = 5


class Muon(torch.optim.Optimizer):
    """Muon for matrices, AdamW for all else, in one optimizer.

    PyTorch's own Muon takes weights of 2 axes only, and no others beside them.

    Args:
        matrices: Weights with at least 2 axes, each taken as a matrix [out, all else].
        others: Biases, norms, embeddings.
        lr: Learning rate of the matrices; the update of a square one has about this spectral norm.
        other_lr: Learning rate of the others.
        momentum: Of the matrices' gradients' moving average, taken ahead (Nesterov).
        betas: AdamW's, of the others.
        weight_decay: Decoupled weight decay of both.
        eps: Added to the root of AdamW's second moment.

    Source: Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks".
    """

    def __init__(
        self,
        matrices: Iterable[nn.Parameter],
        others: Iterable[nn.Parameter],
        *,
        lr: float = 0.02,
        other_lr: float = 1e-3,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.98),
        weight_decay: float = 0.0,
        eps: float = 1e-8,
    ) -> None:
        groups = [
            {"params": list(matrices), "lr": lr, "momentum": momentum, "orthogonal": True},
            {"params": list(others), "lr": other_lr, "betas": betas, "eps": eps, "orthogonal": False},
        ]
        super().__init__([group for group in groups if group["params"]], {"weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Move every weight that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            move = self._move_orthogonally if group["orthogonal"] else self._move_by_moments
            for weight in group["params"]:
                if weight.grad is not None:
                    weight.mul_(1 - group["lr"] * group["weight_decay"])
                    move(weight, weight.grad, group)
        return loss

    def _move_orthogonally(self, weight: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        average = self.state[weight].setdefault("momentum", torch.zeros_like(weight))
        average.lerp_(gradient, 1 - group["momentum"])
        update = orthogonal(gradient.lerp(average, group["momentum"]).flatten(1))
        scale = max(1.0, update.shape[0] / update.shape[1]) ** 0.5
        weight.add_(update.reshape(weight.shape), alpha=-group["lr"] * scale)

    def _move_by_moments(self, weight: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state, (first, second) = self.state[weight], group["betas"]
        step = state["step"] = state.get("step", 0) + 1
        mean = state.setdefault("mean", torch.zeros_like(weight)).lerp_(gradient, 1 - first)
        square = state.setdefault("square", torch.zeros_like(weight)).lerp_(gradient.square(), 1 - second)
        root = (square / (1 - second**step)).sqrt_().add_(group["eps"])
        weight.addcdiv_(mean, root, value=-group["lr"] / (1 - first**step))


def orthogonal(matrix: Float[Tensor, "m n"]) -> Float[Tensor, "m n"]:
    """Return a matrix with the same singular vectors whose singular values are about 1 (0.7 to 1.2)."""
    first, third, fifth = _COEFFICIENTS
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    wide = wide / (wide.norm() + 1e-7)
    for _ in range(_NEWTON_SCHULZ_STEPS):
        square = wide @ wide.T
        wide = first * wide + (third * square + fifth * square @ square) @ wide
    made: Tensor = wide if matrix.shape[0] <= matrix.shape[1] else wide.T
    return made
