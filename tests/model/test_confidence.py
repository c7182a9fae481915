"""Probabilities and the scores of how sure an answer is, against their formulas."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from appliance.bundle.manifest import SCORES
from appliance.model.confidence import certainty, probabilities

LOGITS = hnp.arrays(np.float32, st.tuples(st.integers(1, 5), st.integers(2, 6)), elements=st.floats(-1e4, 1e4, width=32))
TEMPERATURES = st.floats(0.001, 1000)


@given(LOGITS, TEMPERATURES)
def test_probabilities_sum_to_one_and_keep_the_order(logits: np.ndarray, temperature: float) -> None:
    found = probabilities(logits, temperature)
    assert np.allclose(found.sum(axis=1), 1, atol=1e-12)
    assert ((found >= 0) & (found <= 1)).all()
    assert (np.take_along_axis(found, logits.argmax(axis=1)[:, None], 1)[:, 0] == found.max(axis=1)).all()


@given(LOGITS, st.floats(-1000, 1000))
def test_a_shift_of_all_logits_changes_nothing(logits: np.ndarray, shift: float) -> None:
    wide = logits.astype(np.float64)
    assert np.allclose(probabilities(wide + shift, 1.0), probabilities(wide, 1.0), atol=1e-9)


def test_the_largest_logits_of_a_float32_do_not_overflow() -> None:
    top = np.finfo(np.float32).max
    assert probabilities(np.array([[top, -top, 0]], np.float32), 0.001).tolist() == [[1, 0, 0]]


def test_known_answer_at_two_temperatures() -> None:
    logits = np.array([[np.log(1), np.log(4)]])
    assert probabilities(logits, 1.0)[0] == pytest.approx([0.2, 0.8])
    assert probabilities(logits, 2.0)[0] == pytest.approx([1 / 3, 2 / 3])


def by_hand(score: str, z: list[float], temperature: float) -> float:
    """The formulas of bundle-format section 4.2, a class at a time."""
    p = [math.exp(v / temperature) for v in z]
    p = sorted((v / math.fsum(p) for v in p), reverse=True)
    match score:
        case "max_probability":
            return p[0]
        case "margin":
            return p[0] - p[1]
        case "top_two":
            return p[0] + p[1]
        case "entropy":
            return math.fsum(v * math.log(v) for v in p)
        case "max_logit":
            return max(z) / temperature
        case "energy":
            return math.log(math.fsum(math.exp(v / temperature) for v in z))
    return -math.fsum((v * (1 - v)) ** 0.1 for v in p[:100])


@pytest.mark.parametrize("score", SCORES)
@given(
    rows=st.integers(2, 120).flatmap(
        lambda width: st.lists(
            st.lists(st.floats(-20, 20, width=32), min_size=width, max_size=width), min_size=1, max_size=3
        )
    ),
    temperature=st.floats(0.5, 5),
)
def test_score_is_that_of_the_page(score: str, rows: list[list[float]], temperature: float) -> None:
    logits = np.array(rows, np.float32)
    found = certainty(score, logits, probabilities(logits, temperature), temperature)
    expected = [by_hand(score, [float(v) for v in row], temperature) for row in logits]
    assert found == pytest.approx(expected, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("score", SCORES)
def test_every_score_is_higher_for_a_surer_answer(score: str) -> None:
    logits = np.array([[9, 0, 0], [2, 0, 0], [0.5, 0.4, 0.3]], np.float32)
    found = certainty(score, logits, probabilities(logits, 1.0), 1.0)
    assert (np.diff(found) < 0).all()


@pytest.mark.parametrize("score", SCORES)
def test_score_of_one_class_that_is_certain_is_a_number(score: str) -> None:
    logits = np.array([[1e4, -1e4]], np.float32)
    assert np.isfinite(certainty(score, logits, probabilities(logits, 1.0), 1.0)).all()


def test_score_of_no_name_is_an_error() -> None:
    with pytest.raises(ValueError, match="luck"):
        certainty("luck", np.zeros((1, 2)), np.full((1, 2), 0.5), 1.0)
