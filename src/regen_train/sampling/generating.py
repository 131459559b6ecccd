"""The sampling loop: guided velocity, step by step."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from regen_train.draws import generator_for
from regen_train.encoders import add_reference_context, pad_prompts
from regen_train.flow import sigma_schedule
from regen_train.model import WanVace
from regen_train.sampling.caching import cached_as, predicting
from regen_train.sampling.settings import SamplingSettings

_NUM_TRAIN_TIMESTEPS = 1000


@dataclass(frozen=True)
class _Conditioning:
    prompt_embeds: Float[Tensor, "b l d"]
    negative_prompt_embeds: Float[Tensor, "b l d"] | None
    vace_context: Float[Tensor, "b k f h w"]


_DEFAULT_SETTINGS = SamplingSettings()


@torch.no_grad()
def generate(
    model: WanVace,
    *,
    vace_context: Float[Tensor, "b k f h w"],
    prompt_embeds: Float[Tensor, "b l d"],
    negative_prompt_embeds: Float[Tensor, "b m d"] | None = None,
    reference: Float[Tensor, "b c 1 h w"] | None = None,
    noise: Float[Tensor, "b c g h w"] | int = 0,
    settings: SamplingSettings = _DEFAULT_SETTINGS,
    progress: Callable[[int, int], None] | None = None,
) -> Float[Tensor, "b c f h w"]:
    """Sample clips from their conditions.

    Args:
        model: Left in the modes, training or evaluation, in which it came.
        vace_context: Without reference frame.
        prompt_embeds: Zero-padded to 512 tokens here where they are shorter.
        negative_prompt_embeds: The same for what the clip shall not be; needed for a guidance scale above 1.
        reference: Latent of the reference frame, put before the clip; None for none.
        noise: The noise to start from, or the seed to draw it with. It has one frame more than the clip if there is a
            reference frame.
        settings: Solver, steps, guidance and what is predicted.
        progress: Called after every step with its number, counted from 1, and the number of steps.

    Returns:
        The clips' latents in fp32 on the model's device, without reference frame.

    Raises:
        ValueError: Guidance without a negative prompt, noise of another shape, or attention that is to be predicted
            within compiled blocks.
    """
    if settings.guidance_scale > 1 and negative_prompt_embeds is None:
        raise ValueError(
            f"guidance_scale {settings.guidance_scale} needs negative_prompt_embeds: those of the negative prompt, or "
            "of an empty one; without guidance set guidance_scale to 1"
        )
    device = next(model.parameters()).device
    context = vace_context if reference is None else add_reference_context(vace_context, reference, model.geometry)
    batch, _, *extent = context.shape
    latents = _start(noise, (batch, model.geometry.latent_channels, *extent)).to(device)
    conditioning = _Conditioning(
        _padded(prompt_embeds).to(device),
        None if negative_prompt_embeds is None else _padded(negative_prompt_embeds).to(device),
        context.to(device),
    )
    scheduler = _scheduler(settings, device)
    with _evaluating(model), predicting(model, settings.cache):
        for step, timestep in enumerate(scheduler.timesteps, start=1):
            sigma = (timestep.float() / _NUM_TRAIN_TIMESTEPS).expand(batch)
            velocity = _guided_velocity(model, latents, sigma, conditioning, settings)
            latents = scheduler.step(velocity, timestep, latents, return_dict=False)[0]
            if progress is not None:
                progress(step, settings.num_inference_steps)
    return latents if reference is None else latents[:, :, 1:]


def _guided_velocity(
    model: WanVace,
    latents: Float[Tensor, "b c f h w"],
    sigma: Float[Tensor, " b"],
    conditioning: _Conditioning,
    settings: SamplingSettings,
) -> Float[Tensor, "b c f h w"]:
    """Move from the negative prompt's velocity past the prompt's. Source: Ho and Salimans 2022, arXiv 2207.12598."""
    level = float(sigma[0])
    guided = conditioning.negative_prompt_embeds is not None and settings.guides(level)

    def velocity(name: str, *prompts: Tensor) -> Tensor:
        n = len(prompts)
        with cached_as(model, settings.cache, _phase(name, level, settings)):
            predicted: Tensor = model(
                torch.cat([latents] * n),
                torch.cat([sigma] * n),
                torch.cat(prompts),
                torch.cat([conditioning.vace_context] * n),
                settings.conditioning_scale,
            )
        return predicted

    prompt, negative = conditioning.prompt_embeds, conditioning.negative_prompt_embeds
    if not guided:
        return velocity("prompt", prompt)
    assert negative is not None
    if settings.batched_guidance:
        towards, away = velocity("both", prompt, negative).chunk(2)
    else:
        towards, away = velocity("prompt", prompt), velocity("negative", negative)
    return away + settings.guidance_scale * (towards - away)


def _phase(name: str, sigma: float, settings: SamplingSettings) -> str:
    """Name a series of steps that follow on each other: before, within and after the guidance interval."""
    if settings.guidance_interval is None or settings.guides(sigma):
        return name
    return f"{name} {'before' if sigma > settings.guidance_interval[1] else 'after'}"


def _scheduler(settings: SamplingSettings, device: torch.device) -> Any:
    from diffusers import FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler

    shift, steps = settings.effective_shift, settings.num_inference_steps
    if settings.solver == "unipc":
        unipc = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift)
        unipc.set_timesteps(steps, device=device)
        return unipc
    euler = FlowMatchEulerDiscreteScheduler(num_train_timesteps=_NUM_TRAIN_TIMESTEPS)
    euler.set_timesteps(sigmas=sigma_schedule(steps, shift)[:-1].tolist(), device=device)
    return euler


def _start(noise: Tensor | int, shape: tuple[int, ...]) -> Tensor:
    if isinstance(noise, int):
        drawn = [torch.randn(shape[1:], generator=generator_for(noise, i, "sampling_noise")) for i in range(shape[0])]
        return torch.stack(drawn)
    if noise.shape != shape:
        raise ValueError(
            f"noise must be {list(shape)} (one frame more than the clip if there is a reference), "
            f"got {list(noise.shape)}"
        )
    return noise.float()


def _padded(prompt_embeds: Float[Tensor, "b l d"]) -> Float[Tensor, "b n d"]:
    return pad_prompts(prompt_embeds.unbind())


@contextmanager
def _evaluating(model: torch.nn.Module) -> Iterator[None]:
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
