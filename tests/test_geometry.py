"""Resizing and cropping: pictures, masks and points agree, and nothing under a mask gets out."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from regen_train.video import map_keypoints, plan_crop, resize_and_crop, resize_frames, resize_mask_any

sizes = st.tuples(st.integers(5, 70), st.integers(5, 70))


@settings(max_examples=150, deadline=None)
@given(source=sizes, target=sizes, seed=st.integers(0, 2**16), dense=st.booleans())
def test_pixels_under_a_mask_cannot_be_seen_outside_the_resized_mask(
    source: tuple[int, int], target: tuple[int, int], seed: int, dense: bool
) -> None:
    generator = torch.Generator().manual_seed(seed)
    frames, noise = torch.randint(0, 256, (2, 2, *source, 3), generator=generator, dtype=torch.uint8)
    mask = torch.rand(2, *source, generator=generator) < (0.5 if dense else 0.02)
    changed = torch.where(mask[..., None], noise, frames)
    plan = plan_crop(*source, *target)
    outside = ~resize_mask_any(mask, plan)
    assert torch.equal(resize_frames(frames, plan)[outside], resize_frames(changed, plan)[outside])


@pytest.mark.parametrize(
    ("source", "target"), [((96, 160), (48, 80)), ((96, 160), (36, 60)), ((48, 80), (96, 160)), ((50, 90), (48, 80))]
)
def test_the_resized_mask_is_no_larger_than_the_filter(source: tuple[int, int], target: tuple[int, int]) -> None:
    """A single masked pixel reaches two pixels of the coarser grid to each side, and no farther."""
    mask = torch.zeros(1, *source, dtype=torch.bool)
    mask[0, source[0] // 2, source[1] // 2] = True
    plan = plan_crop(*source, *target)
    reach = 5 * max(plan.scale, 1)
    rows, columns = resize_mask_any(mask, plan)[0].nonzero().unbind(1)
    assert 1 <= rows.max() - rows.min() + 1 <= reach + 1
    assert 1 <= columns.max() - columns.min() + 1 <= reach + 1


def test_every_masked_pixel_survives_shrinking() -> None:
    mask = torch.zeros(1, 300, 400, dtype=torch.bool)
    mask[0, 150, 200] = True
    assert resize_mask_any(mask, plan_crop(300, 400, 15, 20)).any()


def test_at_scale_one_nothing_changes_but_the_crop() -> None:
    frames = torch.randint(0, 256, (3, 20, 34, 3), dtype=torch.uint8)
    mask = torch.rand(3, 20, 34) < 0.3
    plan = plan_crop(20, 34, 20, 30)
    assert torch.equal(resize_frames(frames, plan), frames[:, :, 2:32])
    assert torch.equal(resize_mask_any(mask, plan), mask[:, :, 2:32])
    assert plan.scale == 1


@given(source=sizes, target=sizes)
def test_a_plan_covers_the_target_and_cuts_the_middle(source: tuple[int, int], target: tuple[int, int]) -> None:
    plan = plan_crop(*source, *target)
    for axis in (0, 1):
        rest = plan.resized[axis] - target[axis]
        assert rest >= 0
        assert 0 <= rest - 2 * plan.offset[axis] <= 1
        # The proportions are kept to within rounding to whole pixels.
        assert abs(plan.resized[axis] - source[axis] * max(target[0] / source[0], target[1] / source[1])) <= 0.5 + 1e-9
    assert plan.resized[0] == target[0] or plan.resized[1] == target[1]


@pytest.mark.parametrize("target", [(48, 80), (96, 96), (200, 300), (100, 160)])
def test_points_move_with_the_picture(target: tuple[int, int]) -> None:
    frames = torch.zeros(1, 100, 160, 3, dtype=torch.uint8)
    frames[0, 38:43, 88:93] = 255
    plan = plan_crop(100, 160, *target)
    bright = resize_frames(frames, plan)[0, :, :, 0].double()
    rows, columns = torch.arange(target[0]).double(), torch.arange(target[1]).double()
    centre = torch.stack([(bright.sum(0) * columns).sum(), (bright.sum(1) * rows).sum()]) / bright.sum()
    mapped = map_keypoints(torch.tensor([[90.0, 40.0], [float("nan"), 1.0]]), plan)
    assert torch.allclose(mapped[0].double(), centre, atol=0.1)
    assert mapped[1, 0].isnan()


def test_shrinking_is_antialiased() -> None:
    stripes = torch.zeros(1, 64, 64, 3, dtype=torch.uint8)
    stripes[:, :, ::2] = 255
    shrunk = resize_and_crop(stripes, 16, 16)[:, 2:-2, 2:-2].int()
    assert (shrunk - 127).abs().max() <= 6


def test_gray_and_depth_are_resized_like_pictures() -> None:
    gray = torch.randint(0, 256, (2, 30, 50), dtype=torch.uint8)
    plan = plan_crop(30, 50, 16, 24)
    colour = resize_frames(gray[..., None].expand(-1, -1, -1, 3).contiguous(), plan)
    assert torch.equal(resize_frames(gray, plan), colour[..., 0])
    deep = (gray.int() * 200).to(torch.uint16)
    assert torch.allclose(
        resize_frames(deep, plan).float() / 200, resize_frames(gray.float(), plan).clamp(min=0), atol=0.01
    )


def test_no_frames_are_no_error() -> None:
    plan = plan_crop(10, 10, 4, 4)
    assert resize_frames(torch.zeros(0, 10, 10, 3, dtype=torch.uint8), plan).shape == (0, 4, 4, 3)
    assert resize_mask_any(torch.zeros(0, 10, 10, dtype=torch.bool), plan).shape == (0, 4, 4)


def test_faults_are_named() -> None:
    with pytest.raises(ValueError, match=r"height .*; width"):
        plan_crop(10, 10, 0, -1)
    with pytest.raises(ValueError, match=r"source of \(10, 10\).*got \(9, 10\)"):
        resize_frames(torch.zeros(1, 9, 10, 3, dtype=torch.uint8), plan_crop(10, 10, 4, 4))
