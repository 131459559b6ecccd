"""What a step minimises, against the loss of DiffSynth-Studio written out by hand."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from regen_train import draws
from regen_train.model import load_wan_vace
from regen_train.schema import Batch, Bucket
from regen_train.training import VALIDATION_SIGMAS, LossSpec, VaceModule

SEED = 3
BUCKET = Bucket(5, 32, 48)
TOLERANCE = {"atol": 1e-5, "rtol": 1e-5}


@pytest.fixture(scope="module")
def module(tiny_model: Path) -> VaceModule:
    return _module(tiny_model, LossSpec())


def _module(pretrained: Path, loss: LossSpec) -> VaceModule:
    module = VaceModule(str(pretrained), lora=None, loss=loss, dtype="fp32", checkpointing="none", seed=SEED)
    module.model = load_wan_vace(str(pretrained), lora=None, dtype="fp32")
    return module


@pytest.fixture(scope="module")
def batch(module: VaceModule) -> Batch:
    """Four samples far apart in the stream, the second and the last without reference frame."""
    geometry, generator = module.wan.geometry, torch.Generator().manual_seed(0)
    channels, *extent = geometry.latent_shape(BUCKET)

    def draw(*shape: int) -> Tensor:
        return torch.randn(4, *shape, generator=generator).half()

    return Batch(
        keys=("a", "b", "c", "d"),
        numbers=(0, 7, 8, 123_456),
        variants=("structhuman",) * 4,
        bucket=BUCKET,
        latents=draw(channels, *extent),
        vace_context=draw(geometry.context_channels, *extent),
        reference=draw(channels, 1, *extent[1:]),
        use_reference=torch.tensor([True, False, True, False]),
        human_coverage=torch.rand(4, *extent, generator=generator),
        prompt_embeds=draw(512, geometry.text_dim),
        weight=torch.ones(4),
    )


def _in_parts(values: list[Tensor]) -> Tensor:
    """Return values in the order of `VaceModule.losses`: samples with reference frame first."""
    return torch.stack([values[i] for i in (0, 2, 1, 3)])


def _draws(batch: Batch, i: int) -> tuple[Tensor, int]:
    """Return a sample's noise, one frame longer than the clip, and the step of the training grid it is taken at."""
    channels, frames, height, width = batch.latents.shape[1:]
    generator = draws.generator_for(SEED, batch.numbers[i], "noise")
    noise = torch.randn(channels, frames + 1, height, width, generator=generator)
    return noise, int(1000 * draws.uniform(SEED, batch.numbers[i], "sigma"))


@torch.no_grad()
def _square_error(module: VaceModule, batch: Batch, i: int, noise: Tensor, sigma: float) -> Tensor:
    """Return one sample's squared error [c, f, h, w], its reference frame first if it has one."""
    latents, context, reference = batch.latents[i].float(), batch.vace_context[i].float(), batch.reference[i].float()
    if batch.use_reference[i]:
        zeros = torch.zeros(len(context) - len(reference), *reference.shape[1:])  # no reactive latents, no mask
        context = torch.cat([torch.cat([reference, zeros]), context], dim=1)
        latents = torch.cat([reference, latents], dim=1)
    else:
        noise = noise[:, 1:]
    noised = (1 - sigma) * latents + sigma * noise
    prompt = batch.prompt_embeds[i].float()
    velocity = module.wan(noised[None], torch.tensor([sigma]), prompt[None], context[None])[0]
    return (velocity - (noise - latents)) ** 2


def _training_grid() -> tuple[Tensor, Tensor]:
    """Return timesteps and loss weights as `FlowMatchScheduler.set_timesteps(1000, training=True, shift=5)` does."""
    sigmas = torch.linspace(1, 0, 1001, dtype=torch.float64)[:-1]
    timesteps = 1000 * 5 * sigmas / (1 + 4 * sigmas)
    bell = torch.exp(-2 * ((timesteps - 500) / 1000) ** 2)
    return timesteps, (bell - bell.min()) * (1000 / (bell - bell.min()).sum())


def test_the_loss_is_that_of_diffsynth_studio(module: VaceModule, batch: Batch) -> None:
    timesteps, weights = _training_grid()
    noises, steps = zip(*(_draws(batch, i) for i in range(4)), strict=True)
    sigmas = [float(timesteps[step]) / 1000 for step in steps]
    assert len(set(sigmas)) == len({float(noise.sum()) for noise in noises}) == 4
    errors = [_square_error(module, batch, i, noises[i], sigmas[i]).mean() for i in range(4)]
    found = module.losses(batch)
    torch.testing.assert_close(found.sigma, _in_parts([torch.tensor(sigma) for sigma in sigmas]))
    torch.testing.assert_close(found.error, _in_parts(errors), **TOLERANCE)
    losses = [error * float(weights[step]) for error, step in zip(errors, steps, strict=True)]
    torch.testing.assert_close(found.loss, _in_parts(losses), **TOLERANCE)


def test_samples_differ_by_their_numbers_alone(module: VaceModule, batch: Batch) -> None:
    twins = batch.select([0, 0])
    same = module.losses(twins)
    assert torch.equal(same.sigma[0], same.sigma[1])
    other = module.losses(Batch(**{**vars(twins), "numbers": (0, 1)}))
    assert other.sigma[0] == same.sigma[0]
    assert other.sigma[0] != other.sigma[1]
    assert other.error[0] != other.error[1]


@pytest.mark.parametrize("spec", [LossSpec(reference_frame=False), LossSpec(human_weight=4.0), LossSpec(0.5, False)])
def test_people_and_the_reference_frame_weigh_what_the_config_says(
    tiny_model: Path, batch: Batch, spec: LossSpec
) -> None:
    module = _module(tiny_model, spec)
    timesteps, weights = _training_grid()
    expected = []
    for i in range(4):
        noise, step = _draws(batch, i)
        cells = _square_error(module, batch, i, noise, float(timesteps[step]) / 1000).mean(0)
        parts = 1 + (spec.human_weight - 1) * batch.human_coverage[i]
        if batch.use_reference[i]:
            first = torch.ones_like(parts[:1]) if spec.reference_frame else torch.zeros_like(parts[:1])
            parts = torch.cat([first, parts])
        expected.append((cells * parts).sum() / parts.sum() * float(weights[step]))
    torch.testing.assert_close(module.losses(batch).loss, _in_parts(expected), **TOLERANCE)


def test_validation_takes_noise_by_the_samples_key_at_fixed_sigmas(module: VaceModule, batch: Batch) -> None:
    expected = []
    for i, key in enumerate(batch.keys):
        noise, _ = _draws(batch, i)
        noise = torch.randn(noise.shape, generator=draws.generator_for(SEED, f"validation {key}", "noise"))
        rows = [_square_error(module, batch, i, noise, sigma).mean() for sigma in VALIDATION_SIGMAS]
        expected.append(torch.stack(rows))
    with torch.no_grad():
        found = module.validation_step(batch, 0)
    torch.testing.assert_close(found, _in_parts(expected), **TOLERANCE)
