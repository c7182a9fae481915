"""Risk and coverage, against brute force and published identities; and the choice between scores."""

import itertools
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from appliance.bundle.manifest import SCORES
from appliance.model.confidence import probabilities
from export import scores
from export.scores import Ranked
from tests.export.draws import draw

CASES = st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=1, max_size=7)


def brute_force(certain: NDArray[np.float64], wrong: NDArray[np.bool_]) -> tuple[float, float]:
    """AURC and AUGRC averaged over every order that puts the surer first, by their definitions."""
    areas = []
    for order in itertools.permutations(range(len(wrong))):
        if all(certain[a] >= certain[b] for a, b in itertools.pairwise(order)):
            errors = np.cumsum(wrong[list(order)])
            n = np.arange(1, len(wrong) + 1)
            path = np.concatenate([[0], errors]) / len(wrong)
            areas.append((np.mean(errors / n), np.trapezoid(path, np.arange(len(wrong) + 1) / len(wrong))))
    aurc, augrc = np.mean(areas, axis=0)
    return float(aurc), float(augrc)


@settings(max_examples=40, deadline=None)
@given(CASES)
def test_areas_are_the_mean_over_all_orders_of_ties(rows: list[tuple[int, bool]]) -> None:
    certain, wrong = np.array([v / 5 for v, _ in rows]), np.array([w for _, w in rows])
    counts = Ranked(certain, wrong).counts()
    assert (scores.aurc(*counts), scores.augrc(*counts)) == pytest.approx(brute_force(certain, wrong))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.booleans()), min_size=2, max_size=200), st.randoms())
def test_order_of_the_rows_cannot_matter(rows: list[tuple[int, bool]], random: object) -> None:
    shuffled = list(rows)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    one, other = ([*zip(*each, strict=True)] for each in (rows, shuffled))
    found = [Ranked(np.array(c) / 9, np.array(w)).counts() for c, w in (one, other)]
    for figure in (scores.aurc, scores.augrc, lambda *counts: scores.accuracy_at(*counts, 0.5)):
        assert figure(*found[0]) == pytest.approx(figure(*found[1]), rel=1e-12)


def test_augrc_is_the_published_closed_form() -> None:
    """(1 − AUROC of failure) · accuracy · (1 − accuracy) + (1 − accuracy)² / 2 (Traub et al. 2024, equation 8)."""
    random = np.random.default_rng(1)
    wrong = random.random(500) < 0.3
    certain = np.round(random.normal(size=500) - wrong, 1)
    accuracy = 1 - wrong.mean()
    closed = (1 - roc_auc_score(~wrong, certain)) * accuracy * (1 - accuracy) + (1 - accuracy) ** 2 / 2
    assert scores.augrc(*Ranked(certain, wrong).counts()) == pytest.approx(closed)


def test_areas_of_known_cases() -> None:
    """No error: nothing. All wrong: 1 and a half. One score for all: the error, and half of it. The best order: last."""

    def areas(certain: list[float], wrong: list[bool]) -> tuple[float, float]:
        counts = Ranked(np.array(certain), np.array(wrong)).counts()
        return scores.aurc(*counts), scores.augrc(*counts)

    assert areas([1, 2, 3], [False] * 3) == (0, 0)
    assert areas([1, 2, 3], [True] * 3) == pytest.approx((1, 0.5))
    assert areas([7] * 4, [True, False, False, False]) == pytest.approx((0.25, 0.125))
    assert areas([4, 3, 2, 1], [False, False, False, True]) == pytest.approx((1 / 16, 1 / 32))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_drawn_cases_count_as_often_as_they_were_drawn(seed: int) -> None:
    """What the bootstrap sums by weights is what repeated rows give."""
    random = np.random.default_rng(seed)
    certain, wrong = random.integers(0, 20, 60) / 20, random.random(60) < 0.4
    drawn = random.integers(0, 60, 60)
    weighted = Ranked(certain, wrong).counts(np.bincount(drawn, minlength=60))
    repeated = Ranked(certain[drawn], wrong[drawn]).counts()
    assert scores.aurc(*weighted) == pytest.approx(scores.aurc(*repeated))


def test_accuracy_rises_as_coverage_falls() -> None:
    """Of ten answers the two least sure are wrong: 80 % at full coverage, all right at 80 %."""
    certain = np.linspace(0.5, 0.95, 10)
    counts = Ranked(certain, certain < 0.59).counts()
    assert [scores.accuracy_at(*counts, coverage) for coverage in (1.0, 0.9, 0.8, 0.5)] == pytest.approx([0.8, 8 / 9, 1, 1])


def test_risk_curve_ends_in_the_error_of_all() -> None:
    random = np.random.default_rng(2)
    wrong = random.random(200) < 0.2
    curve = scores.risk_curve(*Ranked(random.random(200), wrong).counts())
    assert curve.coverage[-1] == 1
    assert curve.risk[-1] == pytest.approx(wrong.mean())


def test_what_a_threshold_cannot_tell_apart_is_a_tie() -> None:
    """With two classes the two best probabilities sum to 1, give or take a rounding; so that score knows nothing."""
    logits, labels = draw(3, 500, 1.0, classes=2)
    right = logits.argmax(axis=1) == labels
    found = scores.compare(scores.certainties(logits, probabilities(logits, 1.0), 1.0), right)
    top_two = next(result for result in found if result.score == "top_two")
    assert top_two.aurc == pytest.approx(1 - right.mean())


def test_simplest_within_one_standard_error_is_chosen() -> None:
    """Of two scores that are worth the same the simpler is mostly taken (five times in six, at one standard error); one
    that is plainly worse never is.
    """
    taken = []
    for seed in range(40):
        random = np.random.default_rng(seed)
        wrong = random.random(500) < 0.2
        alike, good = random.normal(size=500) - 2 * wrong + random.normal(0, 0.1, (2, 500))
        poor = random.normal(size=500)
        found = scores.compare({"poor": poor, "alike": alike, "good": good}, ~wrong)
        taken.append(next(result.score for result in found if result.chosen))
        assert taken[-1] == next(result.score for result in found if result.behind <= result.standard_error)
        best = min(found, key=lambda result: result.aurc)
        assert (best.behind, best.standard_error) == (0, 0)
    assert taken.count("poor") == 0
    assert taken.count("alike") >= 26


def test_standard_error_is_that_of_the_paired_difference() -> None:
    """Over fresh samples, the difference between two scores varies as the bootstrap says: far less than either area."""
    random = np.random.default_rng(6)
    differences, said = [], []
    for _ in range(60):
        wrong = random.random(400) < 0.2
        one = random.normal(size=400) - 1.5 * wrong
        other = one + random.normal(0, 0.5, 400)
        found = scores.compare({"one": one, "other": other}, ~wrong)
        differences.append(found[1].aurc - found[0].aurc)
        said.append(max(result.standard_error for result in found))
    assert np.mean(said) == pytest.approx(np.std(differences), rel=0.3)


def test_a_score_asked_for_is_taken() -> None:
    random = np.random.default_rng(5)
    found = scores.compare({"good": np.arange(100.0), "asked": random.random(100)}, np.arange(100) > 20, "asked")
    assert [result.score for result in found if result.chosen] == ["asked"]


def test_ten_thousand_answers_are_compared_in_seconds() -> None:
    """Seven scores, a hundred classes."""
    logits, labels = draw(7, 10_000, 1.0, classes=100)
    started = time.process_time()
    found = scores.compare(scores.certainties(logits, probabilities(logits, 1.0), 1.0), logits.argmax(axis=1) == labels)
    assert tuple(result.score for result in found) == SCORES
    assert time.process_time() - started < 10
