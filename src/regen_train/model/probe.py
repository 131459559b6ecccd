"""A fixed random sample, on which two forms of one model are compared."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from regen_train import flow
from regen_train.draws import generator_for
from regen_train.model.wan_vace import WanVace


@dataclass(frozen=True)
class Probe:
    """A fixed random input of few tokens: two clips at different noise levels."""

    latents: Float[Tensor, "b c f h w"]
    noise: Float[Tensor, "b c f h w"]
    sigma: Float[Tensor, " b"]
    prompt_embeds: Float[Tensor, "b l d"]
    vace_context: Float[Tensor, "b k f h w"]

    @property
    def noised_latents(self) -> Float[Tensor, "b c f h w"]:
        """The clips at their noise levels."""
        return flow.interpolate(self.latents, self.noise, self.sigma)


def make_probe(model: WanVace) -> Probe:
    """Draw the input that fits the model's geometry; the same at every call."""
    geometry = model.geometry
    frames, height, width = (cells * patch for cells, patch in zip((2, 2, 3), geometry.patch_size, strict=True))

    def draw(name: str, *shape: int) -> Tensor:
        return torch.randn(shape, generator=generator_for(0, "export probe", name))

    return Probe(
        latents=draw("latents", 2, geometry.latent_channels, frames, height, width),
        noise=draw("noise", 2, geometry.latent_channels, frames, height, width),
        sigma=torch.tensor([0.9, 0.4]),
        prompt_embeds=draw("prompt", 2, 8, geometry.text_dim),
        vace_context=draw("context", 2, geometry.context_channels, frames, height, width),
    )


@torch.no_grad()
def velocity_of(model: WanVace, probe: Probe) -> Float[Tensor, "b c f h w"]:
    """Return the model's velocity on the probe, dropout switched off."""
    training = model.training
    device = next(model.parameters()).device
    inputs = (probe.noised_latents, probe.sigma, probe.prompt_embeds, probe.vace_context)
    try:
        velocity: Tensor = model.eval()(*(tensor.to(device) for tensor in inputs))
    finally:
        model.train(training)
    return velocity.float().cpu()
