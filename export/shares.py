"""Shares of counted cases: how sure one is, and how it is written so that it never reads as better than it is.

What was measured is rounded to the side that does a model no favour: 2,999 right answers of 3,000 are 99.9 %, not 100.0 %,
and errors that are there are never 0 %. What was promised is not rounded at all.
"""

import math

from export.binomial import beta_quantile

_NOISE_DIGITS = 9  # 100 · 0.57 is 56.99999999999999, and 57 all the same


def interval(successes: int, trials: int, among: int = 1) -> tuple[float, float]:
    """Both ends of the 95 % interval of Clopper and Pearson for a share, of at least one trial.

    ``among`` so many shares that are looked at, all such intervals hold at once with 95 % (Bonferroni): of forty labels
    one would stand out by chance alone.
    """
    beyond = 0.025 / among
    low = beta_quantile(beyond, successes, trials - successes + 1) if successes else 0.0
    high = beta_quantile(1 - beyond, successes + 1, trials - successes) if successes < trials else 1.0
    return low, high


def promised(share: float) -> str:
    """``99.5%``, with all the digits of whole millionths, which is what a manifest holds."""
    return f"{100 * share:.6g}%"


def at_least(share: float, digits: int = 1) -> str:
    """A share of what is good, rounded down."""
    return f"{math.floor(_parts(share, digits)) / 10**digits:.{digits}f}%"


def at_most(share: float, digits: int = 1) -> str:
    """A share of what is bad, rounded up."""
    return f"{math.ceil(_parts(share, digits)) / 10**digits:.{digits}f}%"


def _parts(share: float, digits: int) -> float:
    return round(share * 10.0 ** (digits + 2), _NOISE_DIGITS)
