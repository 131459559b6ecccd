"""Numbers as people read them, the same on the page and in the terminal."""

import math

from regen_train.evaluation import Identification, Interval


def number(value: float, digits: int = 2) -> str:
    """Return a number, or a dash where there is none."""
    if math.isnan(value):
        return "–"  # noqa: RUF001
    return f"{value:.{digits}f}".replace("-", "\N{MINUS SIGN}") if math.isfinite(value) else "exact"


def spread(interval: Interval | Identification, digits: int = 2) -> str:
    """Return where the number lies: its interval, or nothing where it is exact or missing."""
    if not (math.isfinite(interval.low) and math.isfinite(interval.high)):
        return ""
    return f"{number(interval.low, digits)} to {number(interval.high, digits)}"


def with_spread(value: float, interval: Interval | Identification, digits: int = 2) -> str:
    """Return a number and its interval, ``0.61 [0.55 to 0.67]``."""
    shown = spread(interval, digits)
    return number(value, digits) + (f" [{shown}]" if shown else "")
