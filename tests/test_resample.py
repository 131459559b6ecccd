"""Resampling by time."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from regen_train.video import ResamplePlan, plan_resample, resample_indices, source_fps, trim_length
from regen_train.video.resample import resample_stream

ascending = st.lists(st.floats(0.001, 0.5), min_size=0, max_size=40).map(
    lambda steps: np.concatenate([[1.25], 1.25 + np.cumsum(steps)]) if steps else np.array([1.25])
)
rates = st.sampled_from([5.0, 7.5, 10.0, 16.0, 24000 / 1001, 25.0, 30.0])


@settings(max_examples=60, deadline=None)
@given(times=ascending, fps=rates)
def test_each_moment_shows_the_last_frame_that_has_appeared(times: np.ndarray, fps: float) -> None:
    elapsed = times - times[0]
    indices = resample_indices(times, fps)
    expected = []
    k = 0
    while k / fps <= elapsed[-1] + 1e-6:
        expected.append(int(np.searchsorted(elapsed, k / fps + 1e-6, "right")) - 1)
        k += 1
    assert indices.tolist() == expected


@settings(max_examples=60, deadline=None)
@given(times=ascending, fps=rates)
def test_a_stream_is_resampled_as_a_whole_clip_is(times: np.ndarray, fps: float) -> None:
    streamed = list(resample_stream(zip(times.tolist(), range(len(times)), strict=True), fps))
    assert streamed == resample_indices(times, fps).tolist()


def test_own_rate_keeps_every_frame() -> None:
    times = torch.arange(100, dtype=torch.float64) / 30
    assert resample_indices(times, 30).tolist() == list(range(100))
    assert resample_indices(times, 7.5).tolist() == list(range(0, 100, 4))


def test_a_variable_rate_is_read_by_time_and_not_by_number() -> None:
    times = [0.0, 0.01, 0.02, 0.03, 0.5, 1.0]
    assert resample_indices(times, 4).tolist() == [0, 3, 4, 4, 5]


@pytest.mark.parametrize(
    ("rate", "fps", "slow"),
    [(5, 7.5, True), (15, 16, True), (30000 / 1001, 30, False), (8, 7.5, False), (30, 16, False)],
)
def test_a_slow_source_is_told(rate: float, fps: float, slow: bool) -> None:
    plan = plan_resample(torch.arange(97, dtype=torch.float64) / rate, fps)
    assert plan.source_fps == pytest.approx(rate)
    assert plan.is_slow is slow
    assert plan.num_repeated == len(plan.indices) - len(set(plan.indices.tolist()))


def test_gaps_in_a_fast_source_are_told() -> None:
    times = torch.cat([torch.arange(60) / 60, 5 + torch.arange(600) / 60]).double()
    plan = plan_resample(times, 16)
    assert plan.source_fps is not None
    assert plan.source_fps > 16
    assert plan.is_slow


def test_a_single_frame_has_no_rate() -> None:
    plan = plan_resample([3.0], 16)
    assert plan.indices.tolist() == [0]
    assert plan.source_fps is None
    assert not plan.is_slow
    with pytest.raises(ValueError, match="two frames"):
        source_fps([3.0])


def test_repeats_mark_the_frames_that_bring_nothing_new() -> None:
    plan = ResamplePlan(indices=torch.tensor([0, 0, 1, 2, 2]), fps=7.5, source_fps=5.0)
    assert plan.repeats.tolist() == [False, True, False, False, True]


@pytest.mark.parametrize(
    ("times", "fps", "message"),
    [
        ([], 16, "at least one frame"),
        ([0.0, 0.2, 0.1], 16, "frame 2 is earlier"),
        ([0.0, float("nan")], 16, "finite"),
        ([0.0, 1.0], 0, "fps must be a positive"),
        ([0.0, 1.0], float("inf"), "fps must be a positive"),
    ],
)
def test_bad_times_are_refused(times: list[float], fps: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        resample_indices(times, fps)


@given(num_frames=st.integers(1, 500), factor=st.integers(1, 8))
def test_trimming_gives_the_longest_that_fits(num_frames: int, factor: int) -> None:
    length = trim_length(num_frames, factor)
    assert (length - 1) % factor == 0
    assert length <= num_frames < length + factor


def test_trimming_names_all_faults() -> None:
    with pytest.raises(ValueError, match=r"num_frames .* temporal_factor"):
        trim_length(0, 0)
