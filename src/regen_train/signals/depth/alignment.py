"""Fit one depth map to another up to scale and shift, whatever moves between them.

A monocular model tells inverse depth only up to a scale and a shift, which it chooses anew for every frame (Ranftl et
al., "Towards robust monocular depth estimation", arXiv 1907.01341, section 5). The fit finds s > 0 and b with
``s * source + b = reference`` on most points, in two steps:

1. Candidates from pairs of points, and one from median and spread (equation 6 of that paper, with quantiles for the
   spread); the one with the least sum of residuals, each cut off at a hundredth of the spread, is taken (in the manner
   of MSAC, Torr and Zisserman, 2000). People who move are outliers, often half the picture and far from the rest,
   which a least squares or least absolute fit would follow.
2. Re-weighted fits with Tukey's biweight. Their scale is the ratio of the weighted spreads (reduced major axis), not
   the least squares slope: both maps are noisy, and the slope, being biased towards 0, would shrink the depth of a
   long clip to nothing when fits follow upon each other.

The fits are made in numpy, on one thread: so small, they gain nothing from more, and give the same bits on any number.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from regen_train.draws import generator_for

MAX_POINTS = 4096
"""Points a fit looks at; more change nothing that can be seen, since depth is smooth."""

_NUM_PAIRS = 192
"""Of pairs on a background of 40 % of the points, 16 % are good: all 192 fail once in 10^14 times."""

_ROUNDS = 15
_TOLERANCE = 0.05
"""Points agree when they differ by less than this share of the reference's spread."""

_TUKEY = 4.685 * 1.4826
"""Tukey's constant, for median absolute residuals: 95 % efficient on normal noise."""


@dataclass(frozen=True)
class ScaleShift:
    """How to bring one depth map to another's scale: ``scale * depth + shift``.

    Args:
        scale: Factor, above 0.
        shift: In the reference's unit.
        agreement: Share of points that agree afterwards, 0 to 1.
    """

    scale: float
    shift: float
    agreement: float = 1.0

    def apply(self, depth: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Return the depth on the reference's scale."""
        return depth * self.scale + self.shift


@dataclass(frozen=True)
class Statistics:
    """Where a depth map lies and how far it reaches, without its extremes.

    Args:
        median: Middle value.
        spread: From the 5 % to the 95 % quantile; where those coincide, from the least to the largest value.
    """

    median: float
    spread: float


def sample_points(depth: Float[Tensor, "t h w"], *, limit: int = MAX_POINTS) -> Float64[np.ndarray, " n"]:
    """Return the depth at points of a regular grid, at most ``limit`` of them, the same ones for maps of one shape."""
    step = 1
    while depth[:, ::step, ::step].numel() > limit and step < max(depth.shape[1:]):
        step += 1
    points = depth[:, step // 2 :: step, step // 2 :: step].reshape(-1)
    points = points if len(points) else depth.reshape(-1)
    return points[:: -(-len(points) // limit)].to(device="cpu", dtype=torch.float64).numpy()


def statistics_of(points: Float64[np.ndarray, " n"]) -> Statistics:
    """Return median and spread; both follow any ``a * points + b`` with a > 0."""
    low, median, high = np.quantile(points, [0.05, 0.5, 0.95]).tolist()
    if high <= low:
        low, high = float(points.min()), float(points.max())
    return Statistics(median=median, spread=high - low)


def match_statistics(found: Statistics, wanted: Statistics) -> ScaleShift:
    """Return what gives a map of the ``found`` statistics the ``wanted`` ones; only the shift where one has no spread.

    Its ``agreement`` is 0: no point has been compared.
    """
    scale = wanted.spread / found.spread if found.spread > 0 and wanted.spread > 0 else 1.0
    return ScaleShift(scale=scale, shift=wanted.median - scale * found.median, agreement=0.0)


def fit_scale_shift(source: Float64[np.ndarray, " n"], reference: Float64[np.ndarray, " n"]) -> ScaleShift:
    """Fit ``scale * source + shift`` to ``reference``, robust to any minority of points that moved.

    Args:
        source: Points of a depth map.
        reference: The same points of another.

    Returns:
        The fit and how many points agree. Where a map is constant, the scale is 1 and the medians are matched.
    """
    found, wanted = statistics_of(source), statistics_of(reference)
    fit = match_statistics(found, wanted)
    tolerance = _TOLERANCE * wanted.spread
    if found.spread > 0 and wanted.spread > 0:
        fit = _refine(source, reference, _best_candidate(source, reference, fit, tolerance), tolerance)
    agreement = float(np.mean(_residuals(fit, source, reference) <= tolerance))
    return ScaleShift(fit.scale, fit.shift, agreement)


def _residuals(fit: ScaleShift, source: np.ndarray, reference: np.ndarray) -> Float64[np.ndarray, " n"]:
    return np.asarray(np.abs(fit.scale * source + fit.shift - reference))


def _best_candidate(source: np.ndarray, reference: np.ndarray, matched: ScaleShift, tolerance: float) -> ScaleShift:
    drawn = torch.randint(len(source), (2, _NUM_PAIRS), generator=generator_for(0, "depth alignment", "pairs"))
    first, second = drawn.numpy()
    run, rise = source[first] - source[second], reference[first] - reference[second]
    usable = (run * rise > 0) & (np.abs(run) > 1e-3 * np.ptp(source))
    scales = np.append(rise[usable] / run[usable], matched.scale)
    shifts = np.append(reference[first][usable] - scales[:-1] * source[first][usable], matched.shift)
    step = max(1, len(source) // 1024)  # ranking needs fewer points than fitting, and finer judgement than agreeing
    residuals = np.abs(scales[:, None] * source[::step] + shifts[:, None] - reference[::step])
    # the mean of the residuals seen from either map: seen from the reference alone, the flattest fit would look best
    residuals /= np.sqrt(scales / matched.scale)[:, None]
    best = int(np.minimum(residuals, 0.2 * tolerance).sum(1).argmin())
    return ScaleShift(float(scales[best]), float(shifts[best]))


def _refine(source: np.ndarray, reference: np.ndarray, fit: ScaleShift, tolerance: float) -> ScaleShift:
    for _ in range(_ROUNDS):
        residuals = _residuals(fit, source, reference)
        near = residuals[residuals <= 0.5 * tolerance]
        if not len(near):
            return fit
        # never 0, or an exact fit would have no point left
        width = min(max(_TUKEY * float(np.median(near)), 1e-6 * tolerance), 2 * tolerance)
        weights = (1 - np.minimum(residuals / width, 1) ** 2) ** 2
        weights /= weights.sum()
        middle, goal = float(weights @ source), float(weights @ reference)
        spread = float(np.sqrt(weights @ (source - middle) ** 2))
        wanted = float(np.sqrt(weights @ (reference - goal) ** 2))
        if not (spread > 0 and wanted > 0):
            return fit
        scale = wanted / spread
        fit = ScaleShift(scale, goal - scale * middle)
    return fit
