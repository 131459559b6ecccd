"""No human pixel gets through: the conditions and the order in which they are made."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from regen_train.conditions import (
    GRAY,
    depth_without_people,
    dilate,
    edges,
    fill_people,
    normalize_depth,
    pose_support,
    struct_all,
    struct_human,
)
from regen_train.skeleton import default_line_width, draw_pose
from regen_train.video import map_keypoints, plan_crop, resize_frames, resize_mask_any

sizes = st.tuples(st.integers(16, 64), st.integers(16, 64))


def random_clip(seed: int, num_frames: int, height: int, width: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Frames, blobs for people, and depth."""
    generator = torch.Generator().manual_seed(seed)
    frames = torch.randint(0, 256, (num_frames, height, width, 3), generator=generator, dtype=torch.uint8)
    coarse = torch.rand(num_frames, 1, 4, 4, generator=generator)
    mask = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bilinear")[:, 0] > 0.7
    depth = torch.randint(0, 60000, (num_frames, height, width), generator=generator, dtype=torch.int32)
    return frames, mask, depth.to(torch.uint16)


def random_people(seed: int, num_frames: int, height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    keypoints = torch.rand(num_frames, 2, 133, 2, generator=generator) * torch.tensor([width, height])
    return keypoints, torch.rand(num_frames, 2, 133, generator=generator)


def make_conditions(
    frames: torch.Tensor, mask: torch.Tensor, depth: torch.Tensor, people: tuple[torch.Tensor, torch.Tensor],
    size: tuple[int, int], *, human_fill: str, depth_fill: str, mode: str, radius: int,
) -> dict[str, torch.Tensor]:  # fmt: skip
    """Run the whole order: dilate, fill, resize, fill again, draw."""
    plan = plan_crop(frames.shape[1], frames.shape[2], *size)
    grown = dilate(mask, radius)
    gray = normalize_depth(depth, grown, mode)
    small = resize_frames(fill_people(frames, grown, human_fill), plan)
    small_depth = resize_frames(depth_without_people(gray, grown, depth_fill), plan)
    small_mask = resize_mask_any(grown, plan)
    width = max(1.0, default_line_width("regenhuman", frames.shape[1], frames.shape[2]) * plan.scale / 8)
    pose = draw_pose(map_keypoints(people[0], plan), people[1], *size, line_width=width)
    return {
        "structhuman": struct_human(small, small_mask, pose, human_fill),
        "structall": struct_all(small_depth, small_mask, pose, depth_fill),
        "background": fill_people(small, small_mask, human_fill),
        "depth": depth_without_people(small_depth, small_mask, depth_fill),
        "edges": edges(fill_people(small, small_mask, human_fill)),
        "pose": pose,
        "mask": small_mask,
    }


@settings(max_examples=40, deadline=None)
@given(
    source=sizes,
    target=sizes,
    seed=st.integers(0, 2**16),
    human_fill=st.sampled_from(["gray", "background_mean"]),
    depth_fill=st.sampled_from(["gray", "depth_mean"]),
    mode=st.sampled_from(["clip", "frame"]),
    radius=st.integers(0, 3),
)
def test_noise_under_the_mask_changes_no_bit_of_any_condition(
    source: tuple[int, int],
    target: tuple[int, int],
    seed: int,
    human_fill: str,
    depth_fill: str,
    mode: str,
    radius: int,
) -> None:
    frames, mask, depth = random_clip(seed, 2, *source)
    noise, _, noise_depth = random_clip(seed + 1, 2, *source)
    people = random_people(seed, 2, *source)
    options = {"human_fill": human_fill, "depth_fill": depth_fill, "mode": mode, "radius": radius}
    changed = torch.where(mask[..., None], noise, frames)
    changed_depth = torch.where(mask, noise_depth.int(), depth.int()).to(torch.uint16)
    before = make_conditions(frames, mask, depth, people, target, **options)
    after = make_conditions(changed, mask, changed_depth, people, target, **options)
    for name, video in before.items():
        assert torch.equal(video, after[name]), name


@settings(max_examples=20, deadline=None)
@given(size=sizes, seed=st.integers(0, 2**16))
def test_outside_mask_and_skeleton_structhuman_is_the_source(size: tuple[int, int], seed: int) -> None:
    frames, mask, _ = random_clip(seed, 2, *size)
    pose = draw_pose(*random_people(seed, 2, *size), *size, line_width=1.5)
    drawn = pose_support(pose)
    result = struct_human(frames, mask, pose)
    assert torch.equal(result[~mask & ~drawn], frames[~mask & ~drawn])
    assert torch.equal(result[drawn], pose[drawn])
    assert bool((result[mask & ~drawn] == GRAY).all())


@settings(max_examples=20, deadline=None)
@given(size=sizes, seed=st.integers(0, 2**16), style=st.sampled_from(["regenhuman", "vace", "controlnet"]))
def test_structall_is_gray_wherever_no_skeleton_is_drawn(size: tuple[int, int], seed: int, style: str) -> None:
    _, mask, depth = random_clip(seed, 2, *size)
    gray = normalize_depth(depth, mask)
    pose = draw_pose(*random_people(seed, 2, *size), *size, style, line_width=1.5)
    result = struct_all(gray, mask, pose)
    outside = result[~pose_support(pose)]
    assert torch.equal(outside[:, :1].expand(-1, 3), outside)
    assert torch.equal(result[~pose_support(pose) & ~mask][:, 0], gray[~pose_support(pose) & ~mask])
    assert torch.equal(struct_all(gray[..., None].expand(-1, -1, -1, 3).contiguous(), mask, pose), result)


# --- what is refused


def frames_of(num_frames: int, *, dtype: torch.dtype = torch.uint8) -> torch.Tensor:
    return torch.zeros(num_frames, 8, 8, 3, dtype=dtype)


MASK = torch.zeros(2, 8, 8, dtype=torch.bool)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: struct_human(frames_of(2).float(), MASK.byte(), frames_of(2)),
            "frames must be uint8.*mask must be bool",
        ),
        (lambda: struct_human(frames_of(2), MASK[:1], frames_of(3)), "same frames, height and width"),
        (lambda: struct_human(frames_of(2)[..., :1], MASK, frames_of(2)), r"frames must be uint8 \[t, h, w, 3\]"),
        (lambda: struct_all(torch.randint(0, 255, (2, 8, 8, 3), dtype=torch.uint8), MASK, frames_of(2)), "three equal"),
        (lambda: struct_all(torch.zeros(2, 8, 8), MASK, frames_of(2)), "depth must be uint8"),
        (lambda: normalize_depth(torch.full((2, 8, 8), float("nan")), MASK), "finite, but 128 values are not"),
        (lambda: fill_people(frames_of(2), MASK, 256), "fill must be"),
        (lambda: dilate(MASK, -1), "radius must be at least 0"),
    ],
)
def test_faults_are_named(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    "call",
    [
        lambda: struct_human(frames_of(2), MASK, frames_of(2), "depth_mean"),
        lambda: struct_all(frames_of(2), MASK, frames_of(2), "background_mean"),
        lambda: normalize_depth(torch.zeros(2, 8, 8), MASK, "video"),
    ],
)
def test_unknown_choices_are_refused(call: Callable[[], object]) -> None:
    """By the functions themselves, or by the type checker that the tests run under."""
    with pytest.raises((ValueError, TypeError), match=r"fill|mode"):
        call()


def test_no_frames_are_no_error() -> None:
    empty, mask = frames_of(0), MASK[:0]
    assert struct_human(empty, mask, empty, "background_mean").shape == (0, 8, 8, 3)
    assert dilate(mask, 3).shape == (0, 8, 8)
    assert edges(empty).shape == (0, 8, 8, 3)
    assert np.prod(normalize_depth(empty[..., 0], mask).shape) == 0
