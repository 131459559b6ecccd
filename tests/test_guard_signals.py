"""Masks and skeletons by themselves: what the gate measures and how it judges."""

import numpy as np
import pytest

from regen_train.guard import FrameSignals, GuardSettings, SignalEvidence
from regen_train.guard.evidence import CONTEXT_FRAMES
from regen_train.guard.masks import find_vanished, measure_flicker
from regen_train.guard.report import Finding, format_frames
from regen_train.guard.skeletons import distance_outside, longest_run, measure_skeletons

SETTINGS = GuardSettings()
HEIGHT, WIDTH = 120, 200

# Nose, eyes, ears, shoulders, elbows, wrists, hips, knees, ankles of somebody 80 pixels tall, around (0, 0).
STANDING = np.array(
    [(0, -34), (-2, -36), (2, -36), (-4, -35), (4, -35), (-9, -24), (9, -24), (-12, -10), (12, -10), (-12, 2), (12, 2),
     (-6, 4), (6, 4), (-6, 22), (6, 22), (-6, 40), (6, 40)], dtype=np.float32,
)  # fmt: skip


def person(x: float, y: float = 60.0, body: np.ndarray = STANDING) -> np.ndarray:
    points = np.full((133, 2), np.nan, np.float32)
    points[:17] = body + np.array([x, y])
    return points


def sure(points: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(points).all(-1), 0.9, 0.0).astype(np.float32)


def mask_of(*places: float, height: int = 84) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    for x in places:
        mask[max(0, 60 - height // 2) : 60 + height // 2, int(x) - 14 : int(x) + 15] = True
    return mask


def judge(masks: list[np.ndarray], people: list[list[np.ndarray]], **changes: float) -> dict[str, Finding]:
    evidence = SignalEvidence(GuardSettings(**changes))  # type: ignore[arg-type]
    slots = max(map(len, people), default=0)
    for number, (mask, points) in enumerate(zip(masks, people, strict=True)):
        keypoints = np.full((slots, 133, 2), np.nan, np.float32)
        for slot, one in enumerate(points):
            keypoints[slot] = one
        scores = np.array([sure(points) for points in keypoints], np.float32).reshape(slots, 133)
        evidence.add(FrameSignals(number, mask, mask, 4.0, keypoints, scores))
    return {finding.check: finding for finding in evidence.judge(0, len(masks) - 1)}


def test_covered_people_give_no_finding() -> None:
    assert judge([mask_of(40, 120)] * 6, [[person(40), person(120)]] * 6) == {}


def test_an_unmasked_person_who_stays_is_rejected() -> None:
    findings = judge([mask_of(40)] * 6, [[person(40), person(120 + t)] for t in range(6)])
    assert findings["people_outside_mask"].severity == "reject"
    assert findings["people_outside_mask"].frames == tuple(range(6))
    assert findings["people_outside_mask"].measured["frames_in_a_row"] == 6


def test_an_unmasked_person_for_two_frames_is_doubtful() -> None:
    findings = judge([mask_of(40)] * 6, [[person(40), person(120)] if t in (2, 3) else [person(40)] for t in range(6)])
    assert findings["people_outside_mask"].severity == "review"
    assert findings["people_outside_mask"].frames == (2, 3)


def test_a_phantom_that_stays_is_doubtful_and_not_rejected() -> None:
    """Upside down, with thighs as short as no person's: what pose models see in hair and foliage."""
    phantom = STANDING.copy()
    phantom[:, 1] *= -1
    findings = judge([mask_of(40)] * 9, [[person(40), person(120, body=phantom)]] * 9)
    assert findings["people_outside_mask"].severity == "review"
    assert "phantom" in findings["people_outside_mask"].message


@pytest.mark.parametrize("short", [0.1, 3.0])
def test_thighs_of_no_person_make_a_phantom(short: float) -> None:
    body = STANDING.copy()
    body[13:, 1] = 4 + short * 28 * np.array([1, 1, 2, 2])
    skeletons = measure_skeletons(
        0, person(60, body=body)[None], sure(person(60))[None], distance_outside(mask_of()), SETTINGS
    )
    assert not skeletons[0].plausible


def test_an_empty_mask_under_people_is_its_own_finding() -> None:
    masks = [mask_of(40)] * 3 + [mask_of()] * 4 + [mask_of(40)] * 3
    findings = judge(masks, [[person(40)]] * 10)
    assert findings["mask_missing"].severity == "reject"
    assert findings["mask_missing"].frames == (3, 4, 5, 6)


def test_an_open_arm_is_doubtful() -> None:
    body = STANDING.copy()
    body[[7, 9]] = (-22, -26), (-36, -30)
    findings = judge([mask_of(60)] * 4, [[person(60, body=body)]] * 4)
    assert findings["points_outside_mask"].severity == "review"
    assert findings["points_outside_mask"].measured["exposed_share"] == pytest.approx(2 / 17)
    assert "left arm may be open" in findings["points_outside_mask"].message


def test_points_outside_the_picture_or_unsure_count_for_nothing() -> None:
    points = person(60)
    points[[9, 10]] = (-50, 60), (260, 60)
    scores = sure(points)
    scores[[15, 16]] = 0.2
    skeleton = measure_skeletons(0, points[None], scores[None], distance_outside(mask_of(60)) - 4, SETTINGS)[0]
    assert (skeleton.points, skeleton.exposed) == (13, 0)


def test_people_are_followed_over_a_missing_frame_but_not_across_the_picture() -> None:
    def at(frame: int, x: float) -> object:
        return measure_skeletons(frame, person(x)[None], sure(person(x))[None], distance_outside(mask_of()), SETTINGS)[
            0
        ]

    assert longest_run([at(0, 40), at(1, 44), at(3, 50)]) == 3  # type: ignore[list-item]
    assert longest_run([at(0, 40), at(1, 160), at(2, 40)]) == 2  # type: ignore[list-item]
    assert longest_run([]) == 0


def test_a_piece_that_vanishes_amid_the_picture_is_found() -> None:
    found = find_vanished(6, mask_of(40, 120), 7, mask_of(40), SETTINGS)
    assert [(event.frame, event.kept) for event in found] == [(7, 0.0)]
    assert [e.frame for e in find_vanished(6, mask_of(40), 7, mask_of(40, 120), SETTINGS)] == [6]
    assert find_vanished(6, mask_of(40), 7, mask_of(43), SETTINGS) == []


def test_who_leaves_through_the_border_has_not_vanished() -> None:
    leaving = np.zeros((HEIGHT, WIDTH), bool)
    leaving[20:100, :16] = True
    assert find_vanished(0, leaving, 1, mask_of(), SETTINGS) == []


def test_a_lost_half_is_found_though_its_person_stays() -> None:
    half = mask_of(60)
    half[60:] = False
    quarter = mask_of(60)
    quarter[45:] = False
    assert find_vanished(0, mask_of(60), 1, half, SETTINGS) == []
    assert len(find_vanished(0, mask_of(60), 1, quarter, SETTINGS)) == 1


def test_masks_that_come_and_go_are_rejected_also_in_windows_nearby() -> None:
    masks = [mask_of(60)] * 40
    for frame in (3, 6, 9):
        masks[frame] = mask_of()
    evidence = SignalEvidence(SETTINGS)
    empty = np.zeros((0, 133, 2), np.float32)
    for number in range(40 + CONTEXT_FRAMES):
        mask = masks[number] if number < 40 else mask_of(60)
        evidence.add(FrameSignals(number, mask, mask, 4.0, empty, empty[..., 0]))
    assert [f.check for f in evidence.judge(20, 30) if f.severity == "reject"] == ["mask_unstable"]
    far = CONTEXT_FRAMES + 12
    assert [f.check for f in evidence.judge(far, far + 10) if f.severity != "note"] == []


def test_masks_that_flicker_are_doubtful_though_no_piece_vanishes() -> None:
    narrow = mask_of(60)
    narrow[:, 60:] = False
    findings = judge([mask_of(60), narrow] * 5, [[]] * 10)
    assert findings["mask_flickers"].severity == "review"
    once = [mask_of(60)] * 40
    once[7] = narrow
    assert "mask_flickers" not in judge(once, [[]] * 40)


def test_motion_is_no_flicker_however_fast() -> None:
    assert measure_flicker(mask_of(40), mask_of(60), mask_of(80), SETTINGS) == 0
    assert measure_flicker(mask_of(60), mask_of(), mask_of(60), SETTINGS) == 1
    assert measure_flicker(mask_of(), mask_of(), mask_of(), SETTINGS) is None


def test_a_mended_gap_is_noted_and_a_long_one_doubted() -> None:
    def gap(length: int) -> dict[str, Finding]:
        given = [mask_of(60)] * 9
        given[4 : 4 + length] = [mask_of()] * length
        evidence = SignalEvidence(GuardSettings(unstable_events=9))
        for number, mask in enumerate(given):
            points = person(60)[None]
            evidence.add(FrameSignals(number, mask, mask_of(60), 4.0, points, sure(points)))
        return {finding.check: finding for finding in evidence.judge(0, 8)}

    assert gap(1)["mask_mended"].severity == "note"
    assert gap(1)["mask_vanishes"].severity == "note"
    assert gap(3)["mask_gap"].severity == "review"


def test_a_mask_without_skeleton_is_noted() -> None:
    findings = judge([mask_of(60)] * 3, [[], [person(60)], []])
    assert findings["no_skeleton"].frames == (0, 2)
    assert findings["no_skeleton"].severity == "note"


def test_frames_are_told_as_runs() -> None:
    assert format_frames([3, 4, 5, 9, 5]) == "3-5, 9"
    assert format_frames(range(0, 40, 2)).endswith("and 12 more runs")


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"exposed_review": 0.7}, "exposed_review must not exceed exposed_reject"),
        ({"outline_gain": 0.9}, "outline_gain must be at least 1, got 0.9"),
        ({"box_gap": float("nan")}, "box_gap must be at least 0"),
    ],
)
def test_settings_are_checked(changes: dict[str, object], fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        GuardSettings(**changes)  # type: ignore[arg-type]
