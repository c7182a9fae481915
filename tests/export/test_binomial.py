"""Exact arithmetic of counts, against SciPy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from appliance.bundle.manifest import E6
from export import binomial, millionths


@pytest.mark.parametrize(("errors", "trials"), [(0, 1), (0, 100), (1, 100), (7, 497), (40, 60), (99, 100), (3, 100_000)])
def test_upper_bound_is_that_of_clopper_and_pearson(errors: int, trials: int) -> None:
    """It is the 95 % quantile of Beta(k + 1, n − k)."""
    expected = stats.beta.ppf(0.95, errors + 1, trials - errors)
    assert binomial.upper_bound(errors, trials) == pytest.approx(expected, abs=1e-9)


def test_upper_bound_where_everything_is_wrong() -> None:
    assert binomial.upper_bound(5, 5) == 1.0


@settings(max_examples=60, deadline=None)
@given(st.integers(-1, 400), st.integers(1, 400), st.floats(0, 1))
def test_tail_is_the_binomials(successes: int, trials: int, rate: float) -> None:
    assert binomial.tail(successes, trials, rate) == pytest.approx(stats.binom.cdf(successes, trials, rate), abs=1e-11)


@settings(max_examples=40, deadline=None)
@given(st.floats(0.001, 0.999), st.integers(1, 2000), st.integers(1, 300))
def test_beta_quantile_is_scipys(probability: float, a: int, b: int) -> None:
    assert binomial.beta_quantile(probability, a, b) == pytest.approx(stats.beta.ppf(probability, a, b), abs=1e-9)


@pytest.mark.parametrize(("cases", "coverage"), [(100, 0.9), (500, 0.9), (500, 0.99), (999, 0.999), (10_000, 0.95)])
def test_coverage_interval_is_the_betas(cases: int, coverage: float) -> None:
    """Beta(n + 1 − l, l), l = ⌊(n + 1)(1 − coverage)⌋, from its 5 % to its 95 % quantile."""
    missed = round((cases + 1) * (1 - coverage) - 0.4999)
    assert binomial.left_out(cases, coverage) == missed
    expected = stats.beta.ppf([0.05, 0.95], cases + 1 - missed, missed)
    assert binomial.coverage_interval(cases, coverage) == pytest.approx(expected, abs=1e-9)


def test_no_rounding_costs_a_whole_case() -> None:
    """99 cases and a coverage of 93 % leave out exactly seven, though 100 × (1 − 0.93) is less in floating point."""
    assert 100 * (1 - 0.93) < 7
    assert binomial.left_out(99, 0.93) == 7
    assert [binomial.left_out(n, 0.999) for n in (998, 999, 1999)] == [0, 1, 2]
    assert [binomial.left_out(n, 0.9) for n in (8, 9, 19, 99)] == [0, 1, 2, 10]


@pytest.mark.parametrize(("cases", "tested", "coverage"), [(100, 50, 0.9), (524, 624, 0.9), (2000, 10_000, 0.95)])
def test_interval_of_a_test_set_is_beta_binomial(cases: int, tested: int, coverage: float) -> None:
    """At most one test set in twenty falls below it, and one above it."""
    missed = binomial.left_out(cases, coverage)
    counted = stats.betabinom(tested, cases + 1 - missed, missed)
    low, high = binomial.interval_of_test_set(coverage, [cases], [tested])
    assert counted.cdf(round(low * tested) - 1) <= 0.05 < counted.cdf(round(low * tested))
    assert counted.sf(round(high * tested)) <= 0.05 < counted.sf(round(high * tested) - 1)


def test_interval_of_a_test_set_adds_the_classes_up() -> None:
    """Three classes, each with its own threshold: nine in ten of simulated test sets fall within."""
    cases, tested = np.array([120, 150, 300]), np.array([40, 90, 200])
    low, high = binomial.interval_of_test_set(0.9, cases.tolist(), tested.tolist())
    missed = np.array([binomial.left_out(int(n), 0.9) for n in cases])
    random = np.random.default_rng(0)
    rates = random.binomial(tested, random.beta(cases + 1 - missed, missed, (20_000, 3))).sum(axis=1) / tested.sum()
    assert 0.89 <= np.mean((rates >= low) & (rates <= high)) <= 0.93


@settings(max_examples=300)
@given(st.floats(-1e6, 1e6))
def test_millionths_never_round_past_the_value(value: float) -> None:
    """The case that a threshold was taken from is within it, as the product compares."""
    under, over = millionths.under(value), millionths.over(value)
    assert under / E6 <= value <= over / E6
    assert over - under <= 2
