"""Sampling equals WanVACEPipeline on the same weights, noise and schedule."""

from dataclasses import replace

import jaxtyping
import pytest
import torch
from PIL import Image
from torch import Tensor

from regen_train.encoders import WanEncoders, add_reference_context, fold_mask, load_encoders, pack_context, pad_prompts
from regen_train.flow import sigma_schedule
from regen_train.model import BlockOptions, LoraSpec, WanVace, compiling, load_wan_vace
from regen_train.sampling import FAST, SamplingSettings, StepCache, generate
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


def plain_loop(
    model: WanVace, inputs: dict[str, Tensor], noise: Tensor, *, steps: int, guidance_scale: float
) -> Tensor:
    """Sample by Euler with guidance at every step and nothing predicted: the shortest loop that does."""
    from diffusers import FlowMatchEulerDiscreteScheduler

    context = torch.cat([add_reference_context(inputs["vace_context"], inputs["reference"], model.geometry)] * 2)
    prompts = torch.cat([pad_prompts(inputs[name].unbind()) for name in ("prompt_embeds", "negative_prompt_embeds")])
    scheduler = FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(sigmas=sigma_schedule(steps, 5.0)[:-1].tolist())
    latents = noise
    model.eval()
    with torch.no_grad():
        for timestep in scheduler.timesteps:
            towards, away = model(torch.cat([latents] * 2), (timestep / 1000).expand(2), prompts, context).chunk(2)
            velocity = away + guidance_scale * (towards - away)
            latents = scheduler.step(velocity, timestep, latents, return_dict=False)[0]
    return latents[:, :, 1:]


def test_by_default_nothing_is_left_out(model, encoders):
    inputs, noise = conditioning(encoders), noise_of(model, reference=True)
    expected = plain_loop(model, inputs, noise, steps=STEPS, guidance_scale=5.0)
    settings = SamplingSettings(num_inference_steps=STEPS)
    assert torch.equal(generate(model, **inputs, noise=noise, settings=settings), expected)


class Calls:
    """Counts the clips of each evaluation of the model, and how often one of its parts is computed."""

    def __init__(self, model: WanVace, part: torch.nn.Module | None = None) -> None:
        self.clips: list[int] = []
        self.computed = 0
        self._handles = [model.transformer.register_forward_pre_hook(self._called, with_kwargs=True)]
        if part is not None:
            self._handles.append(part.register_forward_hook(self._computed))

    def _called(self, module, args, kwargs) -> None:
        self.clips.append(len(kwargs["hidden_states"]))

    def _computed(self, module, args, output) -> None:
        self.computed += 1

    def __enter__(self):
        return self

    def __exit__(self, *error: object) -> None:
        for handle in self._handles:
            handle.remove()


def interval_of(steps: int, first: int, last: int) -> tuple[float, float]:
    """Return noise levels around those of the steps ``first`` to ``last``, counted from 0."""
    levels = sigma_schedule(steps, 5.0).tolist()
    return (levels[last] + levels[last + 1]) / 2, (levels[first] + levels[first - 1]) / 2


def test_guidance_within_an_interval_only(model, encoders):
    inputs = conditioning(encoders)

    def sampled(**options) -> tuple[Tensor, list[int]]:
        with Calls(model) as calls:
            latents = generate(model, **inputs, settings=SamplingSettings(num_inference_steps=STEPS, **options))
        return latents, calls.clips

    always, clips = sampled()
    assert clips == [2] * STEPS
    assert torch.equal(always, sampled(guidance_interval=(0.0, 1.0))[0])
    never, clips = sampled(guidance_interval=(0.0, 0.0))
    assert clips == [1] * STEPS
    assert torch.equal(never, sampled(guidance_scale=1.0)[0])
    between, clips = sampled(guidance_interval=interval_of(STEPS, 1, 2))
    assert clips == [1, 2, 2, 1]
    assert not torch.equal(between, always)
    assert not torch.equal(between, never)


CACHED = {
    "velocity": ("velocity", lambda transformer: transformer.vace_blocks[1].ffn.net[2]),
    "attention": ("attention", lambda transformer: transformer.vace_blocks[1].attn1.to_out[0]),
}


@pytest.mark.parametrize(("part", "watched"), CACHED.values(), ids=CACHED.keys())
@pytest.mark.parametrize("batched", [True, False])
def test_steps_are_predicted_and_the_model_is_as_it_was(tiny_model, encoders, part, watched, batched):
    model = load_wan_vace(str(tiny_model), dtype="fp32", lora=LoraSpec(rank=4))
    inputs, layer = conditioning(encoders), watched(model.transformer)
    attributes = [set(vars(module)) for module in model.modules()]

    def sampled(cache: StepCache) -> tuple[Tensor, int]:
        settings = SamplingSettings(num_inference_steps=9, batched_guidance=batched, cache=cache)
        with Calls(model, layer) as calls:
            return generate(model, **inputs, settings=settings), calls.computed

    computed, evaluations = sampled(StepCache())
    per_step = 1 if batched else 2
    assert evaluations == 9 * per_step
    predicted, evaluations = sampled(StepCache(part, interval=2, warmup=3))
    assert evaluations == 6 * per_step  # steps 1 to 3, 5, 7 and 9
    assert not torch.equal(predicted, computed)
    away = (predicted - computed).square().mean() / computed.square().mean()
    assert away < 0.05
    assert torch.equal(sampled(StepCache(part, interval=1, warmup=3))[0], computed)
    assert [set(vars(module)) for module in model.modules()] == attributes
    assert torch.equal(sampled(StepCache())[0], computed)


def test_compiled_and_swapped_blocks_go_with_predicted_steps(tiny_model, encoders, monkeypatch):
    monkeypatch.setattr(compiling, "BACKEND", "aot_eager")
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # what tests alone check cannot be compiled
    torch._dynamo.reset()
    settings = SamplingSettings(num_inference_steps=9, cache=StepCache("velocity", interval=2, warmup=3))

    def sampled(blocks: BlockOptions, settings: SamplingSettings = settings) -> Tensor:
        model = load_wan_vace(str(tiny_model), dtype="fp32", lora=LoraSpec(rank=4), blocks=blocks)
        again = [generate(model, **conditioning(encoders), settings=settings) for _ in range(2)]
        assert torch.equal(*again)
        return again[0]

    expected, before = sampled(BlockOptions()), compiling.compilation().graphs
    torch.testing.assert_close(sampled(BlockOptions(compile=True)), expected)
    assert compiling.compilation().graphs > before
    torch.testing.assert_close(sampled(BlockOptions(compile=True, swap=2)), expected)
    assert torch.equal(sampled(BlockOptions(swap=2)), expected)
    with pytest.raises(ValueError, match=r"cache\.part attention predicts a part of a block, and"):
        sampled(BlockOptions(compile=True), replace(settings, cache=StepCache("attention")))


def test_the_fast_way_computes_fewer_than_half_of_the_steps(model, encoders):
    with Calls(model, model.transformer.vace_blocks[1].ffn.net[2]) as calls:
        fast = generate(model, **conditioning(encoders), settings=FAST)
    assert (FAST.num_inference_steps, calls.computed) == (50, 22)
    whole = generate(model, **conditioning(encoders), settings=SamplingSettings())
    assert (fast - whole).square().mean() < 1e-3 * whole.square().mean()


def test_predictions_do_not_pass_from_one_guidance_to_another(model, encoders):
    settings = SamplingSettings(
        num_inference_steps=12,
        guidance_interval=interval_of(12, 4, 7),
        cache=StepCache("velocity", interval=2, warmup=2),
    )
    block = model.transformer.vace_blocks[1].ffn.net[2]
    with Calls(model, block) as calls:
        generate(model, **conditioning(encoders), settings=settings)
    assert calls.clips == [1] * 4 + [2] * 4 + [1] * 4
    assert calls.computed == 9  # of each four the first two and the last


def test_why_first_block_cache_is_left_out(model, encoders):
    """It would add VACE's hints twice: what it keeps holds them, and the transformer adds them again.

    When this fails, diffusers has learned of VACE, and the cache may be worth offering.
    """
    from diffusers import FirstBlockCacheConfig

    inputs, noise = conditioning(encoders), noise_of(model, reference=False)
    transformer = model.transformer
    transformer.enable_cache(FirstBlockCacheConfig(threshold=1e9))
    try:
        with torch.no_grad(), transformer.cache_context("prompt"):
            first, second = (
                model.eval()(noise, torch.tensor([0.5]), inputs["prompt_embeds"], inputs["vace_context"])
                for _ in range(2)
            )
    finally:
        transformer.disable_cache()
    assert not torch.allclose(first, second, atol=1e-3)


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
    with pytest.raises(ValueError, match=r"guidance_interval must be \[low, high\] within \[0, 1\], got \[0.8, 0.2\]"):
        SamplingSettings(guidance_interval=(0.8, 0.2))
    with pytest.raises(ValueError, match=r"cache.interval must be at least 1, got 0; cache.warmup must be .*got 1"):
        StepCache("velocity", interval=0, warmup=1)
