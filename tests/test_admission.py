"""What one caller may ask for: a rate, a burst, and rows under way."""

from contextlib import ExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.admission import Admission, Allowance
from appliance.errors import CallerTooFast, CallerTooMany

ALLOWANCE = Allowance(rows_per_s_max=10, rows_at_once_max=20)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_burst_is_let_in_and_then_the_rate() -> None:
    clock = Clock()
    admission = Admission(clock)
    for _ in range(20):
        with admission.admit("a", ALLOWANCE, 1):
            pass
    with pytest.raises(CallerTooFast, match="10 rows a second") as caught, admission.admit("a", ALLOWANCE, 1):
        pass
    assert caught.value.retry_s == pytest.approx(0.1)
    clock.now += caught.value.retry_s or 0
    with admission.admit("a", ALLOWANCE, 1):
        pass


def test_rows_under_way_are_bounded_and_come_back_however_they_end() -> None:
    clock = Clock()
    admission = Admission(clock)
    with ExitStack() as calls:
        calls.enter_context(admission.admit("a", Allowance(10**6, 20), 15))
        with pytest.raises(CallerTooMany, match="more than 20 rows"), admission.admit("a", Allowance(10**6, 20), 6):
            pass
        with pytest.raises(ZeroDivisionError), admission.admit("a", Allowance(10**6, 20), 5):
            raise ZeroDivisionError
        clock.now += 1
        calls.enter_context(admission.admit("a", Allowance(10**6, 20), 5))
    clock.now += 1  # the burst is used up; the rows under way are none
    with admission.admit("a", Allowance(10**6, 20), 20):
        pass


def test_one_callers_haste_is_not_anothers() -> None:
    admission = Admission(Clock())
    with admission.admit("a", ALLOWANCE, 20), admission.admit("b", ALLOWANCE, 20):
        pass


@given(st.lists(st.tuples(st.floats(0, 3), st.integers(1, 20)), max_size=60))
def test_over_any_time_no_more_than_the_rate_and_one_burst(asked: list[tuple[float, int]]) -> None:
    clock = Clock()
    admission, let_in, waits = Admission(clock), list[tuple[float, int]](), list[float]()
    for pause, rows in asked:
        clock.now += pause
        try:
            with admission.admit("a", ALLOWANCE, rows):
                let_in.append((clock.now, rows))
        except CallerTooFast as error:
            waits.append(error.retry_s or 0.0)
    assert all(wait > 0 for wait in waits)
    for i, (start, _) in enumerate(let_in):
        total = 0
        for when, rows in let_in[i:]:
            total += rows
            assert total <= 10 * (when - start) + 20 + 1e-6
