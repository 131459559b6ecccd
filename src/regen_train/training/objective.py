"""What one training step computes: the weighted error between predicted and true velocity, sample by sample."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from regen_train import flow
from regen_train.encoders import add_reference
from regen_train.flow import FlowRecipe
from regen_train.model import WanVace
from regen_train.schema import Batch


@dataclass(frozen=True)
class LossSpec:
    """What of a clip counts in the loss, and how much.

    Args:
        human_weight: Weight of a latent cell that is all human; 1 weighs all cells alike.
        reference_frame: Whether the reference frame put before the clip counts (in the paper's release it does).
    """

    human_weight: float = 1.0
    reference_frame: bool = True

    def __post_init__(self) -> None:
        if self.human_weight < 0:
            raise ValueError(f"human_weight must not be negative, got {self.human_weight}")


@dataclass(frozen=True)
class SampleLosses:
    """The losses of a microbatch, before they are averaged.

    Args:
        loss: What is minimised, per sample.
        error: The plain mean squared error of the velocity, per sample.
        sigma: The noise level each was taken at.
    """

    loss: Float[Tensor, " b"]
    error: Float[Tensor, " b"]
    sigma: Float[Tensor, " b"]


def sample_losses(
    model: WanVace,
    batch: Batch,
    *,
    noise: Float[Tensor, "b c g h w"],
    sigma: Float[Tensor, " b"],
    recipe: FlowRecipe,
    spec: LossSpec,
) -> SampleLosses:
    """Compare predicted and true velocity at given noise.

    Args:
        model: What predicts the velocity.
        batch: Samples that all use the reference frame, or all do not.
        noise: Standard normal; as many latent frames as the clip has, one more with the reference frame.
        sigma: Noise level in [0, 1], per sample.
        recipe: How the loss is weighted over sigma.
        spec: How it is weighted over the clip.

    Returns:
        Losses per sample; sample k's do not depend on its neighbours.
    """
    latents, context = batch.latents.float(), batch.vace_context.float()
    weight = 1 + (spec.human_weight - 1) * batch.human_coverage.float()
    if batch.use_reference[0]:
        clip = add_reference(latents, context, batch.reference.float(), model.geometry)
        latents, context = clip.latents, clip.vace_context
        first = torch.full_like(weight[:, :1], float(spec.reference_frame))
        weight = torch.cat([first, weight], dim=1)
    noised = flow.interpolate(latents, noise, sigma)
    velocity = model(noised, sigma, batch.prompt_embeds.float(), context)
    square = (velocity.float() - flow.velocity_target(latents, noise)) ** 2
    weight = weight[:, None].expand_as(square)
    axes = (1, 2, 3, 4)
    loss = (square * weight).sum(axes) / weight.sum(axes).clamp_min(1e-6)
    return SampleLosses(loss * flow.loss_weight(sigma, recipe), square.mean(axes), sigma)
