"""No human pixel gets through: the conditions and the order in which they are made."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from regen_train.conditions import (
    GRAY,
    default_dilation,
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


# --- masks and fills


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**16), radius=st.sampled_from([0, 1, 2, 3.5, 5]), share=st.sampled_from([0.0, 0.01, 0.2]))
def test_dilation_reaches_exactly_as_far_as_it_says(seed: int, radius: float, share: float) -> None:
    mask = torch.rand(2, 17, 23, generator=torch.Generator().manual_seed(seed)) < share
    grown = dilate(mask, radius)
    rows, columns = torch.meshgrid(torch.arange(17), torch.arange(23), indexing="ij")
    for frame, result in zip(mask, grown, strict=True):
        expected = torch.zeros_like(frame)
        for row, column in frame.nonzero().tolist():
            expected |= (rows - row) ** 2 + (columns - column) ** 2 <= radius**2
        assert torch.equal(result, expected)


@pytest.mark.parametrize(
    ("size", "pixels"),
    [
        ((720, 1280), 11),
        ((1280, 720), 11),
        ((1080, 1920), 17),
        ((534, 800), 9),
        ((533, 800), 8),
        ((480, 640), 8),
        ((256, 256), 8),
        ((255, 400), 4),
        ((240, 320), 4),
        ((64, 64), 1),
    ],
)
def test_default_dilation(size: tuple[int, int], pixels: int) -> None:
    assert default_dilation(*size) == pixels


def test_fills() -> None:
    frames = torch.zeros(2, 2, 2, 3, dtype=torch.uint8)
    frames[0, 0] = torch.tensor([[10, 20, 30], [11, 20, 33]])
    frames[1] = 200
    mask = torch.tensor([[[False, False], [True, True]], [[True, True], [True, True]]])
    assert fill_people(frames, mask)[0, 1].unique().tolist() == [GRAY]
    assert fill_people(frames, mask, 7)[0, 1].unique().tolist() == [7]
    mean = fill_people(frames, mask, "background_mean")
    assert mean[0, 1].tolist() == [[11, 20, 32]] * 2
    assert mean[1].unique().tolist() == [GRAY]
    assert torch.equal(mean[0, 0], frames[0, 0])
    assert fill_people(frames[..., 0], mask, "background_mean")[0].tolist() == [[10, 11], [11, 11]]


def test_pose_support_takes_the_brightest_channel() -> None:
    pose = torch.tensor([[[[0, 0, 0], [0, 0, 11], [10, 10, 10], [0, 0, 153]]]], dtype=torch.uint8)
    assert pose_support(pose).tolist() == [[[False, True, False, True]]]
    assert pose_support(pose, 100).tolist() == [[[False, False, False, True]]]


@pytest.mark.parametrize("style", ["regenhuman", "controlnet"])
def test_every_stroke_of_a_hard_drawing_is_support(style: str) -> None:
    pose = draw_pose(*random_people(0, 1, 100, 100), 100, 100, style)
    assert torch.equal(pose_support(pose), pose.amax(-1) > 0)
    assert torch.equal(pose_support(pose), pose_support(pose, 152))


# --- depth


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.float32])
@pytest.mark.parametrize("mode", ["clip", "frame"])
def test_depth_spans_the_background(dtype: torch.dtype, mode: str) -> None:
    depth = torch.tensor([[[100, 150, 200, 250]], [[100, 110, 120, 5]]]).to(dtype)
    mask = torch.tensor([[[False, False, False, True]], [[False, False, False, True]]])
    expected = {"clip": [[0, 127, 255, 255], [0, 25, 51, 0]], "frame": [[0, 127, 255, 255], [0, 127, 255, 0]]}
    assert normalize_depth(depth, mask, mode)[:, 0].tolist() == expected[mode]


@pytest.mark.parametrize("mode", ["clip", "frame"])
def test_depth_where_nothing_but_people_is_seen(mode: str) -> None:
    depth = torch.rand(3, 4, 5)
    mask = torch.zeros(3, 4, 5, dtype=torch.bool)
    mask[1] = True
    result = normalize_depth(depth, mask, mode)
    if mode == "frame":
        assert result[1].unique().tolist() == [GRAY]
    assert result[0].max() == 255 or result[2].max() == 255
    assert normalize_depth(depth, torch.ones_like(mask), mode).unique().tolist() == [GRAY]
    assert normalize_depth(torch.ones(1, 2, 2), torch.zeros(1, 2, 2, dtype=torch.bool), mode).unique().tolist() == [0]


def test_depth_mean_ignores_people() -> None:
    depth = torch.full((1, 4, 4), 40, dtype=torch.uint8)
    depth[0, :2] = 250
    mask = torch.zeros(1, 4, 4, dtype=torch.bool)
    mask[0, :2] = True
    pose = torch.zeros(1, 4, 4, 3, dtype=torch.uint8)
    assert struct_all(depth, mask, pose, "depth_mean").unique().tolist() == [40]


def test_edges_are_found_in_the_background_only() -> None:
    frames = torch.full((1, 64, 64, 3), GRAY, dtype=torch.uint8)
    frames[0, :, 40:] = 255
    frames[0, 20:30, 5:20] = 0
    mask = torch.zeros(1, 64, 64, dtype=torch.bool)
    mask[0, 10:40, 0:30] = True
    lines = edges(fill_people(frames, mask))
    assert lines[0, :, 38:42].any()
    assert not lines[0, :, :37].any()
    assert set(lines.unique().tolist()) == {0, 255}


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
