"""Sampling equals WanVACEPipeline on the same weights, noise and schedule."""

import pytest
import torch
from PIL import Image
from torch import Tensor

from regen_train.encoders import WanEncoders, fold_mask, load_encoders, pack_context, pad_prompts
from regen_train.flow import sigma_schedule
from regen_train.model import LoraSpec, WanVace, load_wan_vace
from regen_train.sampling import SamplingSettings, generate
from regen_train.schema import Bucket

BUCKET = Bucket(5, 32, 48)
STEPS = 4


@pytest.fixture(scope="module")
def encoders(tiny_model) -> WanEncoders:
    return load_encoders(str(tiny_model), dtype="fp32")


@pytest.fixture(scope="module")
def model(tiny_model) -> WanVace:
    loaded = load_wan_vace(str(tiny_model), dtype="fp32", lora=LoraSpec(rank=4), seed=1)
    generator = torch.Generator().manual_seed(2)
    factors = {n: 0.1 * torch.randn(t.shape, generator=generator) for n, t in loaded.lora_state().items()}
    loaded.load_lora_state(factors)
    return loaded


def condition_video() -> Tensor:
    generator = torch.Generator().manual_seed(3)
    shape = (BUCKET.num_frames, BUCKET.height, BUCKET.width, 3)
    return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)


def conditioning(encoders: WanEncoders) -> dict[str, Tensor]:
    latents = encoders.encode_condition(condition_video()).reactive
    mask = fold_mask(torch.ones(BUCKET.num_frames, BUCKET.height, BUCKET.width, dtype=torch.bool), encoders.geometry)
    prompt, negative = encoders.encode_prompts(["a man walking on the street", "static"])
    return {
        "vace_context": pack_context(latents[None], encoders.inactive_constant(BUCKET)[None], mask[None]),
        "prompt_embeds": prompt[None],
        "negative_prompt_embeds": negative[None],
        "reference": latents[None, :, :1],
    }


def noise_of(model: WanVace, *, reference: bool, batch: int = 1) -> Tensor:
    channels, frames, height, width = model.geometry.latent_shape(BUCKET)
    generator = torch.Generator().manual_seed(4)
    return torch.randn(batch, channels, frames + reference, height, width, generator=generator)


def pipeline_of(tiny_model, model: WanVace | None, settings: SamplingSettings):
    """Build diffusers' pipeline, the LoRA loaded by its own means, on the schedule of the settings."""
    from diffusers import FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler, WanVACEPipeline

    class Euler(FlowMatchEulerDiscreteScheduler):
        def set_timesteps(self, num_inference_steps, device=None):
            super().set_timesteps(sigmas=sigma_schedule(num_inference_steps, 5.0)[:-1].tolist(), device=device)

    pipeline = WanVACEPipeline.from_pretrained(tiny_model)
    pipeline.set_progress_bar_config(disable=True)
    if model is not None:
        pipeline.load_lora_weights({f"transformer.{name}": value for name, value in model.lora_state().items()})
    if settings.solver == "euler":
        pipeline.scheduler = Euler()
    else:
        assert isinstance(pipeline.scheduler, UniPCMultistepScheduler)
        assert pipeline.scheduler.config.flow_shift == 3.0
    return pipeline


CASES = {
    "release": (SamplingSettings(num_inference_steps=STEPS), True, True),
    "base": (SamplingSettings(num_inference_steps=STEPS), False, True),
    "sequential": (SamplingSettings(num_inference_steps=STEPS, batched_guidance=False), True, False),
    "no guidance": (SamplingSettings(num_inference_steps=STEPS, guidance_scale=1.0), True, False),
    "diffusers": (SamplingSettings(num_inference_steps=STEPS, solver="unipc"), True, True),
    "per block": (SamplingSettings(num_inference_steps=STEPS, conditioning_scale=[0.3, 0.8]), True, True),
}


@pytest.mark.parametrize(("settings", "with_lora", "with_reference"), CASES.values(), ids=CASES.keys())
def test_latents_are_the_pipelines(tiny_model, model, encoders, settings, with_lora, with_reference):
    used = model if with_lora else load_wan_vace(str(tiny_model), dtype="fp32", lora=None)
    inputs, noise = conditioning(encoders), noise_of(model, reference=with_reference)
    if not with_reference:
        del inputs["reference"]
    latents = generate(used, **inputs, noise=noise, settings=settings)

    images = [Image.fromarray(frame) for frame in condition_video().numpy()]
    expected = pipeline_of(tiny_model, model if with_lora else None, settings)(
        video=images,
        mask=[Image.new("L", image.size, 255) for image in images],
        reference_images=[[images[0]]] if with_reference else None,
        prompt_embeds=pad_prompts(inputs["prompt_embeds"].unbind()),
        negative_prompt_embeds=pad_prompts(inputs["negative_prompt_embeds"].unbind()),
        height=BUCKET.height,
        width=BUCKET.width,
        num_frames=BUCKET.num_frames,
        latents=noise,
        num_inference_steps=settings.num_inference_steps,
        guidance_scale=settings.guidance_scale,
        conditioning_scale=settings.conditioning_scale,
        output_type="latent",
    ).frames[:, :, int(with_reference) :]
    torch.testing.assert_close(latents, expected, atol=1e-4, rtol=0)
    assert (latents - noise[:, :, int(with_reference) :]).abs().max() > 0.1


def test_batched_guidance_is_sequential_guidance(model, encoders):
    inputs = conditioning(encoders)
    batched, sequential = (
        generate(model, **inputs, settings=SamplingSettings(num_inference_steps=2, batched_guidance=batched))
        for batched in (True, False)
    )
    torch.testing.assert_close(batched, sequential, atol=1e-5, rtol=0)


def test_each_clip_of_a_batch_is_sampled_alone(model, encoders):
    inputs = {name: torch.cat([value, value.flip(-1)]) for name, value in conditioning(encoders).items()}
    noise, settings = noise_of(model, reference=True, batch=2), SamplingSettings(num_inference_steps=2)
    together = generate(model, **inputs, noise=noise, settings=settings)
    for row in range(2):
        one = {name: value[row : row + 1] for name, value in inputs.items()}
        alone = generate(model, **one, noise=noise[row : row + 1], settings=settings)
        torch.testing.assert_close(together[row : row + 1], alone, atol=1e-5, rtol=0)


def test_the_seed_decides(model, encoders):
    inputs, settings = conditioning(encoders), SamplingSettings(num_inference_steps=1, guidance_scale=1.0)
    torch.manual_seed(0)
    first = generate(model, **inputs, noise=7, settings=settings)
    assert torch.equal(first, generate(model, **inputs, noise=7, settings=settings))
    assert not torch.equal(first, generate(model, **inputs, noise=8, settings=settings))


def test_training_goes_on_where_it_was(tiny_model, encoders):
    model = load_wan_vace(str(tiny_model), dtype="fp32", lora=LoraSpec(rank=4, dropout=0.5), checkpointing="full")
    model.load_lora_state({name: torch.ones_like(tensor) for name, tensor in model.lora_state().items()})
    model.train()
    model.transformer.blocks.eval()
    modes = [module.training for module in model.modules()]
    steps = []
    inputs = conditioning(encoders)
    settings = SamplingSettings(num_inference_steps=2)
    first = generate(
        model, **inputs, settings=settings, progress=lambda step, num_steps: steps.append((step, num_steps))
    )
    assert [module.training for module in model.modules()] == modes
    assert steps == [(1, 2), (2, 2)]
    assert not first.requires_grad
    assert torch.equal(first, generate(model, **inputs, settings=settings)), "dropout was left on"


def test_what_cannot_be_sampled_is_refused(model, encoders):
    inputs = conditioning(encoders)
    with pytest.raises(ValueError, match=r"noise must be \[1, 16, 3, 4, 6\] \(one frame more .*got \[1, 16, 2, 4, 6\]"):
        generate(model, **inputs, noise=noise_of(model, reference=False))
    del inputs["negative_prompt_embeds"]
    with pytest.raises(ValueError, match="needs negative_prompt_embeds"):
        generate(model, **inputs)
    with pytest.raises(ValueError, match=r"guidance_scale must .*, got 0.5; num_inference_steps .*; flow_shift"):
        SamplingSettings(guidance_scale=0.5, num_inference_steps=0, flow_shift=0.0)
