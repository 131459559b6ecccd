"""Colours of people and the attackers on them: near certainty on originals, chance on strangers, in between on blur."""

from dataclasses import replace
from functools import cache

import pytest
import torch

from regen_train.evaluation import (
    REGIONS,
    adaptive_rank1,
    blackout_people,
    blur_people,
    colour_correlation,
    coverage,
    rank1,
    region_colours,
)
from regen_train.toy.world import ClipFormat, Motion, Paint, WorldClip, WorldOptions, draw_clip, draw_identity, render

FORM, OPTIONS = ClipFormat(5, 80, 80, 8.0), WorldOptions(max_people=1, min_size=0.6, max_size=0.95)
PEOPLE = 48


def with_person(seed: int, number: int, who: str) -> WorldClip:
    spec = draw_clip(seed, number, FORM, OPTIONS)
    return render(replace(spec, people=(replace(spec.people[0], identity=draw_identity(7, who)),)))


@cache
def clips(seed: int, people: str = "one") -> tuple[WorldClip, ...]:
    """Clips of the same 48 people for each value of ``people``; motion and room by ``seed``."""
    return tuple(with_person(seed, number, f"{people} {number}") for number in range(PEOPLE))


def colours(seed: int, people: str = "one", change=None) -> torch.Tensor:
    found = []
    for clip in clips(seed, people):
        frames = clip.frames if change is None else change(clip.frames, clip.mask > 0)
        found.append(region_colours(frames, clip.poses.keypoints, clip.poses.scores))
    return torch.cat(found)


def standing(**changes) -> WorldClip:
    """A person of known plain colours, seen from the front."""
    spec = draw_clip(3, 0, FORM, OPTIONS)
    who = draw_identity(7, "plain")
    paints = {name: Paint(name, rgb) for name, rgb in COLOURS.items()}
    shirt, lower = (replace(who.shirt, paint=paints[name], second=paints[name]) for name in ("shirt", "lower"))
    who = replace(who, hair=paints["hair"], hair_style="curly", skin=paints["skin"], shirt=shirt, lower=lower,
                  lower_kind="trousers", shoes=paints["shoes"])  # fmt: skip
    motion = Motion("stand", 0.5, 0.5, 0.8)
    scene = replace(spec.scene, furniture=(), **changes)
    return render(replace(spec, people=(replace(spec.people[0], identity=who, motion=motion),), scene=scene))


COLOURS = {"hair": (20, 200, 20), "skin": (240, 200, 180), "shirt": (200, 30, 30), "lower": (30, 30, 200),
           "shoes": (250, 250, 0)}  # fmt: skip


def test_regions_have_the_colours_that_were_painted():
    clip = standing()
    found = region_colours(clip.frames, clip.poses.keypoints, clip.poses.scores)[0]
    wanted = torch.tensor([COLOURS[name] for name in REGIONS])
    # Crown and shoes are a few pixels: their edges mix in.
    assert ((found - wanted).abs().amax(-1) < torch.tensor([40, 5, 12, 12, 40])).all()


def test_the_room_does_not_leak_into_a_persons_colours():
    pale, dark = (standing(wall=Paint("wall", rgb), floor=Paint("floor", rgb)) for rgb in ((250,) * 3, (10,) * 3))
    first, second = (region_colours(clip.frames, clip.poses.keypoints, clip.poses.scores) for clip in (pale, dark))
    assert (first - second).abs()[:, :4].max() < 1
    assert (first - second).abs().max() < 25


def test_what_is_hidden_absent_or_outside_is_not_seen():
    clip = standing()
    keypoints, scores = clip.poses.keypoints, clip.poses.scores
    assert coverage(region_colours(clip.frames, keypoints, scores)) == dict.fromkeys(REGIONS, 1.0)
    hidden = scores.clone()
    hidden[:, :, 5] = 0.2
    found = region_colours(clip.frames, keypoints, hidden)
    assert found.isnan().any(-1)[0].tolist() == [False, False, True, False, False]
    assert coverage(found)["shirt"] == 0.0
    absent = keypoints.clone()
    absent[:, :, 17:23] = torch.nan
    assert region_colours(clip.frames, absent, scores).isnan().any(-1)[0].tolist() == [False] * 4 + [True]
    assert region_colours(clip.frames, keypoints + 200, scores).isnan().all()
    once = scores.clone()
    once[1:] = 0.0
    alone = region_colours(clip.frames[:1], keypoints[:1], scores[:1])
    assert torch.equal(region_colours(clip.frames, keypoints, once), alone)
    with pytest.raises(ValueError, match="same frames"):
        region_colours(clip.frames[1:], keypoints, scores)


def test_two_people_are_kept_apart():
    spec = draw_clip(0, 3, FORM, WorldOptions(min_people=2, max_people=2, min_size=0.6, story="apart"))
    clip = render(spec)
    found = region_colours(clip.frames, clip.poses.keypoints, clip.poses.scores)
    swapped = region_colours(clip.frames, clip.poses.keypoints.flip(1), clip.poses.scores.flip(1))
    assert found.shape == (2, 5, 3)
    assert torch.equal(found.nan_to_num(), swapped.flip(0).nan_to_num())


def test_people_are_recognised_by_their_colours_in_another_room_and_motion():
    found = rank1(colours(2), colours(1))
    assert found.rate >= 0.9
    assert found.low <= found.rate <= found.high
    assert (found.n, found.chance) == (PEOPLE, 1 / PEOPLE)
    assert found.coverage > 0.85
    assert adaptive_rank1(colours(2), colours(1)).rate >= 0.9
    same = rank1(colours(1), colours(1))
    assert same.rate == 1.0


def test_strangers_are_recognised_by_chance_only():
    for attack in (rank1, adaptive_rank1):
        found = attack(colours(2, "other"), colours(1))
        assert found.rate <= 0.1
        assert found.low <= found.chance <= found.high


def test_an_adaptive_attacker_sees_through_blur():
    blurred = colours(2, change=lambda frames, mask: blur_people(frames, mask, sigma=4))
    clean, adaptive = rank1(blurred, colours(1)), adaptive_rank1(blurred, colours(1))
    assert adaptive.rate > clean.rate + 0.2
    black = colours(2, change=blackout_people)
    assert max(rank1(black, colours(1)).rate, adaptive_rank1(black, colours(1)).rate) <= 0.1


def test_an_adaptive_attacker_undoes_a_fixed_change_of_colours():
    generator = torch.Generator().manual_seed(0)
    gallery = torch.rand(PEOPLE, 5, 3, generator=generator) * 255
    turned = 255 - gallery.flip(1)
    assert rank1(turned, gallery).rate <= 0.1
    assert adaptive_rank1(turned, gallery).rate == 1.0


def test_chance_is_what_independent_colours_give():
    rates = []
    for seed in range(20):
        first, second = torch.rand(2, PEOPLE, 5, 3, generator=torch.Generator().manual_seed(seed)) * 255
        rates += [rank1(first, second).rate, adaptive_rank1(first, second).rate]
    assert sum(rates) / len(rates) == pytest.approx(1 / PEOPLE, abs=0.015)


def test_regions_unseen_say_nothing():
    generator = torch.Generator().manual_seed(0)
    gallery = torch.rand(12, 5, 3, generator=generator) * 255
    probes = gallery.clone()
    probes[:, 3:] = torch.nan
    assert rank1(probes, gallery).rate == 1.0
    assert rank1(probes, gallery).coverage == pytest.approx(0.6)
    nothing = torch.full_like(gallery, torch.nan)
    for attack in (rank1, adaptive_rank1):
        assert attack(nothing, gallery).rate <= 1 / 12
        assert attack(nothing, gallery).coverage == 0.0


@pytest.mark.parametrize(("call", "message"), [
    (lambda one: rank1(one, one[1:]), "same people"),
    (lambda one: rank1(one[:1], one[:1]), "at least 2"),
    (lambda one: adaptive_rank1(one[:7], one[:7]), "at least 8"),
    (lambda one: adaptive_rank1(one, one, folds=1), "folds must be 2 to"),
    (lambda one: colour_correlation(one, one[1:]), "same people"),
])  # fmt: skip
def test_attackers_refuse_what_proves_nothing(call, message):
    with pytest.raises(ValueError, match=message):
        call(torch.rand(12, 5, 3))


def test_correlation_is_one_with_itself_none_with_strangers_and_lower_when_noisy():
    generator = torch.Generator().manual_seed(0)
    first, second = torch.rand(2, PEOPLE, 5, 3, generator=generator) * 255
    alike, strange = colour_correlation(first, first), colour_correlation(first, second)
    assert set(alike) == {*REGIONS, "all"}
    assert all(interval.value == pytest.approx(1.0) for interval in alike.values())
    assert strange["all"].low < 0 < strange["all"].high
    noisy = colour_correlation(first + 60 * torch.randn(first.shape, generator=generator), first)["shirt"]
    # Uniform over 255 spreads 73.6: r = 73.6 / sqrt(73.6^2 + 60^2) = 0.775.
    assert noisy.low < 0.775 < noisy.high
    assert noisy.high < 0.9


def test_what_all_people_share_is_no_correlation():
    generator = torch.Generator().manual_seed(0)
    offsets = torch.tensor([0.0, 50, 100, 150, 200])[:, None]
    first, second = torch.rand(2, PEOPLE, 5, 3, generator=generator) * 20 + offsets
    assert abs(colour_correlation(first, second)["all"].value) < 0.2


def test_correlation_without_people_or_colours_is_not_a_number():
    first = torch.rand(6, 5, 3) * 255
    first[2:, 0] = torch.nan
    first[:, 1] = 7.0
    found = colour_correlation(first, torch.rand(6, 5, 3) * 255)
    assert found["hair"].value != found["hair"].value
    assert found["hair"].n == 2
    assert found["skin"].value != found["skin"].value
    assert found["all"].n == 6
