"""Is the old identity gone? Attackers who try to find the original person by the colours of the anonymized one.

A clean attacker compares colours as they are. An adaptive one has seen originals and anonymized versions of other
people, made by the same method, and has learned what is left of a colour: blur and pixelation are undone that way.

Source: Lorenz et al., arXiv 2504.05849, who re-identify anonymized people with an attacker fitted on such pairs.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from regen_train.evaluation.intervals import CONFIDENCE, share_interval

Array = NDArray[np.float64]

_STRENGTHS = tuple(10.0**power for power in range(-2, 5))
_FEWEST = 8
"""An attacker fitted on fewer pairs learns nothing."""


@dataclass(frozen=True)
class Identification:
    """How often an attacker names the right person first.

    Args:
        n: How many people were to be named.
        rate: Share of them named rightly.
        low: Lower end of the share's interval (Wilson).
        high: Upper end.
        chance: What guessing gets.
        coverage: Share of regions of the people to be named that were seen; the attacker knows nothing of the rest.
    """

    n: int
    rate: float
    low: float
    high: float
    chance: float
    coverage: float


def rank1(
    probes: Float[Tensor, "n 5 3"], gallery: Float[Tensor, "_ 5 3"], *, confidence: int | float = CONFIDENCE
) -> Identification:
    """Attack with the nearest neighbour by colour: the clean attacker.

    Args:
        probes: Colours of anonymized people from `regen_train.evaluation.region_colours`.
        gallery: Of the originals, from other clips of them; row i is the person of probe i.
        confidence: Of the interval, in (0, 1).

    Raises:
        ValueError: The numbers of people differ, or there are fewer than two.
    """
    known, seen = _flat(gallery), _flat(probes)
    _check(known, seen, fewest=2)
    distances = np.stack([_mean_square(known - probe) for probe in seen])
    return _identification(distances, probes, confidence)


def adaptive_rank1(
    probes: Float[Tensor, "n 5 3"],
    gallery: Float[Tensor, "_ 5 3"],
    *,
    folds: int = 8,
    confidence: int | float = CONFIDENCE,
) -> Identification:
    """Attack with what (original, anonymized) pairs of other people teach: the adaptive attacker.

    A ridge regression, its strength chosen by leave-one-out, predicts the original's colours from the anonymized ones;
    a person of the gallery is the likelier, the better they fit the prediction against how well they fit anybody.
    Nobody is attacked with a regression that has seen them.

    Args:
        probes: Colours of anonymized people.
        gallery: Of the originals, from other clips of them; row i is the person of probe i.
        folds: Into how many parts people are split; each is attacked by a regression fitted on the others.
        confidence: Of the interval, in (0, 1).

    Raises:
        ValueError: The numbers of people differ, there are fewer than eight, or ``folds`` does not suit them.
    """
    known, seen = _flat(gallery), _flat(probes)
    _check(known, seen, fewest=_FEWEST)
    if not 2 <= folds <= len(seen):
        raise ValueError(f"folds must be 2 to the number of people, {len(seen)}, got {folds}")
    distances = np.empty((len(seen), len(known)))
    for fold in range(folds):
        held_out = np.arange(len(seen)) % folds == fold
        attack = _fit(seen[~held_out], known[~held_out])
        distances[held_out] = np.stack([attack(probe, known) for probe in seen[held_out]])
    return _identification(distances, probes, confidence)


def _fit(probes: Array, originals: Array) -> Callable[[Array, Array], Array]:
    """Return the attack (probe [d], gallery [n, d]) -> distances [n] that these pairs teach."""
    centre, origin = _means(probes), _means(originals)
    inputs = np.where(np.isnan(probes), 0.0, probes - centre)
    targets = np.where(np.isnan(originals), 0.0, originals - origin)
    fits = [_ridge(inputs, targets, strength * len(inputs)) for strength in _STRENGTHS]
    weights, left_out = min(fits, key=lambda fit: float((fit[1] ** 2).sum()))
    variance = (targets**2).mean(0) + 1.0
    # Nothing is predicted worse than by the mean; then it speaks for nobody.
    unexplained = np.minimum((left_out**2).mean(0) + 1.0, variance)
    useful = unexplained < variance

    def attack(probe: Array, gallery: Array) -> Array:
        predicted = np.where(np.isnan(probe), 0.0, probe - centre) @ weights
        others = gallery - origin
        surprise = (others - predicted) ** 2 / unexplained - others**2 / variance
        return np.asarray(np.where(np.isnan(surprise), 0.0, surprise)[:, useful].sum(1))

    return attack


def _ridge(inputs: Array, targets: Array, strength: float) -> tuple[Array, Array]:
    """Return the weights, and the residuals that each pair would have if it were left out."""
    inverse = np.linalg.inv(inputs.T @ inputs + strength * np.eye(inputs.shape[1]))
    weights = inverse @ inputs.T @ targets
    leverage = np.einsum("nd,de,ne->n", inputs, inverse, inputs) + 1 / len(inputs)
    residuals = (targets - inputs @ weights) / np.maximum(1 - leverage, 1e-3)[:, None]
    return weights, residuals


def _identification(distances: Array, probes: Tensor, confidence: int | float) -> Identification:
    n = len(distances)
    # Of equals the first is named, which is right as often as guessing is.
    hits = int((distances.argmin(1) == np.arange(n)).sum())
    found = share_interval(hits, n, confidence=confidence)
    seen = float((~probes.isnan().any(-1)).float().mean())
    return Identification(n, found.value, found.low, found.high, 1 / n, seen)


def _mean_square(differences: Array) -> Array:
    """Mean over what is seen of both; infinite where nothing is."""
    both = ~np.isnan(differences)
    total = np.where(both, differences**2, 0.0).sum(1)
    return np.where(both.any(1), total / np.maximum(both.sum(1), 1), math.inf)


def _means(values: Array) -> Array:
    """Return the mean of each column over what is seen; 0 where nothing is."""
    seen = ~np.isnan(values)
    return np.asarray(np.where(seen, values, 0.0).sum(0) / np.maximum(seen.sum(0), 1))


def _flat(colours: Tensor) -> Array:
    return colours.to(torch.float64).flatten(1).numpy()


def _check(known: Array, seen: Array, *, fewest: int) -> None:
    if len(known) != len(seen) or len(seen) < fewest:
        raise ValueError(
            f"probes and gallery must be of the same people, at least {fewest}, got {len(seen)} and {len(known)}"
        )
