"""The mathematics of pose extraction: letterbox, anchors, overlaps, crops, decoding, tracks, boxes of masks."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regen_train.signals.pose.people import Tracker, boxes_of_mask
from regen_train.signals.pose.simcc import cut_crop, decode_simcc, plan_crops
from regen_train.signals.pose.yolox import decode_people, letterbox, suppress_overlaps

POSE_SIZE = (384, 288)


@given(height=st.integers(1, 300), width=st.integers(1, 300))
@settings(max_examples=40, deadline=None)
def test_letterbox_keeps_the_picture_whole_and_its_factors_true(height: int, width: int) -> None:
    frame = np.full((height, width, 3), (10, 20, 30), np.uint8)
    picture, factors = letterbox(frame, (96, 128))
    assert picture.shape == (3, 96, 128)
    inner = np.round(factors * [width, height]).astype(int)
    assert (inner >= 1).all()
    assert inner[0] == 128 or inner[1] == 96 or min(height, width) == 1 or abs(inner - [128, 96]).min() <= 1
    assert np.array_equal(picture[:, : inner[1], : inner[0]].reshape(3, -1).T, np.full((inner.prod(), 3), (30, 20, 10)))
    outside = picture.copy()
    outside[:, : inner[1], : inner[0]] = 114
    assert (outside == 114).all()


@pytest.mark.parametrize("stride", [8, 16, 32])
def test_anchors_of_each_stride_are_decoded(stride: int) -> None:
    size = (96, 160)
    grids = {each: (size[0] // each, size[1] // each) for each in (8, 16, 32)}
    output = np.zeros((sum(rows * columns for rows, columns in grids.values()), 85), np.float32)
    start = sum(rows * columns for each, (rows, columns) in grids.items() if each < stride)
    row, column = 1, 3
    anchor = start + row * grids[stride][1] + column
    output[anchor, :6] = (0.25, 0.5, np.log(2), np.log(3), 0.8, 0.5)
    output[anchor, 6] = 1  # a bicycle is no person
    boxes, scores = decode_people(output, size)
    centre = (column + 0.25) * stride, (row + 0.5) * stride
    expected = [centre[0] - stride, centre[1] - 1.5 * stride, centre[0] + stride, centre[1] + 1.5 * stride]
    np.testing.assert_allclose(boxes[anchor], expected, rtol=1e-5)
    assert scores[anchor] == pytest.approx(0.4)
    assert (np.delete(scores, anchor) == 0).all()


def test_a_detector_of_other_anchors_is_refused() -> None:
    with pytest.raises(ValueError, match=r"raw output \[n, 8400, 85\] for 640x640, got \[100, 6\]"):
        decode_people(np.zeros((100, 6), np.float32), (640, 640))


def test_the_surest_of_overlapping_boxes_is_kept() -> None:
    boxes = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [5, 0, 15, 10], [50, 50, 60, 60], [0, 0, 10, 10]], np.float32)
    scores = np.array([0.6, 0.9, 0.7, 0.3, 0.29], np.float32)
    kept, sure = suppress_overlaps(boxes, scores, min_score=0.3, max_iou=0.45)
    assert kept.tolist() == [boxes[1].tolist(), boxes[2].tolist(), boxes[3].tolist()]  # IoU of 1 and 2: 6 / 14
    np.testing.assert_allclose(sure, [0.9, 0.7, 0.3])
    none, _ = suppress_overlaps(boxes, scores, min_score=0.95, max_iou=0.45)
    assert none.shape == (0, 4)


@given(
    left=st.floats(-50, 400), top=st.floats(-50, 400), width=st.floats(2, 400), height=st.floats(2, 400),
)  # fmt: skip
@settings(max_examples=50, deadline=None)
def test_crops_hold_the_padded_box_at_the_models_aspect(left: float, top: float, width: float, height: float) -> None:
    crop = plan_crops(np.array([[left, top, left + width, top + height]]), POSE_SIZE)[0]
    assert crop[:2] == pytest.approx([left + width / 2, top + height / 2], abs=1e-6)
    assert crop[2] / crop[3] == pytest.approx(0.75)
    assert crop[2] >= 1.25 * width - 1e-6
    assert crop[3] >= 1.25 * height - 1e-6
    assert min(crop[2] - 1.25 * width, crop[3] - 1.25 * height) <= 1e-6


@given(x=st.integers(3, 90), y=st.integers(3, 180), box=st.tuples(st.floats(20, 90), st.floats(20, 180)))
@settings(max_examples=40, deadline=None)
def test_a_point_comes_back_from_its_crop_within_half_a_pixel(x: int, y: int, box: tuple[float, float]) -> None:
    """A portrait frame of odd size; the box is anywhere around the point."""
    frame = np.zeros((187, 95, 3), np.uint8)
    frame[y, x] = 255
    boxes = np.array([[x - 0.3 * box[0], y - 0.6 * box[1], x + 0.7 * box[0], y + 0.4 * box[1]]])
    crops = plan_crops(boxes, POSE_SIZE)
    picture = cut_crop(frame, crops[0], POSE_SIZE)[0]
    picture = picture - picture.min()
    columns, rows = (np.repeat(picture.max(axis), 2)[None, None] for axis in (0, 1))
    points, scores = decode_simcc(columns, rows, crops, POSE_SIZE)
    assert points[0, 0].tolist() == pytest.approx([x, y], abs=0.5)
    assert scores[0, 0] > 0


def test_crops_are_normalised_red_first_and_black_outside() -> None:
    frame = np.zeros((20, 20, 3), np.uint8)
    frame[..., 0] = 255
    picture = cut_crop(frame, plan_crops(np.array([[0.0, 0.0, 20.0, 20.0]]), POSE_SIZE)[0], POSE_SIZE)
    middle, corner = picture[:, 192, 144], picture[:, 0, 0]
    np.testing.assert_allclose(middle, [(255 - 123.675) / 58.395, -116.28 / 57.12, -103.53 / 57.375], rtol=1e-5)
    np.testing.assert_allclose(corner, [-123.675 / 58.395, -116.28 / 57.12, -103.53 / 57.375], rtol=1e-5)


def test_simcc_is_decoded_point_by_point_in_order() -> None:
    columns, rows = np.zeros((2, 133, 576), np.float32), np.zeros((2, 133, 768), np.float32)
    for point in range(133):
        columns[:, point, 4 * point] = 0.4 + 0.01 * (point % 7)
        rows[:, point, 5 * point + 1] = 0.9
    rows[1, 5, :] = -0.1
    columns[1, 6, 3] = 1.5
    rows[1, 6, 8] = 1.2
    crops = np.array([[144.0, 192.0, 288.0, 384.0], [10.0, 20.0, 144.0, 192.0]])
    points, scores = decode_simcc(columns, rows, crops, POSE_SIZE)
    numbers = np.arange(133)
    np.testing.assert_allclose(points[0], np.stack([2 * numbers, 2.5 * numbers + 0.5], axis=1), atol=1e-4)
    np.testing.assert_allclose(scores[0], 0.4 + 0.01 * (numbers % 7), rtol=1e-5)
    np.testing.assert_allclose(points[1, 100], [10 - 72 + 100, 20 - 96 + 125.25], atol=1e-4)
    assert np.isnan(points[1, 5]).all()
    assert scores[1, 5] == 0
    assert scores[1, 6] == 1
    np.testing.assert_allclose(points[1, 6], [10 - 72 + 0.75, 20 - 96 + 2], atol=1e-4)


def box(x: float, y: float = 0.0) -> list[float]:
    return [x, y, x + 10, y + 20]


def test_people_keep_their_number_while_they_cross_the_picture() -> None:
    tracker = Tracker()
    for step in range(20):
        tracks = tracker.assign(np.array([box(2.0 * step), box(200 - 2.0 * step, 50)]))
        assert tracks.tolist() == [0, 1]
    assert tracker.assign(np.array([box(160, 50), box(38), box(300)])).tolist() == [1, 0, 2]
    assert tracker.assign(np.zeros((0, 4))).tolist() == []
    assert tracker.assign(np.array([box(38)])).tolist() == [0]


def test_the_closest_pair_is_matched_first_and_nobody_twice() -> None:
    tracker = Tracker()
    tracker.assign(np.array([box(0)]))
    assert tracker.assign(np.array([box(4), box(1)])).tolist() == [1, 0]


def test_somebody_long_gone_is_new() -> None:
    tracker = Tracker()
    tracker.assign(np.array([box(0)]))
    for _ in range(20):
        tracker.assign(np.zeros((0, 4)))
    assert tracker.assign(np.array([box(0)])).tolist() == [1]


def test_masks_give_a_box_a_track_and_a_piece() -> None:
    mask = np.zeros((100, 200), np.uint8)
    mask[10:30, 5:15], mask[40:50, 5:25] = 2, 2
    mask[60:90, 100:120], mask[60:90, 150:160] = 255, 255
    mask[0, 199] = 255
    boxes, tracks = boxes_of_mask(mask, 255)
    assert boxes.tolist() == [[5, 10, 25, 50], [100, 60, 120, 90], [150, 60, 160, 90]]
    assert tracks.tolist() == [2, -1, -1]
    empty, nobody = boxes_of_mask(np.zeros((10, 10), np.uint8), 255)
    assert empty.shape == (0, 4)
    assert nobody.shape == (0,)
