"""Fidelity, baselines and intervals against answers known beforehand."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from regen_train.evaluation import (
    blackout_people,
    blur_people,
    difference_interval,
    mask_iou,
    mean_interval,
    pck,
    pixelate_people,
    psnr,
    share_interval,
)


def a_clip(seed: int = 0, num_frames: int = 2, height: int = 22, width: int = 30) -> tuple[torch.Tensor, torch.Tensor]:
    """Noise, and a box for the person."""
    generator = torch.Generator().manual_seed(seed)
    frames = torch.randint(0, 256, (num_frames, height, width, 3), generator=generator, dtype=torch.uint8)
    mask = torch.zeros(num_frames, height, width, dtype=torch.bool)
    mask[:, 4:18, 6:20] = True
    return frames, mask


BASELINES = {
    "blur": lambda frames, mask: blur_people(frames, mask, sigma=3),
    "pixelate": lambda frames, mask: pixelate_people(frames, mask, cell=7),
    "blackout": blackout_people,
}


@pytest.mark.parametrize("name", BASELINES)
def test_baselines_change_what_is_under_the_mask_and_nothing_else(name):
    frames, mask = a_clip()
    before = frames.clone()
    changed = BASELINES[name](frames, mask)
    assert torch.equal(frames, before)
    assert torch.equal(changed[~mask], frames[~mask])
    assert (changed[mask] != frames[mask]).any(-1).float().mean() > 0.95
    nobody = torch.zeros_like(mask)
    assert torch.equal(BASELINES[name](frames, nobody), frames)
    with pytest.raises(ValueError, match="must be of the same clip and size"):
        BASELINES[name](frames, mask[:, 1:])


def test_pixelation_takes_the_mean_of_each_cell():
    frames, mask = a_clip()
    changed = pixelate_people(frames, torch.ones_like(mask), cell=7)
    mean = frames[1, 7:14, 14:21].double().mean((0, 1))
    assert (changed[1, 7:14, 14:21].double() - mean).abs().max() <= 0.5
    assert torch.equal(pixelate_people(frames, mask, cell=1), frames)


def test_blur_is_a_gaussian_of_that_width():
    frames = torch.zeros(1, 41, 41, 3, dtype=torch.uint8)
    frames[:, :, 20:] = 255
    changed = blur_people(frames, torch.ones(1, 41, 41, dtype=torch.bool), sigma=4)[0, 20, :, 0].double() / 255
    x = torch.arange(41) - 19.5
    assert torch.allclose(changed, torch.special.ndtr(x.double() / 4), atol=0.01)


@pytest.mark.parametrize(("call", "message"), [
    (lambda frames, mask: blur_people(frames, mask, sigma=0), "sigma must be above 0"),
    (lambda frames, mask: blur_people(frames, mask, sigma=math.nan), "sigma must be above 0"),
    (lambda frames, mask: pixelate_people(frames, mask, cell=0), "cell must be at least 1"),
])  # fmt: skip
def test_baselines_refuse_what_does_nothing(call, message):
    with pytest.raises(ValueError, match=message):
        call(*a_clip())


def test_mask_iou_counts_all_pixels_of_the_clip_together():
    found, wanted = torch.zeros(2, 4, 4, dtype=torch.bool), torch.zeros(2, 4, 4, dtype=torch.bool)
    wanted[0, :2] = True
    found[0, 1:3] = True
    wanted[1, 0, 0] = found[1, 0, 0] = True
    assert mask_iou(found, wanted) == pytest.approx(5 / 13)
    assert mask_iou(wanted, wanted) == 1.0
    assert mask_iou(torch.zeros_like(wanted), wanted) == 0.0
    with pytest.raises(ValueError, match="both empty"):
        mask_iou(torch.zeros_like(wanted), torch.zeros_like(wanted))
    with pytest.raises(ValueError, match="same frames, height and width"):
        mask_iou(found, wanted[:1])


def test_psnr_looks_only_where_it_is_told():
    frames, mask = a_clip()
    other = frames.clone()
    other[mask] = 0
    shifted = torch.where(frames < 128, frames + 10, frames - 10)
    assert psnr(frames, other, ~mask) == math.inf
    assert psnr(frames, shifted, ~mask) == pytest.approx(20 * math.log10(25.5))
    assert psnr(frames, other, mask) < 10
    with pytest.raises(ValueError, match="where is empty"):
        psnr(frames, other, torch.zeros_like(mask))
    with pytest.raises(ValueError, match="same frames, height and width"):
        psnr(frames, other[:, 1:], mask)


def people() -> tuple[torch.Tensor, torch.Tensor]:
    """Two people of three points in one frame; boxes of 40 and 20 pixels."""
    points = torch.tensor([[[[10.0, 10.0], [20.0, 30.0], [15.0, 50.0]], [[60.0, 10.0], [70.0, 20.0], [65.0, 30.0]]]])
    return points, torch.ones(1, 2, 3, dtype=torch.bool)


def test_pck_takes_each_persons_own_size():
    wanted, seen = people()
    near = wanted + torch.tensor([3.0, 0.0])
    assert pck(near, wanted, seen, alpha=0.1).rate == 0.5
    assert pck(near, wanted, seen, alpha=0.16).rate == 1.0
    assert pck(near, wanted, seen, alpha=0.07).rate == 0.0


def test_pck_pairs_points_whatever_their_order_and_counts_missing_ones_as_missed():
    wanted, seen = people()
    assert pck(wanted.flip(1), wanted, seen).hits == 6
    partly = wanted.clone()
    partly[0, 1] = math.nan
    assert (pck(partly, wanted, seen).hits, pck(partly, wanted, seen).n) == (3, 6)
    assert pck(wanted[:, :0], wanted, seen).rate == 0.0
    # One point found cannot serve two people.
    same = torch.cat([wanted[:, :1], wanted[:, :1]], dim=1)
    assert pck(wanted[:, :1], same, seen).rate == 0.5


def test_pck_leaves_out_what_cannot_be_seen():
    wanted, seen = people()
    seen[0, 1, 2] = False
    wanted[0, 1, 2] = math.nan
    found = wanted.nan_to_num(0.0)
    assert (pck(found, wanted, seen).hits, pck(found, wanted, seen).n) == (5, 5)
    assert math.isnan(pck(found, wanted, torch.zeros_like(seen)).rate)


@pytest.mark.parametrize(("change", "message"), [
    (lambda found, wanted, seen: pck(found[:, :, :2], wanted, seen), "differ in frames or kinds of points"),
    (lambda found, wanted, seen: pck(found, wanted, seen[:, :1]), "seen must be"),
    (lambda found, wanted, seen: pck(found, wanted * math.nan, seen), "wanted is NaN where seen is set"),
    (lambda found, wanted, seen: pck(found, wanted, seen, alpha=0), "alpha must be above 0"),
])  # fmt: skip
def test_pck_says_what_does_not_fit(change, message):
    wanted, seen = people()
    with pytest.raises(ValueError, match=message):
        change(wanted, wanted, seen)


def test_a_share_has_wilsons_interval():
    # By hand: centre (hits + z^2/2) / (n + z^2), z = 1.959964.
    found = share_interval(1, 48)
    assert (found.value, found.n) == (1 / 48, 48)
    assert (found.low, found.high) == (pytest.approx(0.003693, abs=1e-5), pytest.approx(0.108987, abs=1e-4))
    assert share_interval(0, 10).low == 0.0
    assert share_interval(0, 10).high == pytest.approx(0.2775, abs=1e-3)
    for hits, n in ((0, 0), (3, 2), (-1, 2)):
        with pytest.raises(ValueError, match="hits must be 0 to n"):
            share_interval(hits, n)
    with pytest.raises(ValueError, match="confidence"):
        share_interval(1, 2, confidence=95)


@given(st.integers(1, 200), st.data())
def test_a_share_lies_in_its_interval(n, data):
    found = share_interval(data.draw(st.integers(0, n)), n)
    assert 0 <= found.low <= found.value + 1e-12
    assert found.value - 1e-12 <= found.high <= 1


def test_the_interval_of_a_mean_holds_the_truth_about_as_often_as_it_says():
    random = np.random.default_rng(0)
    held = [mean_interval(random.normal(3.0, 1.0, 40).tolist()) for _ in range(60)]
    share = np.mean([interval.low <= 3.0 <= interval.high for interval in held])
    assert share > 0.85
    assert all(interval.high - interval.low < 1.0 for interval in held)
    assert mean_interval([1.0, 2.0, 4.0]) == mean_interval([1.0, 2.0, 4.0])
    assert mean_interval([2.0, 2.0]).low == mean_interval([2.0, 2.0]).high == 2.0


def test_a_paired_difference_is_surer_than_its_parts():
    random = np.random.default_rng(1)
    before = random.normal(0.5, 0.2, 30)
    after = before + 0.05 + random.normal(0, 0.02, 30)
    gain = difference_interval(after.tolist(), before.tolist())
    assert 0.0 < gain.low < 0.05 < gain.high < 0.1
    assert mean_interval(before.tolist()).high > mean_interval(after.tolist()).low


@pytest.mark.parametrize("values", [[], [1.0], [1.0, math.nan], [1.0, math.inf]])
def test_a_mean_of_too_little_is_refused(values):
    with pytest.raises(ValueError, match="at least 2 finite numbers"):
        mean_interval(values)
    with pytest.raises(ValueError, match="same clips"):
        difference_interval(values, [*values, 1.0])
