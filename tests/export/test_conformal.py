"""Label sets hold the true label as often as promised, on average over validation sets; or the promise is refused."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from appliance.bundle.manifest import LABEL_SETS
from appliance.model.confidence import probabilities
from appliance.model.decision import label_sets
from export import binomial, conformal
from export.errors import CalibrationError
from tests.export.draws import draw


def likely(seed: int, n: int, classes: int = 4, believed: float = 1.0) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Probabilities and labels; where ``believed`` is not 1, probabilities that are wrong about them."""
    logits, labels = draw(seed, n, 1.0, classes)
    return probabilities(logits, believed), labels


def covered(rule: conformal.LabelSetRule, calibrated: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.bool_]:
    return label_sets(rule, calibrated)[np.arange(len(labels)), labels]


@pytest.mark.parametrize("method", LABEL_SETS)
@pytest.mark.parametrize("believed", [0.4, 1.0, 3.0], ids=["too sure", "calibrated", "too unsure"])
@pytest.mark.parametrize("coverage", [0.8, 0.95])
def test_sets_hold_the_true_label_at_the_rate_promised(method: str, believed: float, coverage: float) -> None:
    """On average over 150 validation sets, whatever the probabilities are worth; and with sets no larger than that takes."""
    found = []
    for seed in range(150):
        rule = conformal.fit(method, *likely(2 * seed, 600, believed=believed), coverage)
        found.append(covered(rule, *likely(2 * seed + 1, 1000, believed=believed)).mean())
    error = np.std(found) / np.sqrt(len(found))
    assert np.mean(found) >= coverage - 3 * error
    assert np.mean(found) <= coverage + 0.02 or (believed, coverage) == (0.4, 0.8)  # where the top label alone covers more


def test_true_coverage_is_spread_as_the_beta_says() -> None:
    """Over 400 validation sets: the 5 % bound fails about once in twenty."""
    kept, coverage, n = [], 0.9, 200
    fresh, labels = likely(1, 40_000, classes=6)
    for seed in range(400):
        rule = conformal.fit("lac", *likely(seed + 100, n, classes=6), coverage)
        kept.append(covered(rule, fresh, labels).mean())
    low, high = binomial.coverage_interval(n, coverage)
    assert 0.02 <= np.mean(np.array(kept) < low) <= 0.08
    assert 0.02 <= np.mean(np.array(kept) > high) <= 0.08
    missed = binomial.left_out(n, coverage)
    assert stats.kstest(kept, stats.beta(n + 1 - missed, missed).cdf).pvalue > 0.001


def test_every_class_has_its_promise_where_each_has_a_threshold() -> None:
    """A class that the network finds hard is covered as often as one that it finds easy; with one threshold it is not."""

    def hard(seed: int, n: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        random = np.random.default_rng(seed)
        labels = random.integers(0, 3, n)
        logits = random.normal(0, 1, (n, 3)) + np.array([6.0, 6.0, 1.0])[labels, None] * np.eye(3)[labels]
        return probabilities(logits, 1.0), labels

    worst = {}
    for method in ("lac", "lac_by_class"):
        fresh, labels = hard(999, 5000)
        kept = np.mean([covered(conformal.fit(method, *hard(seed, 900), 0.9), fresh, labels) for seed in range(20)], axis=0)
        worst[method] = min(kept[labels == k].mean() for k in range(3))
    assert worst["lac"] < 0.8
    assert worst["lac_by_class"] > 0.88


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 8), st.sampled_from(LABEL_SETS), st.floats(0.5, 0.99), st.floats(0.05, 10))
def test_sets_are_never_empty_and_cover_their_own_cases(
    seed: int, classes: int, method: str, coverage: float, believed: float
) -> None:
    """Of the cases that chose a threshold, at most l are missed: all that the promise allows, however scores tie."""
    calibrated, labels = likely(seed, 110 * classes, classes, believed)
    labels = np.concatenate([np.arange(110 * classes // 2) % classes, labels[110 * classes // 2 :]])  # enough of each
    calibrated = np.round(calibrated, 2)  # ties, and rows that sum to a little less or more than 1
    counts = np.bincount(labels)
    if method == "lac_by_class" and counts.min() < conformal.CASES_OF_A_CLASS_MIN:
        return
    rule = conformal.fit(method, calibrated, labels, coverage)
    sets = label_sets(rule, calibrated)
    assert sets.any(axis=1).all()
    groups = [labels == k for k in range(classes)] if method == "lac_by_class" else [np.ones(len(labels), bool)]
    for group in groups:
        missed = ~sets[group, labels[group]]
        assert missed.sum() <= binomial.left_out(int(group.sum()), coverage)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(["lac", "lac_by_class"]), st.floats(0.5, 0.9), st.floats(0.0, 0.09))
def test_more_coverage_never_drops_a_label(seed: int, method: str, coverage: float, more: float) -> None:
    calibrated, labels = likely(seed, 900)
    narrow, wide = (
        label_sets(conformal.fit(method, calibrated, labels, c), calibrated) for c in (coverage, coverage + more)
    )
    assert (wide >= narrow).all()


def test_coverage_is_measured_on_cases_that_did_not_choose_the_threshold() -> None:
    """With a label for nearly every case, thresholds fitted on the very cases cover exactly; folds tell the truth."""
    found = [conformal.measure("lac", *likely(seed, 150), 0.9, chosen=True).coverage for seed in range(60)]
    assert np.mean(found) == pytest.approx(0.9, abs=0.012)
    result = conformal.measure("lac", *likely(3, 1000), 0.9, chosen=True)
    assert 1 < result.labels_mean < 4
    assert result.interval == binomial.coverage_interval(1000, 0.9)
    assert len(result.coverage_by_class) == 4


def test_folds_part_every_label_evenly() -> None:
    labels = np.random.default_rng(0).integers(0, 3, 200)
    parts = conformal.folds(labels)
    assert np.sum(parts, axis=0).tolist() == [1] * 200
    for part in parts:
        assert abs(np.bincount(labels[part], minlength=3) - np.bincount(labels) / 10).max() < 1.01


def test_label_without_an_image_has_no_coverage() -> None:
    calibrated, labels = likely(1, 300, 3)
    wide = np.hstack([calibrated, np.zeros((300, 1))])
    _, results = conformal.choose(wide, labels, 0.9)
    assert [result.method for result in results] == ["lac"]
    assert results[0].coverage_by_class[3] is None


def test_method_is_chosen_by_how_many_cases_each_label_has() -> None:
    """A threshold for each class where each has a hundred; one for all otherwise; RAPS where it is asked for."""
    many, few = likely(1, 1000), likely(1, 300)
    assert conformal.choose(*many, 0.9)[0].method == "lac_by_class"
    assert conformal.choose(*few, 0.9)[0].method == "lac"
    assert conformal.choose(*many, 0.998)[0].method == "lac", "a class of 200 cannot carry 99.8 %, but 1,000 cases can"
    rule, results = conformal.choose(*few, 0.9, "raps")
    assert rule.method == "raps"
    assert [(result.method, result.chosen) for result in results] == [("lac", False), ("raps", True)]


def test_own_probability_is_not_counted_against_a_label() -> None:
    """With it, and without chance, sets held 5.17 labels where 1.35 would do."""
    calibrated, labels = likely(5, 2000, classes=10)
    lac, raps = (conformal.measure(method, calibrated, labels, 0.9, chosen=True).labels_mean for method in ("lac", "raps"))
    assert raps < 1.15 * lac


@pytest.mark.parametrize("method", ["lac", "raps"])
def test_coverage_that_so_few_cases_cannot_carry_is_refused(method: str) -> None:
    with pytest.raises(
        CalibrationError, match=r"0\.999 need at least 999 validation cases, and there are 500.* 0\.998 at most"
    ):
        conformal.fit(method, *likely(1, 500), 0.999)
    assert conformal.needed(0.999) == 999


def test_class_with_too_few_cases_is_refused_where_each_is_promised() -> None:
    calibrated, labels = likely(1, 300)
    with pytest.raises(
        CalibrationError, match=r"at least 100 validation cases of each label, and there are \d+ of label \d"
    ):
        conformal.fit("lac_by_class", calibrated, labels, 0.9)
    calibrated, labels = likely(1, 600)
    with pytest.raises(CalibrationError, match=r"0\.999 need at least 999 validation cases of label \d"):
        conformal.fit("lac_by_class", calibrated, labels, 0.999)


def test_interval_of_several_thresholds_is_that_of_their_mixture() -> None:
    """Two classes alike, as many of each: the spread is that of twice as many cases, near enough."""
    low, high = conformal.true_coverage([500, 500], 0.9)
    assert (low, high) == pytest.approx(binomial.coverage_interval(1000, 0.9), abs=0.003)
