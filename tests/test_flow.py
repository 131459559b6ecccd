"""The laws of rectified flow, in float64."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from regen_train import flow
from regen_train.flow import FlowRecipe

SHIFTS = st.floats(0.1, 20)
SIGMAS = st.floats(0, 1)


def _clip(seed: int) -> torch.Tensor:
    return torch.randn(2, 3, 2, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@given(SIGMAS, SHIFTS)
@settings(deadline=None)
def test_shifting_by_the_inverse_undoes_the_shift(sigma: float, flow_shift: float) -> None:
    start = torch.tensor([sigma], dtype=torch.float64)
    shifted = flow.shift_sigma(start, flow_shift)
    assert 0 <= float(shifted) <= 1
    torch.testing.assert_close(flow.shift_sigma(shifted, 1 / flow_shift), start, atol=1e-12, rtol=0)


def test_shift_five_is_the_formula_of_the_release() -> None:
    sigma = torch.tensor([0.25], dtype=torch.float64)
    assert float(flow.shift_sigma(sigma, 5.0)) == pytest.approx(5 * 0.25 / (1 + 4 * 0.25))


def test_interpolation_hits_both_ends() -> None:
    latents, noise = _clip(0), _clip(1)
    assert torch.equal(flow.interpolate(latents, noise, torch.zeros(2, dtype=torch.float64)), latents)
    assert torch.equal(flow.interpolate(latents, noise, torch.ones(2, dtype=torch.float64)), noise)


def test_velocity_is_the_derivative_of_the_interpolation() -> None:
    latents, noise = _clip(0), _clip(1)
    low, high = (torch.full((2,), s, dtype=torch.float64) for s in (0.4, 0.5))
    slope = (flow.interpolate(latents, noise, high) - flow.interpolate(latents, noise, low)) / 0.1
    torch.testing.assert_close(slope, flow.velocity_target(latents, noise))


def test_euler_on_a_constant_velocity_is_exact() -> None:
    latents, noise = _clip(0), _clip(1)
    sigmas = flow.sigma_schedule(7, 5.0).double()
    velocity, point = flow.velocity_target(latents, noise), noise
    for now, after in itertools.pairwise(sigmas):
        point = point + (after - now) * velocity
    torch.testing.assert_close(point, latents)


def test_schedule_runs_from_noise_to_clean() -> None:
    sigmas = flow.sigma_schedule(50, 5.0)
    assert len(sigmas) == 51
    assert float(sigmas[0]) == 1
    assert float(sigmas[-1]) == 0
    assert (sigmas.diff() < 0).all()
    with pytest.raises(ValueError, match="num_inference_steps must be at least 1, got 0"):
        flow.sigma_schedule(0, 5.0)


@given(st.floats(0, 1, exclude_max=True), st.sampled_from(["grid", "uniform", "logit_normal"]), SHIFTS)
@settings(deadline=None)
def test_sigma_stays_in_range(quantile: float, name: str, flow_shift: float) -> None:
    recipe = FlowRecipe(sigma=name, flow_shift=flow_shift)
    sigma = float(flow.sample_sigma(torch.tensor([quantile], dtype=torch.float64), recipe))
    assert 0 < sigma <= 1


def test_the_paper_draws_mostly_high_noise_and_weights_the_middle() -> None:
    quantile = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
    recipe = FlowRecipe()
    sigma = flow.sample_sigma(quantile, recipe)
    weight = flow.loss_weight(sigma, recipe)
    assert len(sigma.unique()) == flow.NUM_GRID_STEPS
    assert float((sigma > 0.9).double().mean()) == pytest.approx(0.36, abs=0.005)
    assert float(weight[sigma > 0.9].sum() / weight.sum()) == pytest.approx(0.10, abs=0.005)
    assert float(weight.mean()) == pytest.approx(1, abs=1e-6)
    assert float(flow.bell_weight(torch.ones(1, dtype=torch.float64), 5.0)) == 0


def test_bell_weight_is_what_diffsynth_studio_computes() -> None:
    timesteps = 1000 * flow.shift_sigma(torch.linspace(1, 0, 1001, dtype=torch.float64)[:-1], 5.0)
    bell = torch.exp(-2 * ((timesteps - 500) / 1000) ** 2)
    shifted = bell - bell.min()
    expected = shifted * (1000 / shifted.sum())
    torch.testing.assert_close(flow.bell_weight(timesteps / 1000, 5.0), expected, atol=1e-12, rtol=0)


def test_plain_recipes_weigh_all_noise_levels_alike() -> None:
    sigma = torch.linspace(0.1, 1, 5)
    assert torch.equal(flow.loss_weight(sigma, FlowRecipe(weight="none")), torch.ones(5))


def test_logit_normal_is_centred() -> None:
    quantile = (torch.arange(1001, dtype=torch.float64)) / 1001
    sigma = flow.sample_sigma(quantile, FlowRecipe(sigma="logit_normal", flow_shift=1.0, weight="none"))
    assert float(sigma.median()) == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("fault", [{"flow_shift": 0.0}, {"flow_shift": float("nan")}, {"logit_std": -1.0}])
def test_impossible_recipes_are_refused(fault: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be a positive number"):
        FlowRecipe(**fault)
