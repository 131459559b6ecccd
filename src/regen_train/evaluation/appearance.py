"""The colours of a person: hair, skin, shirt, lower garment, shoes, found by the skeleton that a clip follows.

A region is a few spots, each a fixed mixture of keypoints, all well inside the body: so the room behind cannot leak in,
and the original and the regenerated person are looked at in the same places.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from scipy import stats
from torch import Tensor
from torch.nn.functional import grid_sample

from regen_train.evaluation.intervals import CONFIDENCE, Interval
from regen_train.skeleton.topology import FACE, SCORE_THRESHOLD

REGIONS = ("hair", "skin", "shirt", "lower", "shoes")

_NOSE, _EARS, _SHOULDERS, _HIPS, _KNEES = 0, (3, 4), (5, 6), (11, 12), (13, 14)
_FEET = ((17, 18, 19), (20, 21, 22))  # big toe, small toe, heel
_FEWEST = 3
"""A correlation of fewer people is noise."""
_RESAMPLES = 1000


@dataclass(frozen=True)
class _Spot:
    """A place on a body.

    Args:
        weights: Of keypoints, by number; they sum to 1.
        seen_by: The spot counts where one of these is sure; empty: where all that are weighted are.
    """

    weights: dict[int, float]
    seen_by: tuple[int, ...] = field(default=())


def region_colours(
    frames: UInt8[Tensor, "t h w 3"], keypoints: Float[Tensor, "_ p 133 2"], scores: Float[Tensor, "_ p 133"]
) -> Float[Tensor, "p 5 3"]:
    """Return the mean colour of each region of each person, over spots and frames; a pattern counts as its mixture.

    Args:
        frames: The clip; RGB.
        keypoints: (x, y) in its pixels, COCO-WholeBody order; person number p is the same one in all frames.
        scores: How sure each is; a spot whose points are below 0.3, absent or outside the frame is not seen.

    Returns:
        In the order of `REGIONS`, 0 to 255; NaN where a region is never seen.

    Raises:
        ValueError: Clip and keypoints differ in length.
    """
    if not len(frames) == len(keypoints) == len(scores):
        lengths = f"{len(frames)}, {len(keypoints)} and {len(scores)}"
        raise ValueError(f"frames, keypoints and scores must be of the same frames, got {lengths}")
    spots = [spot for region in _SPOTS.values() for spot in region]
    places = torch.stack([_place(spot, keypoints) for spot in spots], dim=2)
    sure = torch.stack([_sure(spot, scores) for spot in spots], dim=2)
    height, width = frames.shape[1:3]
    seen = sure & ((places >= 0) & (places <= places.new_tensor([width - 1, height - 1]))).all(-1)
    found = _sample(frames, places.nan_to_num())
    found = torch.where(seen[..., None], found, torch.full_like(found, math.nan))
    regions = torch.split(found, [len(region) for region in _SPOTS.values()], dim=2)
    return torch.stack([region.nanmean((0, 2)) for region in regions], dim=1)


def coverage(colours: Float[Tensor, "n 5 3"]) -> dict[str, float]:
    """Return for each region the share of people of whom it was seen."""
    seen = ~colours.isnan().any(-1)
    return {name: float(seen[:, number].float().mean()) for number, name in enumerate(REGIONS)}


def colour_correlation(
    found: Float[Tensor, "n 5 3"],
    wanted: Float[Tensor, "_ 5 3"],
    *,
    confidence: int | float = CONFIDENCE,
    seed: int = 0,
) -> dict[str, Interval]:
    """Return how far colours go with others over people: 1 follows exactly, 0 has nothing to do with them.

    Of each channel of each region the mean over people is taken away first: that all shirts are brighter than all
    trousers, or all skin reddish, is no correlation.

    Args:
        found: Colours of n people, such as the painted ones.
        wanted: Of the same people, such as the original's, or what the caption asked for.
        confidence: Of the interval, in (0, 1).
        seed: Of the resampling of people.

    Returns:
        Pearson's r of each region, and of ``all`` together, with bootstrap interval over people; NaN where fewer than
        three people are seen in both, or all look the same.

    Raises:
        ValueError: The number of people differs.
    """
    if len(found) != len(wanted):
        raise ValueError(f"found and wanted must be of the same people, got {len(found)} and {len(wanted)}")
    numbers = {name: [number] for number, name in enumerate(REGIONS)} | {"all": list(range(len(REGIONS)))}
    return {
        name: _correlation(found[:, chosen].double().numpy(), wanted[:, chosen].double().numpy(), confidence, seed)
        for name, chosen in numbers.items()
    }


def _correlation(found: np.ndarray, wanted: np.ndarray, confidence: int | float, seed: int) -> Interval:
    both = ~(np.isnan(found) | np.isnan(wanted))
    people = np.flatnonzero(both.any((1, 2)))
    if len(people) < _FEWEST:
        return Interval(np.nan, np.nan, np.nan, len(people))

    def drawn(chosen: np.ndarray) -> float:
        # A draw in which all look the same shows no relation.
        return float(np.nan_to_num(_pearson(found[chosen], wanted[chosen], both[chosen])))

    value = _pearson(found[people], wanted[people], both[people])
    if np.isnan(value):
        return Interval(np.nan, np.nan, np.nan, len(people))
    interval = stats.bootstrap(
        (people,), drawn, vectorized=False, n_resamples=_RESAMPLES, method="percentile",
        confidence_level=confidence, rng=np.random.default_rng(seed),
    ).confidence_interval  # fmt: skip
    return Interval(value, float(interval.low), float(interval.high), len(people))


def _pearson(found: np.ndarray, wanted: np.ndarray, both: np.ndarray) -> float:
    count = np.maximum(both.sum(0), 1)
    centred = [np.where(both, values - np.where(both, values, 0).sum(0) / count, 0) for values in (found, wanted)]
    spread = np.sqrt((centred[0] ** 2).sum() * (centred[1] ** 2).sum())
    return float((centred[0] * centred[1]).sum() / spread) if spread > 0 else np.nan


def _place(spot: _Spot, keypoints: Tensor) -> Tensor:
    """Return where a spot is, [t, p, 2]; NaN where a point it needs is absent."""
    chosen = keypoints[:, :, list(spot.weights)]
    return torch.einsum("tpkc,k->tpc", chosen, chosen.new_tensor(list(spot.weights.values())))


def _sure(spot: _Spot, scores: Tensor) -> Tensor:
    if spot.seen_by:
        return (scores[:, :, list(spot.seen_by)] >= SCORE_THRESHOLD).any(-1)
    return (scores[:, :, list(spot.weights)] >= SCORE_THRESHOLD).all(-1)


def _sample(frames: Tensor, places: Tensor) -> Tensor:
    """Return colours between pixels, [t, p, s, 3]."""
    height, width = frames.shape[1:3]
    scale = places.new_tensor([2 / max(1, width - 1), 2 / max(1, height - 1)])
    pictures = rearrange(frames.to(places.dtype), "t h w c -> t c h w")
    found = grid_sample(pictures, places * scale - 1, mode="bilinear", padding_mode="border", align_corners=True)
    return rearrange(found, "t c p s -> t p s c")


def _mixed(*parts: tuple[Sequence[int], float]) -> dict[int, float]:
    """Return the mixture of the means of groups of points."""
    return {point: weight / len(points) for points, weight in parts for point in points}


def _hair() -> tuple[_Spot, ...]:
    # Above the ears by half their distance from the shoulders: over the brow, under the crown. A face turned away
    # hides an ear's score, not its place.
    return tuple(_Spot(_mixed((_EARS, 1 + up), (_SHOULDERS, -up)), seen_by=(_NOSE, *_EARS)) for up in (0.44, 0.47, 0.5))


def _face() -> tuple[_Spot, ...]:
    """Return the cheeks, between eye, corner of the mouth and jaw, and the chin, under the mouth."""
    eyes, corners, jaws, lip, chin = (39, 42), (48, 54), (3, 13), 57, 8
    cheeks = [{eye: 0.3, corner: 0.3, jaw: 0.4} for eye, corner, jaw in zip(eyes, corners, jaws, strict=True)]
    spots: list[dict[int, float]] = [*cheeks, {lip: 0.5, chin: 0.5}]
    return tuple(_Spot({FACE.start + point: weight for point, weight in spot.items()}) for spot in spots)


def _chest() -> tuple[_Spot, ...]:
    # Above the elbows of hanging arms, so that bare forearms are not taken for the shirt.
    return tuple(
        _Spot({
            _SHOULDERS[0]: across * (1 - down), _SHOULDERS[1]: (1 - across) * (1 - down),
            _HIPS[0]: across * down, _HIPS[1]: (1 - across) * down,
        })
        for down in (0.15, 0.25, 0.35, 0.45, 0.55)
        for across in (0.2, 0.35, 0.5, 0.65, 0.8)
    )  # fmt: skip


def _thighs() -> tuple[_Spot, ...]:
    return tuple(
        _Spot({hip: 1 - down, knee: down})
        for hip, knee in zip(_HIPS, _KNEES, strict=True)
        for down in (0.2, 0.3, 0.4, 0.5, 0.6)
    )


def _shoes() -> tuple[_Spot, ...]:
    return tuple(_Spot({big: 0.43, small: 0.43, heel: 0.14}) for big, small, heel in _FEET)


_SPOTS = dict(zip(REGIONS, (_hair(), _face(), _chest(), _thighs(), _shoes()), strict=True))
