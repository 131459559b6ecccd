"""What all mask extractors are made of: windows, the canvas, filled holes."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from regen_train.signals.mask.canvas import Canvas
from regen_train.signals.mask.holes import fill_holes
from regen_train.signals.mask.logits import masks_of_logits
from regen_train.signals.mask.sam2 import explained
from regen_train.signals.mask.windows import OVERLAP, mask_windows
from regen_train.video import write_video

LABELS = arrays.arrays(np.uint8, (2, 9, 11), elements=st.sampled_from([0, 0, 1, 2, 255]), fill=st.nothing())


def some_clip(folder: Path, num_frames: int) -> Path:
    """A clip whose frame n has the colour 10 n."""
    frames = 10 * torch.arange(num_frames, dtype=torch.uint8)[:, None, None, None].expand(-1, 16, 24, 3)
    write_video(folder / "clip.mkv", frames.contiguous(), 10, codec="ffv1")
    return folder / "clip.mkv"


def box(top: int, left: int, bottom: int, right: int) -> torch.Tensor:
    mask = torch.zeros(20, 20, dtype=torch.bool)
    mask[top:bottom, left:right] = True
    return mask


# --- windows


@pytest.mark.parametrize("num_frames", [1, 3, 4, 5, 7, 8, 13])
@pytest.mark.parametrize("window", [5, 8])
def test_windows_cover_the_clip_once_and_in_order(tmp_path, num_frames, window):
    seen: list[list[int]] = []

    def find(frames, canvas):
        numbers = [round(float(frame.mean()) / 10) for frame in frames]
        seen.append(numbers)
        for place, number in enumerate(numbers):
            canvas.labels[place] = number + 1

    clip = some_clip(tmp_path, num_frames)
    masks = list(mask_windows(clip, find, window=window, max_frames=None, max_hole=0.0))
    assert torch.cat(masks)[:, 3, 3].tolist() == list(range(1, num_frames + 1))
    assert all(0 < len(part) <= window for part in masks)
    assert all(len(numbers) <= window for numbers in seen)
    assert all(last[-OVERLAP:] == following[:OVERLAP] for last, following in itertools.pairwise(seen))


def test_a_prefix_of_a_clip_may_be_asked_for(tmp_path):
    clip = some_clip(tmp_path, 9)
    masks = mask_windows(clip, lambda frames, canvas: None, window=6, max_frames=7, max_hole=0.0)
    assert sum(len(part) for part in masks) == 7


def test_both_windows_paint_the_frames_they_share_and_tracks_go_on(tmp_path):
    number = 0

    def find(frames, canvas):
        nonlocal number
        for frame in range(len(frames)):
            canvas.paint(frame, torch.ones(16, 24, dtype=torch.bool).tril(-8), (number, "left"))
            if number == 1:  # somebody whom the first window missed
                canvas.paint(frame, torch.ones(16, 24, dtype=torch.bool).triu(12), "right")
        number += 1

    masks = torch.cat(list(mask_windows(some_clip(tmp_path, 8), find, window=6, max_frames=None, max_hole=0.0)))
    assert masks[:, 15, 0].tolist() == [1] * 8
    assert masks[:, 0, 23].tolist() == [0] * 2 + [2] * 6


def test_a_window_must_be_larger_than_what_windows_share(tmp_path):
    with pytest.raises(ValueError, match="window must be at least 5 frames, of which 4 are shared; got 4"):
        next(mask_windows(some_clip(tmp_path, 2), lambda *_: None, window=4, max_frames=None, max_hole=0.0))


# --- who is who


def test_the_union_loses_no_pixel_and_contested_ones_are_of_unknown_track():
    canvas = Canvas(torch.zeros(1, 20, 20, dtype=torch.uint8))
    parts = [box(0, 0, 10, 10), box(7, 0, 17, 10), box(0, 8, 5, 20)]
    for name, mask in enumerate(parts):
        canvas.paint(0, mask, name)
    labels = canvas.labels[0]
    assert torch.equal(labels > 0, parts[0] | parts[1] | parts[2])
    assert [int(labels[place]) for place in [(3, 3), (15, 3), (2, 15)]] == [1, 2, 3]
    assert (labels == 255).equal((parts[0] & parts[1]) | (parts[0] & parts[2]))


def test_somebody_found_twice_is_one_track():
    canvas = Canvas(torch.zeros(2, 20, 20, dtype=torch.uint8))
    canvas.paint(0, box(0, 0, 10, 10), "person 1")
    canvas.paint(0, box(1, 0, 11, 10), "human 1")
    canvas.paint(1, box(10, 10, 20, 20), "human 1")
    assert canvas.labels.unique().tolist() == [0, 1]
    assert canvas.tracks_on(1) == [1]


def test_what_is_not_tracked_takes_the_track_below_or_none():
    canvas = Canvas(torch.zeros(1, 20, 20, dtype=torch.uint8))
    canvas.paint(0, box(0, 0, 10, 10), 0)
    canvas.paint(0, box(0, 0, 12, 10))
    canvas.paint(0, box(8, 8, 18, 18))
    assert [int(canvas.labels[0][place]) for place in [(11, 5), (9, 9), (15, 15)]] == [1, 1, 255]


def test_nobody_is_lost_when_tracks_run_out():
    canvas = Canvas(torch.zeros(1, 20, 20, dtype=torch.uint8), next_track=254)
    for number in range(3):
        canvas.paint(0, box(0, 5 * number, 20, 5 * number + 4), number)
    assert canvas.labels[0, 0, [0, 5, 10]].tolist() == [254, 255, 255]
    assert canvas.next_track == 256


def test_an_empty_mask_starts_no_track():
    canvas = Canvas(torch.zeros(1, 20, 20, dtype=torch.uint8))
    canvas.paint(0, box(0, 0, 0, 0), "nobody")
    canvas.paint(0, box(0, 0, 5, 5), "somebody")
    assert canvas.labels.unique().tolist() == [0, 1]


# --- holes


@given(LABELS, st.floats(0, 1))
@settings(max_examples=100, deadline=None)
def test_filling_holes_only_adds_and_once_is_enough(labels, share):
    before = torch.from_numpy(labels)
    after = fill_holes(before, share)
    assert torch.equal(after[before > 0], before[before > 0])
    assert torch.equal(fill_holes(after, share), after)
    border = torch.ones_like(after[0], dtype=torch.bool)
    border[1:-1, 1:-1] = False
    assert torch.equal(after[:, border], before[:, border])


@given(LABELS, st.floats(0, 1), st.floats(0, 1))
@settings(max_examples=100, deadline=None)
def test_a_larger_mask_or_limit_fills_no_less(labels, first, second):
    some = torch.from_numpy(labels)
    more = some.clone()
    more[:, 2:5, 3:8] = 1
    low, high = sorted([first, second])
    assert not ((fill_holes(some, low) > 0) & (fill_holes(some, high) == 0)).any()
    assert not ((fill_holes(some, high) > 0) & (fill_holes(more, high) == 0)).any()


@given(LABELS, st.floats(0, 1))
@settings(max_examples=50, deadline=None)
def test_holes_do_not_depend_on_how_the_frame_lies(labels, share):
    frame = torch.from_numpy(labels)
    assert torch.equal(fill_holes(frame.flip(1), share), fill_holes(frame, share).flip(1))
    assert torch.equal(fill_holes(frame.mT.contiguous(), share), fill_holes(frame, share).mT)


def test_a_hole_is_filled_up_to_a_size_with_the_track_around_it():
    labels = torch.zeros(1, 20, 40, dtype=torch.uint8)
    labels[0, 2:10, 2:12], labels[0, 4:6, 4:6] = 7, 0
    labels[0, 2:10, 20:24], labels[0, 2:10, 24:30], labels[0, 4:6, 23:25] = 1, 2, 0
    filled = fill_holes(labels, 4 / 800)
    assert filled[0, 4:6, 4:6].eq(7).all()
    assert filled[0, 4:6, 23:25].eq(255).all()
    assert torch.equal(fill_holes(labels, 3 / 800), labels)


def test_a_bay_at_the_frames_border_is_no_hole():
    labels = torch.ones(1, 6, 6, dtype=torch.uint8)
    labels[0, 0:2, 2] = 0
    assert torch.equal(fill_holes(labels, 1.0), labels)


def test_a_gap_between_two_who_touch_at_a_corner_is_a_hole():
    labels = torch.ones(1, 6, 6, dtype=torch.uint8)
    labels[0, 2, 2], labels[0, 1, 1], labels[0, 0, 0] = 0, 0, 0
    filled = fill_holes(labels, 0.5)
    assert (filled == 0).nonzero().tolist() == [[0, 0, 0]]


# --- logits and boxes


def test_logits_are_kept_from_the_threshold_on():
    logits = torch.tensor([[[-0.9, -0.8], [0.0, 5.0]]])
    assert masks_of_logits(logits, (2, 2), 0.3)[0].tolist() == [[False, True], [True, True]]
    assert masks_of_logits(logits, (2, 2), 0.6)[0].tolist() == [[False, False], [False, True]]
    assert masks_of_logits(logits, (6, 8), 0.5).shape == (1, 6, 8)
    with pytest.raises(ValueError, match="mask_threshold must be above 0 and below 1, got 1"):
        masks_of_logits(logits, (2, 2), 1.0)


def test_each_person_explains_one_box():
    known = torch.tensor([[0.0, 0, 10, 20], [50, 0, 60, 20]])
    boxes = torch.tensor([[0.0, 0, 12, 20], [1, 0, 10, 20], [50, 0, 60, 9], [80, 80, 90, 90]])
    # the second fits the first person best, so that the first box is somebody else's; half of a person is not enough
    assert explained(boxes, known).tolist() == [False, True, False, False]
    assert explained(boxes, known[:0]).tolist() == [False] * 4
