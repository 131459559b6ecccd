"""The demo's figures on treatments whose figures are known beforehand."""

import math
from dataclasses import replace

import pytest
import torch

from regen_train.demo.control import CaptionControl, measure_control, recolour
from regen_train.demo.figures import gain_figures, identity_figures, motion_figures
from regen_train.demo.journal import Journal
from regen_train.demo.measure import Followed, Measurement, measure
from regen_train.demo.methods import METHODS
from regen_train.demo.report import Report
from regen_train.demo.settings import VARIANTS, DemoSettings
from regen_train.demo.subjects import Subjects, draw_subjects
from regen_train.demo.table import answers, figures_table
from regen_train.evaluation import mask_iou
from regen_train.toy.world import WorldClip

NUM_ALONE, NUM_PAIRS = 24, 3


@pytest.fixture(scope="module")
def subjects() -> Subjects:
    return draw_subjects(NUM_ALONE, NUM_PAIRS, seed=0)


@pytest.fixture(scope="module")
def found(subjects: Subjects) -> Measurement:
    """A perfect painter as the LoRA, one that paints the old person a little lower without it."""
    original = [subject.composed.frames for subject in subjects.all]
    perfect = [subject.held_out.described.frames for subject in subjects.all]
    treated = dict.fromkeys(("original", "reconstruction", "base-structall"), original)
    treated |= dict.fromkeys(("structhuman", "structall"), perfect)
    treated["blackout"] = [torch.where(s.composed.mask[..., None], 0, s.composed.frames) for s in subjects.all]
    treated["base-structhuman"] = [video.roll(4, dims=1) for video in original]
    return measure(subjects, treated, _exact)


@pytest.fixture(scope="module")
def control(subjects: Subjects) -> CaptionControl:
    """A perfect painter, who paints what the changed captions say."""
    some = subjects.alone[:8]
    changed = recolour(some, seed=0)
    before = [subject.held_out.described.frames for subject in some]
    return measure_control(changed, before, [item.subject.held_out.described.frames for item in changed], some)


def test_one_word_of_the_caption_is_changed_and_nothing_else(subjects: Subjects) -> None:
    for subject, item in zip(subjects.alone[:8], recolour(subjects.alone[:8], seed=0), strict=True):
        old, new = (clip.held_out.described.caption.split() for clip in (subject, item.subject))
        differing = [(a, b) for a, b in zip(old, new, strict=True) if a != b and {a, b} != {"a", "an"}]
        assert differing == [(item.old, item.new)]


def test_a_painter_who_follows_the_word_changes_the_shirt_alone(control: CaptionControl) -> None:
    assert control.shirt.value > 0.9
    assert control.shirt_change.low > 40
    assert control.other_change.high < 10
    assert control.shirt.n == 8


def _exact(video: torch.Tensor, truth: WorldClip) -> Followed:
    """Tell what moved by comparing with the truth's pictures; stands in for the observer."""
    kept = bool((video == truth.frames).all(-1).float().mean() > 0.5)
    return Followed(mask_iou(truth.mask > 0, truth.mask.roll(0 if kept else 4, dims=1) > 0), float(kept))


def test_subjects_are_composed_as_the_training_clips_are(subjects: Subjects) -> None:
    for subject in subjects.all:
        human = subject.composed.conditions["structhuman"]
        outside = ~subject.composed.mask & (subject.composed.pose.amax(-1) == 0)
        assert torch.equal(human[outside], subject.composed.frames[outside])
        assert bool((subject.composed.mask | (subject.held_out.original.mask == 0)).all())
        assert set(subject.composed.conditions) == {"structhuman", "structall"}


def test_an_untouched_person_is_found_and_a_newly_painted_one_is_not(found: Measurement) -> None:
    original, painted = found.of("original"), found.of("structhuman")
    assert original.clean.rate > 0.9
    assert original.old_colours["all"].value == pytest.approx(1)
    assert painted.clean.low < 3 * painted.clean.chance
    assert abs(painted.old_colours["all"].value) < 0.5
    # Looked for in the old person's places, which a body of other proportions fills not quite.
    assert painted.new_colours["all"].value > 0.7
    assert original.new_colours == {}


def test_what_was_blackened_tells_no_colour(found: Measurement) -> None:
    black = found.of("blackout")
    assert math.isnan(black.old_colours["all"].value)
    assert black.clean.rate <= 2 * black.clean.chance


def test_an_untouched_background_is_exact_and_a_moved_one_is_not(found: Measurement) -> None:
    assert math.isinf(found.of("blackout").background_psnr.value)
    assert found.of("base-structhuman").background_psnr.value < 30


def test_what_the_lora_adds_is_paired_by_clip(found: Measurement) -> None:
    human, everything = found.gains
    assert human.variant == "structhuman"
    assert human.mask_iou.n == NUM_ALONE
    assert human.mask_iou.low > 0
    assert human.pck.value == pytest.approx(1)
    assert everything.mask_iou.value == 0


def test_two_people_are_told_apart_by_their_captions(subjects: Subjects, found: Measurement) -> None:
    assert found.apart["structhuman"].value == 1
    assert found.apart["structhuman"].n == NUM_PAIRS
    pairs = [
        replace(s, held_out=replace(s.held_out, described=_exchanged(s.held_out.described))) for s in subjects.pairs
    ]
    perfect = [subject.held_out.described.frames for subject in subjects.all]
    treated = dict.fromkeys(("reconstruction", *(b + v for b in ("", "base-") for v in VARIANTS)), perfect)
    assert measure(replace(subjects, pairs=pairs), treated, _exact).apart["structall"].value == 0


def _exchanged(clip: WorldClip) -> WorldClip:
    """Say of each person what holds of the other."""
    poses = clip.poses
    return replace(clip, poses=replace(poses, keypoints=poses.keypoints.flip(1), scores=poses.scores.flip(1)))


def test_every_figure_is_shown_with_its_interval_and_its_n(found: Measurement, control: CaptionControl) -> None:
    printed = figures_table(found) + answers(Report(DemoSettings(), found, control, Journal()))
    assert "n = 24" in printed
    assert "chance of rank-1 is 0.042" in printed
    assert printed.count("[") >= 5 * len(found.methods)
    for shown in (identity_figures(found), motion_figures(found), gain_figures(found)):
        assert "n = 24" in shown
        assert "<small>" in shown
    assert all(method.label in identity_figures(found) for method in (METHODS[f.method] for f in found.methods))
