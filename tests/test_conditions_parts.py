"""Masks, fills, depth and edges: what the conditions are made of."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from regen_train.conditions import (
    GRAY,
    default_dilation,
    dilate,
    edges,
    fill_people,
    normalize_depth,
    pose_support,
    struct_all,
)
from regen_train.skeleton import draw_pose


def random_people(seed: int, num_frames: int, height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    keypoints = torch.rand(num_frames, 2, 133, 2, generator=generator) * torch.tensor([width, height])
    return keypoints, torch.rand(num_frames, 2, 133, generator=generator)


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
