"""Sample a video's latents from a condition: guided velocity and diffusers' solvers; no Lightning."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from regen_train.draws import generator_for
from regen_train.encoders import add_reference_context, pad_prompts
from regen_train.flow import sigma_schedule
from regen_train.model import WanVace

_NUM_TRAIN_TIMESTEPS = 1000
_DEFAULT_SHIFT = {"euler": 5.0, "unipc": 3.0}


@dataclass(frozen=True)
class SamplingSettings:
    """How a video is sampled. The defaults are those of the paper's release, which samples through DiffSynth-Studio.

    Args:
        guidance_scale: Weight of the prompt against the negative prompt, at least 1; 1 leaves guidance out.
        num_inference_steps: Steps of the solver.
        solver: ``euler``, or ``unipc`` as in diffusers' conversion of Wan VACE.
        flow_shift: Shift of the noise levels towards noise; null means 5 for ``euler`` and 3 for ``unipc``.
        conditioning_scale: Strength of the VACE hints: one number, or one per VACE block.
        batched_guidance: Evaluate prompt and negative prompt in one batch: faster on small clips, twice the memory.
    """

    guidance_scale: float = 5.0
    num_inference_steps: int = 50
    solver: Literal["euler", "unipc"] = "euler"
    flow_shift: float | None = None
    conditioning_scale: float | list[float] = 1.0
    batched_guidance: bool = True

    def __post_init__(self) -> None:
        faults = []
        if not self.guidance_scale >= 1:
            faults.append(f"guidance_scale must be at least 1, got {self.guidance_scale}")
        if self.num_inference_steps < 1:
            faults.append(f"num_inference_steps must be at least 1, got {self.num_inference_steps}")
        if self.solver not in _DEFAULT_SHIFT:
            faults.append(f"solver must be one of {', '.join(_DEFAULT_SHIFT)}, got {self.solver!r}")
        if self.flow_shift is not None and not self.flow_shift > 0:
            faults.append(f"flow_shift must be positive or null, got {self.flow_shift}")
        if faults:
            raise ValueError("; ".join(faults))

    @property
    def effective_shift(self) -> float:
        """``flow_shift``, or the solver's usual one where it is left open."""
        return _DEFAULT_SHIFT[self.solver] if self.flow_shift is None else self.flow_shift


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
        settings: Solver, steps and guidance.
        progress: Called after every step with its number, counted from 1, and the number of steps.

    Returns:
        The clips' latents in fp32 on the model's device, without reference frame.

    Raises:
        ValueError: Guidance without a negative prompt, or noise of another shape.
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
    with _evaluating(model):
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

    def velocity(*prompts: Tensor) -> Tensor:
        n = len(prompts)
        predicted: Tensor = model(
            torch.cat([latents] * n),
            torch.cat([sigma] * n),
            torch.cat(prompts),
            torch.cat([conditioning.vace_context] * n),
            settings.conditioning_scale,
        )
        return predicted

    prompt, negative = conditioning.prompt_embeds, conditioning.negative_prompt_embeds
    if negative is None or settings.guidance_scale == 1:
        return velocity(prompt)
    if settings.batched_guidance:
        towards, away = velocity(prompt, negative).chunk(2)
    else:
        towards, away = velocity(prompt), velocity(negative)
    return away + settings.guidance_scale * (towards - away)


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
