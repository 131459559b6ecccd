"""Depth on one scale: flicker goes, what moves does not count, nothing drifts away."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from regen_train.signals.depth.alignment import fit_scale_shift, sample_points, statistics_of
from regen_train.signals.depth.running import MAX_DRIFT, FrameAligner, join_windows

HEIGHT, WIDTH = 36, 65
SCALES = st.floats(0.1, 10)
SHIFTS = st.floats(-20, 20)


def background(seed: int = 0) -> Tensor:
    rows, columns = torch.meshgrid(torch.linspace(0, 1, HEIGHT), torch.linspace(0, 1, WIDTH), indexing="ij")
    return 3 * rows + torch.sin(9 * columns + seed) + torch.cos(5 * rows * (seed + 1))


def with_person(depth: Tensor, left: int, near: float = 8.0, width: int = 22) -> Tensor:
    """Somebody near, on a quarter of the picture or more."""
    shown = depth.clone()
    shown[8:, left : left + width] = near
    return shown


def outside_person(left: int, width: int = 22) -> Tensor:
    return with_person(torch.zeros(HEIGHT, WIDTH), left, 1.0, width) == 0


@settings(max_examples=25, deadline=None)
@given(flicker=st.lists(st.tuples(SCALES, SHIFTS), min_size=2, max_size=6), seed=st.integers(0, 5))
def test_affine_flicker_of_one_depth_is_removed(flicker: list[tuple[float, float]], seed: int) -> None:
    aligner = FrameAligner()
    frames = [aligner.align(scale * background(seed) + shift) for scale, shift in flicker]
    spread = statistics_of(sample_points(frames[0][None])).spread
    for frame in frames[1:]:
        assert (frame - frames[0]).abs().max() < 2e-4 * spread


@settings(max_examples=15, deadline=None)
@given(scale=SCALES, shift=SHIFTS, left=st.integers(0, 40), near=st.floats(4, 30))
def test_a_person_who_moves_does_not_move_the_background(scale: float, shift: float, left: int, near: float) -> None:
    aligner = FrameAligner()
    first = aligner.align(with_person(background(), 0, 8.0))
    second = aligner.align(scale * with_person(background(), left, near) + shift)
    still = outside_person(0) & outside_person(left)
    assert (second - first)[still].abs().max() < 0.02 * statistics_of(sample_points(first[None])).spread


def test_a_resting_background_rests_for_a_long_time_in_bounded_memory() -> None:
    aligner, generator = FrameAligner(), torch.Generator().manual_seed(0)
    first = aligner.align(background())
    for number in range(300):
        scale, shift = torch.rand(2, generator=generator).tolist()
        left = 2 * number % 40
        noisy = with_person(background(), left) + 0.02 * torch.randn(HEIGHT, WIDTH, generator=generator)
        frame = aligner.align((scale + 0.2) * noisy + 9 * shift)
    still = outside_person(left)
    assert (frame - first)[still].abs().mean() < 0.05
    held = [value for value in vars(aligner).values() if isinstance(value, np.ndarray)]
    assert 0 < sum(points.size for points in held) <= 2 * 4096


def test_the_scale_does_not_shrink_while_the_camera_moves_on() -> None:
    """Least squares would end near a tenth: noise and motion flatten its slope at every key frame."""
    ratios = []
    for seed in range(4):
        generator = torch.Generator().manual_seed(seed)
        wall = torch.nn.functional.interpolate(
            torch.randn(1, 1, 4, 40, generator=generator), (HEIGHT, 2000), mode="bicubic"
        )[0, 0]
        aligner = FrameAligner()
        for number in range(200):
            noise = 0.1 * torch.randn(HEIGHT, WIDTH, generator=generator)
            view = wall[:, 4 * number : 4 * number + WIDTH] + noise
            aligned = aligner.align(view * (1 + number % 3))
        ratios.append(float(aligned.std() / view.std()))
    assert 0.5 < float(np.exp(np.mean(np.log(ratios)))) < 2


def test_unrelated_frames_take_over_the_statistics_of_the_first() -> None:
    aligner = FrameAligner()
    first = statistics_of(sample_points(aligner.align(background())[None]))
    noise = torch.randn(HEIGHT, WIDTH, generator=torch.Generator().manual_seed(1))
    found = statistics_of(sample_points(aligner.align(500 * noise - 1000)[None]))
    assert found.median == pytest.approx(first.median, abs=1e-3)
    assert found.spread == pytest.approx(first.spread, rel=1e-3)


def test_drift_has_an_end() -> None:
    """Three quarters of the picture stay from frame to frame, so that every fit follows them, and all of it grows."""
    aligner, depth, generator = FrameAligner(), background(), torch.Generator().manual_seed(0)
    first = statistics_of(sample_points(aligner.align(depth)[None]))
    spreads = []
    for _ in range(60):
        depth = depth * torch.where(torch.rand(WIDTH, generator=generator) < 0.25, 1.5, 1.0)
        found = statistics_of(sample_points(aligner.align(depth)[None]))
        spreads.append(found.spread / first.spread)
        assert abs(found.median - first.median) <= 1.01 * MAX_DRIFT * first.spread
    assert min(spreads) >= 0.99 / MAX_DRIFT
    assert 5 < max(spreads) <= 1.01 * MAX_DRIFT


@pytest.mark.parametrize("order", [("flat", "deep", "deep"), ("deep", "flat", "deep"), ("flat", "flat", "flat")])
def test_frames_without_depth_break_nothing(order: tuple[str, ...]) -> None:
    aligner = FrameAligner()
    frames = [aligner.align(torch.full((HEIGHT, WIDTH), 3.0) if kind == "flat" else background()) for kind in order]
    assert all(bool(frame.isfinite().all()) for frame in frames)
    if order[-2:] == ("flat", "deep"):
        torch.testing.assert_close(frames[2], frames[0], rtol=1e-4, atol=1e-4)


def test_half_a_picture_of_sky_does_not_hide_the_scale() -> None:
    ground = background().clamp(min=1.0)
    ground[: HEIGHT // 2 + 2] = 0.0
    source, reference = (sample_points(depth[None]) for depth in (ground, 3 * ground))
    assert fit_scale_shift(source, reference).scale == pytest.approx(3, rel=1e-6)


@given(height=st.integers(1, 400), width=st.integers(1, 400), frames=st.integers(1, 12))
@settings(max_examples=40, deadline=None)
def test_points_are_few_and_never_none(height: int, width: int, frames: int) -> None:
    depth = torch.zeros(1, 1, 1).expand(frames, height, width)
    count = len(sample_points(depth))
    assert 1 <= count <= 4096
    assert count == depth.numel() or depth.numel() > 4096


def overlapping(clip: Tensor, size: int, overlap: int) -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(0)
    for start in range(0, max(1, len(clip) - overlap), size - overlap):
        scale, shift = torch.rand(2, generator=generator).tolist()
        yield (0.2 + 3 * scale) * clip[start : start + size] + 5 * shift


@settings(max_examples=25, deadline=None)
@given(length=st.integers(1, 40), size=st.integers(2, 12), overlap=st.integers(1, 5))
def test_windows_are_joined_on_one_scale_each_frame_once(length: int, size: int, overlap: int) -> None:
    overlap = min(overlap, size - 1)
    clip = torch.stack([background() + 0.05 * number * background(1) for number in range(length)])
    windows = list(join_windows(overlapping(clip, size, overlap), overlap))
    joined = torch.cat(windows)
    assert joined.shape == clip.shape
    first = next(overlapping(clip, size, overlap))
    scale = (first[0].max() - first[0].min()) / (clip[0].max() - clip[0].min())
    expected = scale * clip + (first[0].min() - scale * clip[0].min())
    assert (joined - expected).abs().max() < 1e-3 * (expected.max() - expected.min())
    assert max(len(window) for window in windows) <= size


def test_windows_are_cross_faded_where_they_overlap() -> None:
    """What only one of two windows sees in a shared frame fades over from the one to the other."""
    first, second = background().repeat(5, 1, 1), 2 * background().repeat(5, 1, 1) + 1
    second[:3, 10:13, 10:13] += 8  # 4 on the scale of the first
    joined = torch.cat(list(join_windows([first, second], 3)))
    assert joined.shape == (7, HEIGHT, WIDTH)
    bump = (joined - background())[:, 11, 11]
    torch.testing.assert_close(bump, torch.tensor([0, 0, 1, 2, 3, 0, 0.0]), rtol=1e-3, atol=1e-3)
