"""Skeletons as the original tools draw them."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from regen_train.skeleton import SkeletonStyle, default_line_width, draw_pose

STYLES: tuple[SkeletonStyle, ...] = ("regenhuman", "vace", "controlnet")

# COCO's numbers and places of a person standing upright in 256 x 256; the picture's right is the person's left.
BODY = {
    0: (128, 40), 1: (136, 32), 2: (120, 32), 3: (146, 36), 4: (110, 36), 5: (160, 80), 6: (96, 80), 7: (180, 120),
    8: (76, 120), 9: (190, 160), 10: (66, 160), 11: (144, 150), 12: (112, 150), 13: (146, 200), 14: (110, 200),
    15: (146, 240), 16: (110, 240),
}  # fmt: skip


def person(points: dict[int, tuple[float, float]], *, score: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    keypoints = torch.full((1, 1, 133, 2), torch.nan)
    for number, place in points.items():
        keypoints[0, 0, number] = torch.tensor(place)
    return keypoints, torch.full((1, 1, 133), score)


def middle(first: tuple[float, float], second: tuple[float, float]) -> tuple[int, int]:
    """Row and column halfway between two points."""
    return round((first[1] + second[1]) / 2), round((first[0] + second[0]) / 2)


def colour(picture: torch.Tensor, place: tuple[int, int]) -> tuple[int, ...]:
    return tuple(picture[0, place[0], place[1]].tolist())


NECK = (128, 80)


@pytest.mark.parametrize("size", [256, 1024])
@pytest.mark.parametrize("style", ["regenhuman", "vace"])
def test_limbs_have_the_colours_vace_was_trained_on(style: SkeletonStyle, size: int) -> None:
    """Reversed against ControlNet's table, at 0.6 brightness."""
    scale = size // 256
    body = {number: (x * scale, y * scale) for number, (x, y) in BODY.items()}
    neck = (NECK[0] * scale, NECK[1] * scale)
    picture = draw_pose(*person(body), size, size, style, line_width=8)
    expected = {
        middle(neck, body[6]): (0, 0, 153),  # neck to right shoulder
        middle(neck, body[0]): (153, 0, 0),  # neck to nose
        middle(body[11], body[13]): (153, 102, 0),  # left thigh
        middle(neck, body[5]): (0, 51, 153),  # neck to left shoulder
        middle(body[12], body[14]): (51, 153, 0),  # right thigh
    }
    for place, limb in expected.items():
        assert colour(picture, place) == pytest.approx(limb, abs=12 if style == "vace" and size == 256 else 0)


def test_controlnet_has_the_colours_of_its_own_table() -> None:
    plain = draw_pose(*person(BODY), 256, 256, "controlnet", line_width=8)
    assert colour(plain, middle(NECK, BODY[6])) == (153, 0, 0)
    assert colour(plain, middle(NECK, BODY[0])) == (0, 0, 153)
    reversed_channels = draw_pose(*person(BODY), 256, 256, "regenhuman", line_width=8)
    assert torch.equal(plain.flip(-1), reversed_channels)


def test_joints_are_at_full_brightness_on_top_of_limbs() -> None:
    picture = draw_pose(*person(BODY), 256, 256)
    assert colour(picture, (40, 128)) == (0, 0, 255)  # nose: first colour of the table, reversed
    assert colour(picture, (80, 128)) == (0, 85, 255)  # neck
    assert colour(picture, (240, 146)) == (255, 0, 85)  # left ankle


def test_a_limb_is_as_wide_as_it_says() -> None:
    arm = {5: (50, 100), 6: (150, 100), 7: (250, 100)}
    for width in (4, 8, 16):
        drawn = draw_pose(*person({5: arm[5], 7: (50, 200)}), 256, 256, line_width=width)[0].amax(-1) > 0
        assert abs(int(drawn[150].sum()) - width) <= 1
        assert abs(int(drawn[96:100, :].any(0).sum()) - width) <= 2


def test_widths_of_the_original_tools() -> None:
    assert default_line_width("regenhuman", 480, 832) == 8
    assert default_line_width("vace", 480, 832) == 3.75
    assert default_line_width("vace", 1024, 1024) == 8
    assert default_line_width("controlnet", 480, 832) == 7.5
    implicit = draw_pose(*person(BODY), 256, 256, "controlnet")
    assert torch.equal(implicit, draw_pose(*person(BODY), 256, 256, "controlnet", line_width=4.0))


def test_the_neck_is_the_middle_of_two_seen_shoulders() -> None:
    both = draw_pose(*person({5: (160, 80), 6: (96, 80)}), 256, 256)[0].amax(-1)
    assert both[80, 128] == 255
    keypoints, scores = person({5: (160, 80), 6: (96, 80)})
    scores[0, 0, 6] = 0.29
    one = draw_pose(keypoints, scores, 256, 256)[0].amax(-1)
    assert one[80, 128] == 0
    assert one[80, 96] == 0
    assert one[80, 160] == 255


def test_points_the_extractor_doubts_are_not_drawn() -> None:
    assert draw_pose(*person(BODY, score=0.29), 256, 256).max() == 0
    assert draw_pose(*person(BODY, score=0.3), 256, 256).max() == 255


HAND = {91 + i: (60 + 6 * (i % 5), 60 + 5 * (i // 5)) for i in range(21)}
FACE = {23 + i: (120 + 2 * (i % 10), 120 + 2 * (i // 10)) for i in range(68)}


def test_hands_and_face() -> None:
    for style in STYLES:
        hands = draw_pose(*person(HAND), 256, 256, style)
        assert bool(hands.any()) is (style != "vace")
        face = draw_pose(*person(FACE), 256, 256, style, line_width=8)
        assert colour(face, (130, 130)) == (255, 255, 255)
    right = draw_pose(*person({number + 21: place for number, place in HAND.items()}), 256, 256)
    assert torch.equal(right, draw_pose(*person(HAND), 256, 256))
    red = draw_pose(*person({91: (30, 30)}), 64, 64)
    assert colour(red, (30, 30)) == (255, 0, 0)


def test_feet_are_not_drawn() -> None:
    assert not draw_pose(*person(dict.fromkeys(range(17, 23), (50, 50))), 100, 100).any()


def test_people_are_all_drawn_and_frames_stay_apart() -> None:
    keypoints = torch.full((3, 2, 133, 2), torch.nan)
    keypoints[0, 0, 0] = torch.tensor([20.0, 20.0])
    keypoints[0, 1, 0] = torch.tensor([60.0, 20.0])
    keypoints[2, 1, 0] = torch.tensor([20.0, 60.0])
    drawn = draw_pose(keypoints, torch.ones(3, 2, 133), 80, 80).amax(-1) > 0
    assert drawn[:, [20, 20, 60], [20, 60, 20]].tolist() == [[True, True, False], [False] * 3, [False, False, True]]


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**16),
    size=st.tuples(st.integers(16, 80), st.integers(16, 80)),
    people=st.integers(0, 3),
    style=st.sampled_from(STYLES),
    spread=st.sampled_from([1.0, 3.0, 1e6]),
)
def test_any_points_can_be_drawn_and_always_alike(
    seed: int, size: tuple[int, int], people: int, style: SkeletonStyle, spread: float
) -> None:
    """Far outside the picture, absent, or on top of each other."""
    generator = torch.Generator().manual_seed(seed)
    keypoints = (torch.rand(2, people, 133, 2, generator=generator) - 0.5) * spread * max(size)
    keypoints[torch.rand(2, people, 133, generator=generator) < 0.2] = torch.nan
    scores = torch.rand(2, people, 133, generator=generator)
    before = keypoints.clone()
    picture = draw_pose(keypoints, scores, *size, style)
    assert picture.shape == (2, *size, 3)
    assert picture.dtype == torch.uint8
    assert torch.equal(picture, draw_pose(keypoints, scores, *size, style))
    assert torch.equal(keypoints.nan_to_num(), before.nan_to_num())


def test_a_point_far_outside_is_left_out_with_its_limbs() -> None:
    picture = draw_pose(*person({11: (100, 100), 13: (1e9, 100)}), 256, 256)
    assert picture.any()
    assert not picture[:, :, 120:].any()


def test_a_limb_that_leaves_the_picture_is_cut_at_its_edge() -> None:
    picture = draw_pose(*person({11: (100, 100), 13: (400, 100)}), 256, 256)
    assert picture[0, 100, 255].any()


@pytest.mark.parametrize("style", STYLES)
def test_thin_lines_are_still_lines(style: SkeletonStyle) -> None:
    assert draw_pose(*person(BODY), 256, 256, style, line_width=0.3).any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"keypoints": torch.zeros(1, 1, 17, 2)}, r"keypoints must be float \[t, p, 133, 2\]"),
        ({"scores": torch.zeros(1, 2, 133)}, r"scores must be float \[1, 1, 133\]"),
        ({"height": 0, "width": -1}, "height must be at least 1, got 0; width must be at least 1, got -1"),
        ({"line_width": 0}, "line_width must be a positive"),
        ({"line_width": float("nan")}, "line_width must be a positive"),
    ],
)
def test_faults_are_named(arguments: dict[str, Any], message: str) -> None:
    defaults = {"keypoints": torch.zeros(1, 1, 133, 2), "scores": torch.zeros(1, 1, 133), "height": 8, "width": 8}
    with pytest.raises(ValueError, match=message):
        draw_pose(**{**defaults, **arguments})
