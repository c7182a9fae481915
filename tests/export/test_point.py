"""From which score on an answer is accepted."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.bundle.manifest import E6
from export.binomial import upper_bound
from export.errors import CalibrationError
from export.point import operating_point


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(-60, 60), st.booleans()), min_size=1, max_size=120), st.floats(0.02, 0.6))
def test_threshold_is_the_smallest_that_keeps_the_promise(rows: list[tuple[int, bool]], error_max: float) -> None:
    """Against the obvious search, for scores of either sign; and where there is none, what the refusal proposes works."""
    certain = np.array([value / 7 for value, _ in rows])
    right = np.array([good for _, good in rows])

    def bound(threshold: int) -> float:
        accepted = certain >= threshold / E6
        return upper_bound(int((~right[accepted]).sum()), int(accepted.sum()))

    thresholds = sorted({int(np.floor(value * E6)) for value in certain})
    good = [threshold for threshold in thresholds if bound(threshold) <= error_max]
    if good:
        point = operating_point(certain, right, error_max)
        assert point.accept_at_least_e6 == good[0]
        assert point.accepted == int((certain >= good[0] / E6).sum())
        assert point.bound <= error_max
    else:
        with pytest.raises(CalibrationError) as refusal:
            operating_point(certain, right, error_max)
        best = min(map(bound, thresholds))
        if best >= 0.999:  # a promise that no recipe may make
            assert "error_among_accepted_max=" not in str(refusal.value)
            return
        proposed = float(str(refusal.value).split("error_among_accepted_max=")[1].split(",")[0])
        assert proposed == pytest.approx(best, abs=0.001001)
        operating_point(certain, right, min(proposed, 0.999))


def test_negative_scores_have_a_threshold() -> None:
    """Entropy, energy and GEN are mostly negative: the five worst of a thousand are left out."""
    certain = -np.linspace(0.001, 5, 1000)
    point = operating_point(certain, certain > -4.9, 0.01)
    assert point.accept_at_least_e6 < 0
    assert point.accepted >= 980


def test_unreachable_promise_says_what_would_work() -> None:
    """The refusal has the best bound found and the number of images that would be needed."""
    with pytest.raises(CalibrationError, match=r"1\.00% or less .* 0 errors in 120 answers, .*at least 299 accepted"):
        operating_point(np.full(120, 0.9), np.ones(120, bool), 0.01)


def test_nothing_to_accept_is_said() -> None:
    with pytest.raises(CalibrationError, match="no answer is left"):
        operating_point(np.empty(0), np.empty(0, bool), 0.1)
