"""The temperature, and the calibration error that is left."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, special

from appliance.model.confidence import probabilities
from export import temperature
from export.errors import CalibrationError
from tests.export.draws import draw


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.3, 8))
def test_known_temperature_is_recovered(seed: int, true: float) -> None:
    """Labels drawn at temperature T give T back."""
    assert temperature.fit(*draw(seed, 4000, true)) == pytest.approx(true, rel=0.15)


@settings(max_examples=20, deadline=None)
@given(st.floats(0.2, 5))
def test_temperature_follows_the_scale_of_the_logits(scale: float) -> None:
    """Logits k times as large need a temperature k times as high."""
    logits, labels = draw(1, 500, 1.0)
    scaled = temperature.fit(logits.astype(np.float64) * scale, labels)
    assert scaled == pytest.approx(scale * temperature.fit(logits, labels), rel=1e-6)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(100, 400), st.floats(0.1, 20), st.floats(0.5, 2))
def test_temperature_is_that_of_the_least_cost(seed: int, n: int, true: float, distortion: float) -> None:
    """Against SciPy's search, on models that are not calibrated by any temperature too."""
    logits, labels = draw(seed, n, true)
    logits = np.sign(logits) * np.abs(logits) ** distortion

    def cost(log_t: float) -> float:
        return float(-special.log_softmax(logits / np.exp(log_t), axis=1)[np.arange(n), labels].mean())

    best = optimize.minimize_scalar(cost, bounds=np.log(temperature.TEMPERATURES), method="bounded")
    try:
        found = temperature.fit(logits, labels)
    except CalibrationError:  # no better than chance: the hotter the better
        assert best.x > np.log(temperature.TEMPERATURES[1] * 0.98)
        return
    assert cost(np.log(found)) <= best.fun + 1e-7


def test_model_without_an_error_keeps_its_temperature() -> None:
    """No error bounds the certainty, so nothing is made surer than it was."""
    logits = np.eye(3, dtype=np.float32)[np.arange(120) % 3]
    assert temperature.fit(logits, logits.argmax(axis=1)) == 1.0


def test_model_no_better_than_chance_is_refused() -> None:
    """An anti-correlated model cannot be mended by a temperature."""
    logits = np.eye(3, dtype=np.float32)[np.arange(120) % 3]
    with pytest.raises(CalibrationError, match=r"no better than chance .* 0\.0%"):
        temperature.fit(logits, (logits.argmax(axis=1) + 1) % 3)


def test_calibration_error_of_a_hand_computed_case() -> None:
    """Two answers at 0.95, one right; two at 0.55, both right: (|1.9 − 1| + |1.1 − 2|) / 4."""
    found = temperature.reliability(np.array([0.95, 0.95, 0.55, 0.55]), np.array([True, False, True, True]))
    assert found.error == pytest.approx(0.45)
    assert (found.count[8], found.confidence[14], found.accuracy[14]) == (2, 0.95, 0.5)


def test_certain_answers_fall_into_the_last_bin() -> None:
    """A probability of exactly 1 has a bin, and being right there costs nothing."""
    found = temperature.reliability(np.ones(5), np.ones(5, bool))
    assert (found.error, found.count[-1]) == (0, 5)


def test_perfect_model_shows_the_error_of_chance_alone() -> None:
    """Few images show a calibration error where there is none; what is said of it is what is seen."""
    seen, said = [], []
    for seed in range(40):
        logits, labels = draw(seed, 300, 1.0)
        confidence = probabilities(logits, 1.0).max(axis=1)
        seen.append(temperature.reliability(confidence, logits.argmax(axis=1) == labels).error)
        said.append(temperature.by_chance(confidence))
    assert np.mean(said) == pytest.approx(np.mean(seen), rel=0.1)
    assert np.mean(said) > 0.02
