r"""Rectified flow: the only place where sigma, shift, velocity and the loss weight over sigma are defined.

A noised latent lies on the straight line between the clean latent and noise,

.. math:: z_\sigma = (1 - \sigma)\,\text{latents} + \sigma\,\text{noise}, \qquad
          \frac{dz}{d\sigma} = \text{noise} - \text{latents},

with sigma in [0, 1] and 1 = noise. Source: Liu et al. 2022, "Flow Straight and Fast", arXiv 2209.03003, eq. 1;
Lipman et al. 2022, arXiv 2210.02747. The shift of sigma towards noise: Esser et al. 2024, arXiv 2403.03206, eq. 23.
"""

import math
from dataclasses import dataclass
from functools import cache
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

NUM_GRID_STEPS = 1000


@dataclass(frozen=True)
class FlowRecipe:
    """How sigma is drawn and weighted in training.

    Args:
        sigma: ``grid`` draws uniformly from the 1,000 steps 1.000, 0.999, ... 0.001 (DiffSynth-Studio, and the
            released ReGenHuman weights); ``uniform`` from (0, 1); ``logit_normal`` from a normal through the sigmoid.
        flow_shift: Shift towards noise, at least 1 moves to noise; 1 leaves sigma as drawn.
        weight: ``bell`` weights the loss by `bell_weight`; ``none`` by 1.
        logit_mean: Mean of the normal of ``logit_normal``.
        logit_std: Standard deviation of the normal of ``logit_normal``.
    """

    sigma: Literal["grid", "uniform", "logit_normal"] = "grid"
    flow_shift: float = 5.0
    weight: Literal["bell", "none"] = "bell"
    logit_mean: float = 0.0
    logit_std: float = 1.0

    def __post_init__(self) -> None:
        if not (self.flow_shift > 0 and math.isfinite(self.flow_shift)):
            raise ValueError(f"flow_shift must be a positive number, got {self.flow_shift}")
        if not (self.logit_std > 0 and math.isfinite(self.logit_std)):
            raise ValueError(f"logit_std must be a positive number, got {self.logit_std}")


RECIPES = {
    "paper": FlowRecipe(sigma="grid", flow_shift=5.0, weight="bell"),
    "rectified_flow": FlowRecipe(sigma="uniform", flow_shift=1.0, weight="none"),
    "logit_normal": FlowRecipe(sigma="logit_normal", flow_shift=1.0, weight="none"),
}


def shift_sigma(sigma: Float[Tensor, "*s"], flow_shift: float) -> Float[Tensor, "*s"]:
    """Move sigma in [0, 1] towards noise: ``s * sigma / (1 + (s - 1) * sigma)``; shifting by 1/s undoes it.

    Source: Esser et al. 2024, arXiv 2403.03206, eq. 23, with s = sqrt(m / n).
    """
    return (flow_shift * sigma / (1 + (flow_shift - 1) * sigma)).clamp_max(1)  # the quotient can round above 1


def sample_sigma(quantile: Float[Tensor, " b"], recipe: FlowRecipe) -> Float[Tensor, " b"]:
    """Map uniform draws to sigma.

    Args:
        quantile: Uniform in [0, 1), one a sample; drawn by the caller, so that it can be keyed by sample.
        recipe: The distribution.

    Returns:
        Sigma in (0, 1], in the dtype of ``quantile``.
    """
    if recipe.sigma == "grid":
        sigma = 1 - torch.floor(quantile * NUM_GRID_STEPS) / NUM_GRID_STEPS
    elif recipe.sigma == "uniform":
        sigma = 1 - quantile
    else:
        tiny = torch.finfo(quantile.dtype).eps
        normal = torch.special.ndtri((1 - quantile).clamp(tiny, 1 - tiny))
        sigma = torch.sigmoid(recipe.logit_mean + recipe.logit_std * normal)
    return shift_sigma(sigma, recipe.flow_shift)


def interpolate(
    latents: Float[Tensor, "b c f h w"], noise: Float[Tensor, "b c f h w"], sigma: Float[Tensor, " b"]
) -> Float[Tensor, "b c f h w"]:
    """Return the noised latents ``(1 - sigma) * latents + sigma * noise``."""
    weight = sigma.view(-1, 1, 1, 1, 1).to(latents.dtype)
    return (1 - weight) * latents + weight * noise


def velocity_target(
    latents: Float[Tensor, "b c f h w"], noise: Float[Tensor, "b c f h w"]
) -> Float[Tensor, "b c f h w"]:
    """Return the velocity the model learns: ``noise - latents``."""
    return noise - latents


def sigma_schedule(num_inference_steps: int, flow_shift: float) -> Float[Tensor, " steps"]:
    """Return the sigmas of an Euler solver, from 1 down to 0: one more than there are steps.

    The grid is the one of DiffSynth-Studio and of diffusers' FlowMatchEulerDiscreteScheduler fed with
    ``linspace(1, 0, steps + 1)[:-1]``: evenly spaced, then shifted.

    Raises:
        ValueError: ``num_inference_steps`` is not positive.
    """
    if num_inference_steps < 1:
        raise ValueError(f"num_inference_steps must be at least 1, got {num_inference_steps}")
    return shift_sigma(torch.linspace(1, 0, num_inference_steps + 1, dtype=torch.float64), flow_shift).float()


def loss_weight(sigma: Float[Tensor, " b"], recipe: FlowRecipe) -> Float[Tensor, " b"]:
    """Return the weight of each sample's loss under the recipe."""
    if recipe.weight == "none":
        return torch.ones_like(sigma)
    return bell_weight(sigma, recipe.flow_shift)


def bell_weight(sigma: Float[Tensor, " b"], flow_shift: float) -> Float[Tensor, " b"]:
    """Weight the middle of the noise range: ``exp(-2 (sigma - 1/2)^2)``, less its minimum, scaled to mean 1.

    Minimum and mean are taken over the shifted training grid of 1,000 steps, so the weight of pure noise is 0.

    Source: DiffSynth-Studio, ``FlowMatchScheduler`` with ``training=True``, which the ReGenHuman release trains with.
    """
    minimum, mean = _bell_constants(flow_shift)
    return (torch.exp(-2 * (sigma - 0.5) ** 2) - minimum) / mean


@cache
def _bell_constants(flow_shift: float) -> tuple[float, float]:
    grid = shift_sigma(torch.arange(NUM_GRID_STEPS, 0, -1, dtype=torch.float64) / NUM_GRID_STEPS, flow_shift)
    bell = torch.exp(-2 * (grid - 0.5) ** 2)
    return float(bell.min()), float((bell - bell.min()).mean())
