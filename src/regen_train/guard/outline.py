"""The picture's own evidence: a mask's outline lies on edges.

Found without any model, it tells masks that are moved in space or time, eroded, or of another clip.
Edge strength is the root of the largest channel's gradient, blurred a little; its mean along the outlines of a few
frames is compared with the mean along the same outlines moved, grown, or taken from neighbouring frames.
"""

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from regen_train.guard.report import Finding, Severity
from regen_train.guard.settings import GuardSettings

_SHORT_SIDE = 480
"""Pixels at which outlines are compared; larger pictures are shrunk to it."""

_STEPS = 8
"""Positions tried on each side along an axis, each of 1/120 of the short side: up to 32 pixels of 480."""

_UNITS = 120
_MIN_OUTLINE = 60
"""Pixels of outline below which a frame tells nothing."""

_LAGS = (-8, -4, -2, -1, 1, 2, 4, 8)
"""Frames of the window by which masks may be played early or late."""

_BUSY = 1.3
"""Edge strength inside masks against that around them, from which on they surely hold something."""

_NO_EDGE = 0.3
"""Of a picture's mean edge strength."""

_MIN_LAGGED = 3
"""Frames that must be left to compare."""


@dataclass(frozen=True)
class _Still:
    """One frame, ready to be compared: edge strength [h, w], mask [h, w], the outline's (row, column) pairs."""

    edges: NDArray[np.float32]
    mask: NDArray[np.bool_]
    outline: NDArray[np.int64]


class OutlineEvidence:
    """Compare outlines with edges on some frames of a window.

    Args:
        settings: Thresholds.
    """

    def __init__(self, settings: GuardSettings) -> None:
        self._settings = settings
        self._frames: list[int] = []
        self._stills: list[_Still] = []

    def add(self, frame: int, picture: NDArray[np.uint8], mask: NDArray[np.bool_]) -> None:
        """Keep a frame [h, w, 3] and its mask as it was extracted [h, w], shrunk; repair would blur its outline."""
        scale = _SHORT_SIDE / min(mask.shape)
        if scale < 1:
            size = round(mask.shape[1] * scale), round(mask.shape[0] * scale)
            picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
            mask = cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0
        self._frames.append(frame)
        self._stills.append(_Still(_edge_strength(picture), mask, _outline(mask)))

    def judge(self, dilation: int | float) -> list[Finding]:
        """Return what the outlines give reason to say.

        Args:
            dilation: By how much masks grow before people are filled, as a share of the short side: an offset within
                it leaves nobody open.
        """
        count = len(self._stills)
        spread = np.linspace(0, count - 1, min(count, self._settings.outline_frames)).round()
        chosen = sorted({int(place) for place in spread})
        stills = [self._stills[i] for i in chosen if self._tells(i)]
        if not stills:
            return []
        unit = max(1.0, min(stills[0].mask.shape) / _UNITS)
        found = [self._moved(stills, unit, dilation), self._eroded(stills, unit, dilation), self._late(chosen)]
        return [finding for finding in found if finding is not None]

    def _moved(self, stills: list[_Still], unit: float, dilation: float) -> Finding | None:
        steps = np.arange(-_STEPS, _STEPS + 1)
        shifts = [(round(y * unit), round(x * unit)) for y in steps for x in steps]
        strengths = np.array([_mean_strength(stills, shift) for shift in shifts])
        short = min(stills[0].mask.shape)
        # Anywhere within dilation is as good as on the outline: there people are covered all the same.
        reach = range(round(dilation * short) + 1)
        at_rest = max(strengths[shifts.index((0, 0))], *(_mean_at_offset(stills, offset) for offset in reach))
        best = int(strengths.argmax())
        fit, gain = at_rest / max(float(strengths.mean()), 1e-9), strengths[best] / max(at_rest, 1e-9)
        moved = shifts[best]
        measured = {"gain": float(gain), "right": moved[1], "down": moved[0], "fit": float(fit)}
        if gain >= self._settings.outline_gain and float(np.hypot(*moved)) / short > dilation:
            message = "the masks fit the picture better elsewhere: they are moved"
            severity: Severity = "reject" if gain >= self._settings.outline_sure else "review"
            return Finding("outline_moved", severity, message, self._span(), measured)
        # A region that is far busier than what is around it is something, though its outline is no edge.
        if fit < self._settings.outline_fit and _busyness(stills) < _BUSY:
            message = "the masks' outlines follow nothing in the picture: they may be another clip's"
            return Finding("outline_fits_nothing", "review", message, self._span(), measured)
        return None

    def _eroded(self, stills: list[_Still], unit: float, dilation: float) -> Finding | None:
        step = max(1.0, unit / 2)
        offsets = [round(number * step) for number in range(-2, 2 * _STEPS + 1)]
        strengths = np.array([_mean_at_offset(stills, offset) for offset in offsets])
        best = int(strengths.argmax())
        short = min(stills[0].mask.shape)
        within = [
            strength for offset, strength in zip(offsets, strengths, strict=True) if 0 <= offset <= dilation * short
        ]
        gain = float(strengths[best] / max(*within, 1e-9))
        if offsets[best] <= dilation * short + step or gain < self._settings.outline_gain:
            return None
        message = "the masks are too small: people's outlines lie farther out than dilation reaches"
        measured = {"gain": gain, "pixels_of_480": offsets[best]}
        return Finding("outline_outside", "review", message, self._span(), measured)

    def _late(self, chosen: list[int]) -> Finding | None:
        gains = {lag: self._gain_at(chosen, lag) for lag in _LAGS}
        lag = max(gains, key=lambda key: gains[key])
        gain = gains[lag]
        if gain < self._settings.outline_gain:
            return None
        message = "the masks fit the picture better at another time: they are played early or late"
        return Finding("outline_late", "review", message, self._span(), {"gain": gain, "sampled_frames": float(lag)})

    def _gain_at(self, chosen: list[int], lag: int) -> float:
        places = [i for i in chosen if 0 <= i + lag < len(self._stills) and self._tells(i) and self._tells(i + lag)]
        if len(places) < _MIN_LAGGED:
            return 0.0
        stills = [self._stills[i] for i in places]
        lagged = [replace(self._stills[i], outline=self._stills[i + lag].outline) for i in places]
        now = _mean_strength(stills, (0, 0))
        # Outlines that lie where there is no edge at all are the other checks' matter.
        return _mean_strength(lagged, (0, 0)) / now if now > _NO_EDGE else 0.0

    def _tells(self, place: int) -> bool:
        return len(self._stills[place].outline) >= _MIN_OUTLINE

    def _span(self) -> tuple[int, ...]:
        return tuple(sorted(set(self._frames)))


def _edge_strength(picture: NDArray[np.uint8]) -> NDArray[np.float32]:
    smooth = cv2.GaussianBlur(picture, (0, 0), 1.5).astype(np.float32)
    across, down = cv2.Sobel(smooth, cv2.CV_32F, 1, 0), cv2.Sobel(smooth, cv2.CV_32F, 0, 1)
    strength = np.sqrt(np.hypot(across, down).max(-1))
    return np.asarray(strength / max(float(strength.mean()), 1e-6), np.float32)


def _outline(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return (row, column) of the mask's outline, without the picture's own border."""
    eroded = cv2.erode(mask.astype(np.uint8), np.ones((3, 3), np.uint8), borderType=cv2.BORDER_REPLICATE)
    return np.argwhere(mask & (eroded == 0) & _away_from_border(mask.shape))


def _away_from_border(shape: tuple[int, ...]) -> NDArray[np.bool_]:
    margin = max(1, min(shape) // 80)
    away = np.zeros(shape, bool)
    away[margin:-margin, margin:-margin] = True
    return away


def _mean_strength(stills: list[_Still], shift: tuple[int, int]) -> float:
    """Return the mean edge strength along all outlines, moved (down, right) by ``shift``, within the picture."""
    total, count = 0.0, 0
    for still in stills:
        places = still.outline + np.array(shift)
        inside = (places >= 0).all(1) & (places < still.mask.shape).all(1)
        rows, columns = places[inside].T
        total += float(still.edges[rows, columns].sum())
        count += int(inside.sum())
    return total / max(count, 1)


def _mean_at_offset(stills: list[_Still], offset: int) -> float:
    """Return the mean edge strength ``offset`` pixels outside all outlines; inside, if negative."""
    total, count = 0.0, 0
    for still in stills:
        on = still.mask.astype(np.uint8)
        outwards = cv2.distanceTransform(1 - on, cv2.DIST_L2, 5) - cv2.distanceTransform(on, cv2.DIST_L2, 5)
        ring = (np.abs(outwards - offset) <= 1) & _away_from_border(on.shape)
        total += float(still.edges[ring].sum())
        count += int(ring.sum())
    return total / max(count, 1)


def _busyness(stills: list[_Still]) -> float:
    """Return the mean edge strength inside masks over that in a ring around them, an eighth of the short side wide."""
    inside, outside = list[float](), list[float]()
    for still in stills:
        distance = cv2.distanceTransform((~still.mask).astype(np.uint8), cv2.DIST_L2, 5)
        ring = (distance > 0) & (distance <= min(still.mask.shape) / 8)
        if still.mask.any() and ring.any():
            inside.append(float(still.edges[still.mask].mean()))
            outside.append(float(still.edges[ring].mean()))
    return sum(inside) / max(sum(outside), 1e-9)
