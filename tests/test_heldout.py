"""Held-out clips: the same people elsewhere, and others in the same motions."""

from dataclasses import replace

import pytest
import torch

from regen_train.toy.form import TOY_FORM, TOY_PEOPLE
from regen_train.toy.heldout import ALONE, CROSSING, draw_held_out
from regen_train.toy.world import draw_clip


@pytest.fixture(scope="module", params=[ALONE, CROSSING], ids=["alone", "crossing"])
def clips(request: pytest.FixtureRequest):
    return list(draw_held_out(6, options=request.param))


def test_the_same_people_are_elsewhere_in_another_room_and_motion(clips) -> None:
    for clip in clips:
        assert clip.elsewhere.identities == clip.original.identities
        assert clip.elsewhere.spec.scene != clip.original.spec.scene
        assert _motions(clip.elsewhere) != _motions(clip.original)


def test_others_are_described_in_the_very_motions_and_room(clips) -> None:
    for clip in clips:
        assert _motions(clip.described) == _motions(clip.original)
        assert clip.described.spec.scene == clip.original.spec.scene
        assert not set(clip.described.identities) & set(clip.original.identities)
        outside = (clip.described.mask == 0) & (clip.original.mask == 0)
        assert torch.equal(clip.described.frames[outside], clip.original.frames[outside])
        assert clip.described.caption != clip.original.caption


def test_nobody_is_in_two_clips_or_in_a_training_world(clips) -> None:
    names = [name for clip in clips for name in (*clip.original.identities, *clip.described.identities)]
    trained = [person.identity.name for number in range(6) for person in draw_clip(0, number).people]
    assert len(set(names)) == len(names)
    assert not set(names) & set(trained)


def test_clips_follow_from_the_seed() -> None:
    (first,), (again,), (other,) = (list(draw_held_out(1, seed=seed)) for seed in (3, 3, 4))
    assert torch.equal(first.original.frames, again.original.frames)
    assert first.original.spec != other.original.spec


def test_clips_have_the_toys_form(clips) -> None:
    assert clips[0].original.frames.shape == (TOY_FORM.num_frames, TOY_FORM.height, TOY_FORM.width, 3)


def test_an_open_number_of_people_is_refused() -> None:
    with pytest.raises(ValueError, match="must fix the number of people, got 1 to 2"):
        next(draw_held_out(1, options=replace(TOY_PEOPLE, min_people=1)))


def _motions(clip) -> list[object]:
    return [person.motion for person in clip.spec.people]
