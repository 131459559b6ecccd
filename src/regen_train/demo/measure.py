"""All figures of the demo, put together from `regen_train.evaluation`: what is kept, and what is gone."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from regen_train.demo.methods import METHODS, Treated
from regen_train.demo.settings import VARIANTS
from regen_train.demo.subjects import Subject, Subjects
from regen_train.evaluation import (
    Identification,
    Interval,
    adaptive_rank1,
    colour_correlation,
    difference_interval,
    mean_interval,
    psnr,
    rank1,
    region_colours,
    share_interval,
)
from regen_train.toy.world import WorldClip

_EXACT_DB = 60.0
"""A clip that is kept to the bit counts as this where others are not."""


@dataclass(frozen=True)
class Followed:
    """How well a clip's people do what the original's do.

    Args:
        mask_iou: Of where people are found and where they should be.
        pck: Share of body points found within a tenth of the person's size.
    """

    mask_iou: float
    pck: float


Follow = Callable[[UInt8[Tensor, "t h w 3"], WorldClip], Followed]
"""Finds people in a video and compares them with the exact truth of the clip that it was made from."""


@dataclass(frozen=True)
class MethodFigures:
    """What came of one method on the held-out clips of one person.

    Args:
        method: Its name.
        mask_iou: Does the new person stand where the old one stood? Mean over clips.
        pck: Are arms and legs where they were? Mean over clips.
        background_psnr: Is the background kept, outside the dilated mask? dB, mean over clips; infinite if untouched.
        old_colours: Correlation with the original's colours, by region and over ``all``.
        new_colours: Correlation with the colours that the new caption asks for; empty where nobody is painted.
        clean: Re-identification by comparing colours.
        adaptive: Re-identification by an attacker who has learned from pairs of other people.
    """

    method: str
    mask_iou: Interval
    pck: Interval
    background_psnr: Interval
    old_colours: Mapping[str, Interval]
    new_colours: Mapping[str, Interval]
    clean: Identification
    adaptive: Identification


@dataclass(frozen=True)
class Gain:
    """What the LoRA adds to the base model on the same clips, captions and noise; paired by clip.

    Args:
        variant: The condition.
        mask_iou: Of its difference.
        pck: Of its difference.
    """

    variant: str
    mask_iou: Interval
    pck: Interval


@dataclass(frozen=True)
class Measurement:
    """All figures.

    Args:
        methods: One a method, in the order of `METHODS`.
        gains: What the LoRA of each variant adds.
        apart: Variant to the share of clips of two people in which each is nearer to their own caption than to the
            other's.
        reconstruction_psnr: Of the VAE alone over whole pictures, in dB, mean over clips.
    """

    methods: Sequence[MethodFigures]
    gains: Sequence[Gain]
    apart: Mapping[str, Interval]
    reconstruction_psnr: Interval

    def of(self, method: str) -> MethodFigures:
        """Return the figures of one method."""
        return next(figures for figures in self.methods if figures.method == method)


def measure(subjects: Subjects, treated: Treated, follow: Follow) -> Measurement:
    """Measure what every method made of the held-out clips.

    Args:
        subjects: The clips.
        treated: Method to its videos of all subjects, those of one person first, or of these alone if it is no variant
            with its LoRA; ``reconstruction`` and both variants, with and without LoRA, must be among them.
        follow: Finds people in a video, also in a soft, painted one.
    """
    alone = subjects.alone
    names = [name for name in METHODS if name in treated]
    videos = {name: treated[name][: len(alone)] for name in names}
    followed = {
        name: [follow(video, subject.held_out.original) for video, subject in zip(videos[name], alone, strict=True)]
        for name in names
    }
    truth = _truth(alone)
    everywhere = torch.ones(alone[0].composed.mask.shape, dtype=torch.bool)
    return Measurement(
        methods=[_figures(name, alone, videos[name], followed[name], truth) for name in names],
        gains=[_gain(variant, followed) for variant in VARIANTS],
        apart={variant: _apart(subjects.pairs, treated[variant][len(alone) :]) for variant in VARIANTS},
        reconstruction_psnr=_mean_db([
            psnr(video, subject.composed.frames, everywhere)
            for video, subject in zip(videos["reconstruction"], alone, strict=True)
        ]),
    )  # fmt: skip


@dataclass(frozen=True)
class _Truth:
    """Colours of people: in the clips, elsewhere, and of those who are to be painted."""

    original: Float[Tensor, "n 5 3"]
    elsewhere: Float[Tensor, "n 5 3"]
    described: Float[Tensor, "n 5 3"]


def _truth(subjects: Sequence[Subject]) -> _Truth:
    clips = [subject.held_out for subject in subjects]
    worlds = ([getattr(clip, kind) for clip in clips] for kind in ("original", "elsewhere", "described"))
    return _Truth(*(_colours([clip.frames for clip in world], world) for world in worlds))


def _figures(
    name: str, subjects: Sequence[Subject], videos: Sequence[Tensor], followed: Sequence[Followed], truth: _Truth
) -> MethodFigures:
    found = _colours(videos, [subject.held_out.original for subject in subjects])
    backgrounds = [
        psnr(video, subject.composed.frames, ~subject.composed.mask)
        for video, subject in zip(videos, subjects, strict=True)
    ]
    return MethodFigures(
        method=name,
        mask_iou=mean_interval([clip.mask_iou for clip in followed]),
        pck=mean_interval([clip.pck for clip in followed]),
        background_psnr=_mean_db(backgrounds),
        old_colours=colour_correlation(found, truth.original),
        new_colours={} if METHODS[name].paints is None else colour_correlation(found, truth.described),
        clean=rank1(found, truth.elsewhere),
        adaptive=adaptive_rank1(found, truth.elsewhere),
    )


def _colours(videos: Sequence[Tensor], truths: Sequence[WorldClip]) -> Float[Tensor, "n 5 3"]:
    """Look for the colours of each clip's first person, where the truth says that they are."""
    looked = (people_colours(video, truth)[0] for video, truth in zip(videos, truths, strict=True))
    return torch.stack(list(looked))


def people_colours(video: UInt8[Tensor, "t h w 3"], truth: WorldClip) -> Float[Tensor, "p 5 3"]:
    """Return the colours of a video's people, looked for where the truth of its motions says that they are."""
    return region_colours(video, truth.poses.keypoints, truth.poses.scores)


def _mean_db(values: Sequence[float]) -> Interval:
    """Return the mean of PSNRs; infinite where all are."""
    if all(map(math.isinf, values)):
        return Interval(math.inf, math.inf, math.inf, len(values))
    return mean_interval([min(value, _EXACT_DB) for value in values])


def _gain(variant: str, followed: Mapping[str, Sequence[Followed]]) -> Gain:
    after, before = followed[variant], followed[f"base-{variant}"]
    return Gain(
        variant,
        mask_iou=difference_interval([clip.mask_iou for clip in after], [clip.mask_iou for clip in before]),
        pck=difference_interval([clip.pck for clip in after], [clip.pck for clip in before]),
    )


def _apart(pairs: Sequence[Subject], videos: Sequence[Tensor]) -> Interval:
    """Return in how many clips both people together are nearer to their captions than to exchanged ones."""
    hits = 0
    for subject, video in zip(pairs, videos, strict=True):
        found = people_colours(video, subject.held_out.original)
        wanted = people_colours(subject.held_out.described.frames, subject.held_out.described)
        exchanged = wanted.flip(0)
        seen = ~(found.isnan() | wanted.isnan() | exchanged.isnan())
        own, other = ((found - colours)[seen].square().mean() for colours in (wanted, exchanged))
        hits += bool(own < other)
    return share_interval(hits, len(pairs))
