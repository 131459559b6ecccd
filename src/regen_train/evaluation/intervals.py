"""How sure a measured number is: intervals of shares, means and paired differences."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

CONFIDENCE = 0.95
_RESAMPLES = 2000


@dataclass(frozen=True)
class Interval:
    """A number and the interval it lies in.

    Args:
        value: What was measured.
        low: Lower end of the interval.
        high: Upper end.
        n: From how many measurements.
    """

    value: float
    low: float
    high: float
    n: int


def share_interval(hits: int, n: int, *, confidence: int | float = CONFIDENCE) -> Interval:
    """Return a share and its interval, which stays sensible at 0 and at 1 and for few trials.

    Args:
        hits: How many trials succeeded.
        n: How many there were, at least 1.
        confidence: Of the interval, in (0, 1).

    Raises:
        ValueError: The counts do not fit together, or ``confidence`` is out of range.

    Source:
        Wilson 1927, "Probable inference, the law of succession, and statistical inference".
    """
    if n < 1 or not 0 <= hits <= n:
        raise ValueError(f"hits must be 0 to n and n at least 1, got {hits} of {n}; measure at least one trial")
    _check_confidence(confidence)
    found = stats.binomtest(hits, n).proportion_ci(confidence, method="wilson")
    return Interval(hits / n, float(found.low), float(found.high), n)


def mean_interval(values: Sequence[float], *, confidence: int | float = CONFIDENCE, seed: int = 0) -> Interval:
    """Return a mean and its interval over the clips, people or seeds that it was measured on.

    Args:
        values: One a clip (or person, or seed), finite, at least 2.
        confidence: Of the interval, in (0, 1).
        seed: Of the resampling: same values and seed, same interval.

    Raises:
        ValueError: Fewer than two values, some not finite, or ``confidence`` out of range.

    Source:
        Efron 1987, "Better bootstrap confidence intervals", the bias-corrected and accelerated form.
    """
    numbers = np.asarray(values, np.float64)
    finite = np.isfinite(numbers)
    if numbers.ndim != 1 or len(numbers) < 2 or not finite.all():
        raise ValueError(
            f"values must be at least 2 finite numbers, got {numbers.size} of which {int((~finite).sum())} not finite; "
            "leave out what could not be measured, and say how many"
        )
    _check_confidence(confidence)
    mean = float(numbers.mean())
    if np.ptp(numbers) == 0:
        return Interval(mean, mean, mean, len(numbers))
    found = stats.bootstrap(
        (numbers,), np.mean, n_resamples=_RESAMPLES, confidence_level=confidence, method="BCa",
        rng=np.random.default_rng(seed),
    ).confidence_interval  # fmt: skip
    return Interval(mean, float(found.low), float(found.high), len(numbers))


def difference_interval(
    after: Sequence[float], before: Sequence[float], *, confidence: int | float = CONFIDENCE, seed: int = 0
) -> Interval:
    """Return the mean of ``after - before``, pair by pair, and its interval; above 0 throughout means a sure gain.

    Args:
        after: One a clip, finite.
        before: Of the same clips, in the same order.
        confidence: Of the interval, in (0, 1).
        seed: Of the resampling.

    Raises:
        ValueError: The two are of different lengths, or `mean_interval` refuses them.
    """
    if len(after) != len(before):
        raise ValueError(f"after and before must be of the same clips, got {len(after)} and {len(before)} values")
    pairs = zip(after, before, strict=True)
    return mean_interval([late - early for late, early in pairs], confidence=confidence, seed=seed)


def _check_confidence(confidence: int | float) -> None:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be between 0 and 1, such as 0.95, got {confidence}")
