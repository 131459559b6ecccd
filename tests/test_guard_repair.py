import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from regen_train.guard import repair_mask
from regen_train.guard.repair import fill_holes


def disc(frames: int = 9, size: int = 24) -> Tensor:
    rows, columns = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    inside = (rows - 12) ** 2 + (columns - 12) ** 2 < 36
    return (inside.to(torch.uint8) * 3).repeat(frames, 1, 1)


def test_a_dropped_frame_is_mended_from_its_neighbours() -> None:
    mask = disc()
    broken = mask.clone()
    broken[4] = 0
    mended, repair = repair_mask(broken)
    assert torch.equal(mended > 0, mask > 0)
    assert (mended[4][mask[4] > 0] == 255).all()
    assert torch.equal(mended[3], mask[3])
    assert repair.rescued_frames == (4,)
    assert repair.added == pytest.approx(1 / 8)


@pytest.mark.parametrize("reach", [0, 1, 2, 3])
@pytest.mark.parametrize("length", [1, 2, 3, 9])
def test_each_mask_is_joined_with_the_neighbours_within_reach(reach: int, length: int) -> None:
    mask = torch.zeros(length, 4, 12, dtype=torch.uint8)
    for frame in range(length):
        mask[frame, 1, frame] = 1
    mended, _ = repair_mask(mask, frames=reach, hole_share=0.0)
    for frame in range(length):
        expected = set(range(max(0, frame - reach), min(length, frame + reach + 1)))
        assert set((mended[frame, 1] > 0).nonzero().flatten().tolist()) == expected


def test_small_holes_are_filled_and_large_ones_are_not() -> None:
    mask = disc(1) > 0
    small, large = mask.clone(), mask.clone()
    small[0, 12, 12] = False
    large[0, 9:15, 9:15] = False
    assert torch.equal(repair_mask(small, hole_share=0.002)[0] > 0, mask)
    assert repair_mask(small)[1].filled_frames == (0,)
    assert torch.equal(repair_mask(large, hole_share=0.002)[0] > 0, large)


def test_what_touches_the_border_is_no_hole() -> None:
    mask = torch.ones(8, 8, dtype=torch.bool)
    mask[0:3, 4] = False
    assert torch.equal(fill_holes(mask, 10), mask)
    mask[0, 4] = True
    assert fill_holes(mask, 10).all()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.integers(0, 3))
def test_repair_only_ever_adds(seed: int, reach: int) -> None:
    mask = torch.rand(5, 9, 11, generator=torch.Generator().manual_seed(seed)) < 0.4
    mended, repair = repair_mask(mask, frames=reach)
    assert (mended[mask] == 255).all()
    assert ((mended > 0) | ~mask).all()
    assert repair.added >= 0
