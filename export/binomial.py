"""Exact arithmetic of counts: bounds on a rate, and the coverage that so many cases can carry. numpy alone.

Everything rests on one sum, P(X ≤ k) for a binomial X, since a beta distribution with whole parameters is that sum turned
round: P(Beta(a, b) ≤ x) = P(Binomial(a + b − 1, x) ≥ a).
"""

import math
from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.95
_HALVINGS = 60


def tail(successes: int, trials: int, rate: float) -> float:
    """P(X ≤ successes) for X ~ Binomial(trials, rate), summed in logarithms so that no term overflows."""
    if successes < 0 or rate <= 0 or rate >= 1:
        return 0.0 if successes < 0 or (rate >= 1 and successes < trials) else 1.0
    k = np.arange(min(successes, trials) + 1)
    terms = _log_choose(trials)[: len(k)] + k * math.log(rate) + (trials - k) * math.log1p(-rate)
    top = terms.max()
    return min(1.0, math.exp(top) * float(np.exp(terms - top).sum()))


def upper_bound(errors: int, trials: int, confidence: float = CONFIDENCE) -> float:
    """The one-sided bound of Clopper and Pearson 1934: at that rate, so few errors would have probability 1 − confidence."""
    if errors >= trials:
        return 1.0
    return _first(lambda rate: tail(errors, trials, rate) <= 1 - confidence, errors / trials)


def beta_quantile(probability: float, a: int, b: int) -> float:
    """The quantile of Beta(a, b), a and b whole and at least 1."""
    return _first(lambda x: 1 - tail(a - 1, a + b - 1, x) >= probability)


def left_out(cases: int, coverage: float) -> int:
    """l = ⌊(n + 1)(1 − coverage)⌋: how many of n calibration cases a label set may miss (Vovk 2012, proposition 2a)."""
    return math.floor((cases + 1) * (1 - coverage) + 1e-9)


def coverage_interval(cases: int, coverage: float, probability: float = 0.9) -> tuple[float, float]:
    """Between what the true coverage of a rule calibrated on ``cases`` lies at that probability: Beta(n + 1 − l, l).

    Its lower end is the bound that fails once in twenty. The distribution is over calibration sets; where scores tie, or the
    top label was added, true coverage is higher (Vovk 2012; Angelopoulos and Bates 2023, section 3.2).
    """
    missed, beyond = left_out(cases, coverage), (1 - probability) / 2
    return tuple(beta_quantile(p, cases + 1 - missed, missed) for p in (beyond, 1 - beyond))  # type: ignore[return-value]


def interval_of_test_set(
    coverage: float, calibrated_on: Sequence[int], tested_on: Sequence[int], probability: float = 0.9
) -> tuple[float, float]:
    """Between what the share of covered cases in a *test set* lies at that probability, both ends included.

    One number each for a rule with one threshold; one for each class for a rule with a threshold each. Of one class the
    count covered is beta-binomial (m tested, Beta(n + 1 − l, l)); of several, the sum of independent ones.
    """
    chances: NDArray[np.float64] = np.ones(1)
    for n, m in zip(calibrated_on, tested_on, strict=True):
        missed = left_out(n, coverage)
        chances = np.convolve(chances, _beta_binomial(m, n + 1 - missed, missed))
    below, beyond, most = np.cumsum(chances), (1 - probability) / 2, len(chances) - 1
    low = int(np.searchsorted(below, beyond, side="right"))
    high = int(np.searchsorted(below, 1 - beyond, side="left"))
    return low / most, min(high, most) / most


def _beta_binomial(trials: int, a: int, b: int) -> NDArray[np.float64]:
    """P(X = k) for k from 0 to ``trials``, float64 ``[trials + 1]``."""
    logs, k = _log_factorials(trials + a + b), np.arange(trials + 1)
    # Γ(k + a) is (k + a − 1)!, and so on: whole parameters need no gamma function.
    terms = _log_choose(trials) + logs[k + a - 1] + logs[trials - k + b - 1] - logs[trials + a + b - 1]
    return np.asarray(np.exp(terms + logs[a + b - 1] - logs[a - 1] - logs[b - 1]))


def _first(holds: Callable[[float], bool], low: float = 0.0) -> float:
    """The smallest rate up to 1 that a growing condition holds at, from above, by halving."""
    high = 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


@lru_cache(maxsize=256)
def _log_choose(trials: int) -> NDArray[np.float64]:
    """log (trials over k) for each k, float64 ``[trials + 1]``."""
    logs = _log_factorials(trials)
    return np.asarray(logs[-1] - logs - logs[::-1])


@lru_cache(maxsize=256)
def _log_factorials(top: int) -> NDArray[np.float64]:
    """log k! for k from 0 to ``top``; the sum of 10,000 logarithms is good to eleven digits."""
    return np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, top + 1, dtype=np.float64)))])
