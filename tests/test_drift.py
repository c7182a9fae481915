"""A model that decides as in its validation is left alone; one whose inputs have changed is heard about, once."""

from collections.abc import Iterable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.bundle.manifest import Expected
from appliance.drift import BEGINS_Z, CALLS_MIN, ROWS_MIN, WINDOW_ROWS, Drift, Share, interval, score_interval

SHARES = st.floats(0, 1)
SIZES = st.floats(1, 1e6)
Z95 = 1.959964
EVERY = 20  # rows between two looks


def looks(drift: Drift, calls: Iterable[tuple[int, int]], every: int = EVERY) -> list[bool]:
    """What each look said of the abstentions, of calls by their rows and abstentions."""
    seen, since = [], 0
    for rows, abstained in calls:
        drift.count(rows, abstained, 0)
        since += rows
        if since >= every:
            seen.append(drift.look()[0])
            since = 0
    return seen


def single(random: np.random.Generator, rate: float, rows: int) -> list[tuple[int, int]]:
    """Calls of one row, each a stranger to the others."""
    return [(1, abstained) for abstained in random.binomial(1, rate, rows).tolist()]


def begun(seen: list[bool]) -> int:
    return sum(now and not before for before, now in zip([False, *seen], seen, strict=False))


@pytest.mark.parametrize(("one", "size", "other", "others", "low", "high"), [
    (56, 70, 48, 80, 0.0524, 0.3339), (9, 10, 3, 10, 0.1705, 0.8090), (10, 10, 0, 20, 0.6791, 1.0000),
])  # fmt: skip
def test_the_interval_is_the_published_one(one: int, size: int, other: int, others: int, low: float, high: float) -> None:
    """Newcombe 1998, table II, method 10."""
    assert interval(one / size, size, other / others, others, Z95) == pytest.approx((low, high), abs=5e-5)


@given(SHARES, SIZES, st.floats(0.1, 6))
def test_a_share_lies_within_its_own_interval_and_a_wider_one_has_a_narrower_one(
    share: float, size: float, z: float
) -> None:
    low, high = score_interval(share, size, z)
    wider_low, wider_high = score_interval(share, size, z + 1)
    slack = 1e-9
    assert 0 <= wider_low <= low + slack
    assert low <= share + slack
    assert share <= high + slack
    assert high <= wider_high + slack <= 1 + slack


@given(SHARES, SIZES, SHARES, SIZES)
def test_which_of_two_samples_is_named_first_changes_the_sign_alone(one: float, n: float, other: float, m: float) -> None:
    low, high = interval(one, n, other, m, 4)
    assert interval(other, m, one, n, 4) == pytest.approx((-high, -low), abs=1e-9)
    assert interval(one, n, one, m, 4)[0] <= 0 <= interval(one, n, one, m, 4)[1]


@given(st.lists(st.tuples(st.integers(1, 40), st.integers(0, 40), st.integers(0, 40)), max_size=400))
def test_the_window_holds_the_fewest_last_calls_that_are_enough(drawn: list[tuple[int, int, int]]) -> None:
    calls = [(rows, min(abstained, rows), min(unknown, rows - min(abstained, rows))) for rows, abstained, unknown in drawn]
    drift = Drift(Expected(100, 5, 1))
    for call in calls:
        drift.count(*call)
    kept: list[tuple[int, int, int]] = []
    for call in reversed(calls):
        if len(kept) >= CALLS_MIN and sum(rows for rows, _, _ in kept) >= WINDOW_ROWS:
            break
        kept.append(call)
    rows, abstained, unknown = (sum(column) for column in zip(*kept, strict=True)) if kept else (0, 0, 0)
    assert drift.abstained == Share(0.05, abstained / rows if rows else 0, rows)
    assert drift.unknown == Share(0.01, unknown / rows if rows else 0, rows)


CALLS = st.integers(0, 30).flatmap(lambda one: st.tuples(st.just(one + 2), st.integers(0, one), st.integers(0, 2)))


@given(
    st.integers(1, 10**6).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n))),
    st.lists(st.tuples(CALLS, st.integers(0, 120)), max_size=6),
)
def test_any_validation_is_compared_with_any_rows(
    validation: tuple[int, int], drawn: list[tuple[tuple[int, int, int], int]]
) -> None:
    """Shares of 0 and 1, one case, calls of any size: an answer, and none where the shares are the same."""
    cases, abstained = validation
    drift, like = Drift(Expected(cases, abstained, cases - abstained)), Drift(Expected(cases, abstained, cases - abstained))
    for call, times in drawn:
        for _ in range(times):
            drift.count(*call)
            drift.look()
    for _ in range(CALLS_MIN):
        like.count(cases, abstained, cases - abstained)
        assert like.look() == (False, False)


def test_nothing_is_said_of_few_rows_nor_of_few_calls() -> None:
    few = Drift(Expected(10_000, 0, 0))
    assert not any(looks(few, [(1, 1)] * (ROWS_MIN - 1), every=1))
    assert looks(few, [(1, 1)], every=1) == [True]
    large = Drift(Expected(10_000, 0, 0))
    assert not any(looks(large, [(50, 50)] * (CALLS_MIN - 1), every=1))
    assert looks(large, [(50, 50)], every=1) == [True]


def test_the_two_shares_have_alarms_of_their_own_and_too_few_is_as_wrong_as_too_many() -> None:
    drift = Drift(Expected(5_000, 1_000, 50))
    for _ in range(WINDOW_ROWS):
        drift.count(1, 0, 0)
    assert drift.look() == (True, False)
    for row in range(WINDOW_ROWS):
        drift.count(1, int(row % 5 == 0), int(row % 5 == 1))
    assert drift.look() == (False, True)


@pytest.mark.parametrize(("cases", "rows_max"), [(1_000, 4_000), (5_000, 1_500), (50_000, 1_200)])
def test_a_rate_that_doubles_is_heard_about(cases: int, rows_max: int) -> None:
    """From 5 % to 10 %. The median of 40 streams needs 950, 680 and 550 rows; 300 cases of validation are too few."""
    random = np.random.default_rng(cases)
    for _ in range(5):
        drift = Drift(Expected(cases, cases // 20, 0))
        looks(drift, single(random, 0.05, WINDOW_ROWS))
        assert any(looks(drift, single(random, 0.10, rows_max)))


def test_what_goes_on_as_in_validation_is_left_alone() -> None:
    """200,000 rows of ten models whose validation was a sample of the same rate, looked at every 20 rows."""
    random, found = np.random.default_rng(5), 0
    for _ in range(10):
        drift = Drift(Expected(2_000, random.binomial(2_000, 0.05), 0))
        found += begun(looks(drift, single(random, 0.05, 20_000)))
    assert found == 0


def test_many_images_of_one_patient_are_not_many_patients() -> None:
    """Calls of 20 rows that mostly share their fate: as strangers they would sound the alarm again and again."""
    random, found = np.random.default_rng(6), 0
    for _ in range(5):
        drift = Drift(Expected(5_000, random.binomial(5_000, 0.05), 0))
        rates = random.beta(0.05, 0.95, 2_000)  # within a call, two rows agree with a correlation of one half
        found += begun(looks(drift, [(20, abstained) for abstained in random.binomial(20, rates).tolist()]))
    assert found <= 1


def test_a_share_at_the_edge_does_not_flap(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rate at which the first threshold is crossed half of the time: an alarm that is on stays on."""
    stream = single(np.random.default_rng(7), 0.085, 40_000)
    steady = begun(looks(Drift(Expected(50_000, 2_500, 0)), stream))
    monkeypatch.setattr("appliance.drift.ENDS_Z", BEGINS_Z)
    flapping = begun(looks(Drift(Expected(50_000, 2_500, 0)), stream))
    assert 1 <= steady <= 3
    assert flapping >= 10 * steady


def test_an_alarm_ends_when_the_inputs_are_as_they_were() -> None:
    random = np.random.default_rng(8)
    drift = Drift(Expected(5_000, 250, 0))
    assert looks(drift, single(random, 0.3, WINDOW_ROWS))[-1]
    assert not looks(drift, single(random, 0.05, 2 * WINDOW_ROWS))[-1]
