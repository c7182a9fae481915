"""The arithmetic of calibration, against hand-made cases, scikit-learn and SciPy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.covariance import ledoit_wolf

from appliance.model.confidence import Reference, probabilities
from appliance.model.decision import E6
from export import calibrate
from export.errors import CalibrationError


def draw(seed: int, n: int, temperature: float, classes: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and labels drawn from softmax(logits / temperature)."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (n, classes)) * temperature
    chances = probabilities(logits, temperature).cumsum(axis=1)
    return logits.astype(np.float32), (rng.random((n, 1)) > chances).sum(axis=1).clip(max=classes - 1)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.3, 8))
def test_known_temperature_is_recovered(seed: int, temperature: float) -> None:
    """Labels drawn at temperature T give T back."""
    assert calibrate.temperature(*draw(seed, 4000, temperature)) == pytest.approx(temperature, rel=0.15)


@settings(max_examples=20, deadline=None)
@given(st.floats(0.2, 5))
def test_temperature_follows_the_scale_of_the_logits(scale: float) -> None:
    """Logits k times as large need a temperature k times as high."""
    logits, labels = draw(1, 500, 1.0)
    scaled = calibrate.temperature(logits.astype(np.float64) * scale, labels)
    assert scaled == pytest.approx(scale * calibrate.temperature(logits, labels), rel=1e-4)


def test_model_without_an_error_keeps_its_temperature() -> None:
    """No error bounds the certainty, so nothing is made surer than it was."""
    logits = np.eye(3, dtype=np.float32)[np.arange(120) % 3]
    assert calibrate.temperature(logits, logits.argmax(axis=1)) == 1.0


def test_model_no_better_than_chance_is_refused() -> None:
    """An anti-correlated model cannot be mended by a temperature."""
    logits = np.eye(3, dtype=np.float32)[np.arange(120) % 3]
    with pytest.raises(CalibrationError, match=r"no better than chance .* 0\.0%"):
        calibrate.temperature(logits, (logits.argmax(axis=1) + 1) % 3)


def test_calibration_error_of_a_hand_computed_case() -> None:
    """Two answers at 0.95, one right; two at 0.55, both right: (|1.9 − 1| + |1.1 − 2|) / 4."""
    confidence, right = np.array([0.95, 0.95, 0.55, 0.55]), np.array([True, False, True, True])
    assert calibrate.expected_calibration_error(confidence, right) == pytest.approx(0.45)


def test_certain_answers_fall_into_the_last_bin() -> None:
    """A probability of exactly 1 has a bin, and being right there costs nothing."""
    assert calibrate.expected_calibration_error(np.ones(5), np.ones(5, bool)) == 0


@pytest.mark.parametrize(("errors", "trials"), [(0, 1), (0, 100), (1, 100), (7, 497), (40, 60), (99, 100), (3, 100_000)])
def test_upper_bound_is_that_of_clopper_and_pearson(errors: int, trials: int) -> None:
    """It is the 95 % quantile of Beta(k + 1, n − k)."""
    expected = stats.beta.ppf(0.95, errors + 1, trials - errors)
    assert calibrate.upper_bound(errors, trials) == pytest.approx(expected, abs=1e-9)


def test_upper_bound_where_everything_is_wrong() -> None:
    assert calibrate.upper_bound(5, 5) == 1.0


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 60), st.booleans()), min_size=1, max_size=120), st.floats(0.02, 0.6))
def test_threshold_is_the_smallest_that_keeps_the_promise(rows: list[tuple[int, bool]], error_max: float) -> None:
    """Against the obvious search; and where there is none, what the refusal proposes works."""
    confidence = np.array([value / 60 for value, _ in rows])
    right = np.array([good for _, good in rows])

    def bound(threshold: int) -> float:
        accepted = confidence >= threshold / E6
        return calibrate.upper_bound(int((~right[accepted]).sum()), int(accepted.sum()))

    thresholds = sorted({int(np.floor(value * E6)) for value in confidence})
    good = [threshold for threshold in thresholds if bound(threshold) <= error_max]
    if good:
        point = calibrate.operating_point(confidence, right, error_max)
        assert point.accept_at_least_e6 == good[0]
        assert point.accepted == int((confidence >= good[0] / E6).sum())
        assert point.bound <= error_max
    else:
        with pytest.raises(CalibrationError) as refusal:
            calibrate.operating_point(confidence, right, error_max)
        proposed = float(str(refusal.value).split("error_among_accepted_max=")[1].split(",")[0])
        if proposed < 1:
            calibrate.operating_point(confidence, right, proposed)


def test_unreachable_promise_says_what_would_work() -> None:
    """The refusal has the best bound found and the number of images that would be needed."""
    with pytest.raises(CalibrationError, match=r"1\.00% or less .* 0 errors in 120 answers, .*at least 299 accepted"):
        calibrate.operating_point(np.full(120, 0.9), np.ones(120, bool), 0.01)


def test_risk_falls_with_coverage() -> None:
    """Of ten answers the two least sure are wrong: 20 % at full coverage, none at 80 %."""
    confidence = np.linspace(0.5, 0.95, 10)
    risk = calibrate.risk_at_coverage(confidence, confidence > 0.59)
    assert (risk["100%"], risk["80%"], risk["50%"]) == (0.2, 0.0, 0.0)


def test_covariance_shrinks_as_ledoit_and_wolf_say() -> None:
    rows = np.random.default_rng(3).normal(size=(60, 20)) * np.linspace(0.1, 2, 20)
    expected, _ = ledoit_wolf(rows, assume_centered=True)
    assert calibrate.shrunk_covariance(rows) == pytest.approx(expected)


def clusters(n: int = 200, classes: int = 4) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(5)
    labels = np.arange(n) % classes
    points = rng.normal(size=(n, 8)) + 6 * np.eye(8)[labels]
    points[:, -1] = 0.0  # a unit that never fires
    return points.astype(np.float32), labels


def test_reference_knows_its_own_and_flags_the_strange() -> None:
    """About 95 % of fresh images of the same kind are known; a far point and a unit that suddenly fires are not."""
    points, labels = clusters(2000)
    reference, reject = calibrate.fit_reference(points, labels, 4)
    assert np.mean(reference.distance(points) <= reject / E6) == pytest.approx(0.95, abs=0.01)
    strange = np.stack([np.full(8, 30.0), points[0] + 2 * np.eye(8)[-1]])
    assert (reference.distance(strange) > reject / E6).all()


def test_reference_survives_its_own_encoding() -> None:
    """A precision rounded to float32 is still positive definite, or a site would refuse the bundle."""
    reference, _ = calibrate.fit_reference(*clusters(), 4)
    again = Reference.decode(reference.encode(), 4)
    assert np.array_equal(again.precision, reference.precision)


def test_label_without_images_is_refused_where_the_unknown_is_wanted() -> None:
    points, labels = clusters()
    with pytest.raises(CalibrationError, match=r"label 4 has 0; .* unknown=False"):
        calibrate.fit_reference(points, labels, 5)


def test_embedding_that_never_varies_is_refused() -> None:
    with pytest.raises(CalibrationError, match="does not vary"):
        calibrate.fit_reference(np.zeros((200, 3), np.float32), np.arange(200) % 2, 2)


def test_label_without_images_is_fine_without_the_unknown() -> None:
    """Calibration of probabilities needs no image of each label."""
    logits, labels = draw(2, 400, 2.0, classes=3)
    wide = np.pad(logits * 4, ((0, 0), (0, 1)), constant_values=-30)
    result = calibrate.calibrate(wide, None, labels, 0.5, unknown=False, coverage=0.9)
    assert (result.rule.unknown, result.reference) == (None, None)


def test_unknown_without_an_embedding_is_refused() -> None:
    logits, labels = draw(2, 400, 2.0)
    with pytest.raises(CalibrationError, match="unknown=False"):
        calibrate.calibrate(logits, None, labels, 0.5, unknown=True, coverage=0.9)


def test_too_few_images_are_refused() -> None:
    logits, labels = draw(2, 99, 1.0)
    with pytest.raises(CalibrationError, match="at least 100 validation images, and there are 99"):
        calibrate.calibrate(logits, None, labels, 0.5, unknown=False, coverage=0.9)
