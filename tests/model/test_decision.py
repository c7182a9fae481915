"""The decision: first whether the image is of the kind that the model knows, then whether the model is sure."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from appliance.bundle.manifest import Accept, DecisionRule, Expected, LabelSetRule, Unknown
from appliance.errors import InferenceFailed
from appliance.model.decision import Decision, Judge, Judgement, cumulated, label_sets
from appliance.model.unknown import Mahalanobis

REFERENCE = Mahalanobis(np.zeros((2, 3), np.float32), np.eye(3, dtype=np.float32))
FIVE = Unknown("mahalanobis", 5_000_000)


def rule(
    temperature_e6: int = 1_000_000, at_least_e6: int = 0, unknown: Unknown | None = None, score: str = "max_probability"
) -> DecisionRule:
    return DecisionRule(temperature_e6, Accept(score, at_least_e6), unknown, None, Expected(1, 0, 0))


RULE = rule(at_least_e6=900_000, unknown=FIVE)
SURE, UNSURE, NEAR, FAR = [5.0, 0.0], [0.5, 0.0], [1.0, 0.0, 0.0], [50.0, 0.0, 0.0]


def judge(rows: list[list[float]], embeddings: list[list[float]] | None, by: DecisionRule = RULE) -> Judgement:
    made = Judge(by, REFERENCE if by.unknown else None)
    points = None if embeddings is None else np.array(embeddings, np.float32)
    return made.judge(np.array(rows, np.float32), points)


def test_the_wrong_kind_of_image_is_out_of_distribution_however_sure_the_answer() -> None:
    found = judge([SURE, SURE, UNSURE, UNSURE], [NEAR, FAR, NEAR, FAR])
    assert found.decisions == (
        Decision.ACCEPT, Decision.OUT_OF_DISTRIBUTION, Decision.ABSTAIN, Decision.OUT_OF_DISTRIBUTION,
    )  # fmt: skip


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 3e38])
def test_distance_that_is_no_number_is_out_of_distribution(value: float) -> None:
    with np.errstate(all="ignore"):
        found = judge([SURE], [[value, value, 0]])
    assert found.decisions == (Decision.OUT_OF_DISTRIBUTION,)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_logits_that_are_no_numbers_are_no_answer(value: float) -> None:
    """Not even for the neighbours in the same rows."""
    with pytest.raises(InferenceFailed):
        judge([SURE, [value, 0.0]], [NEAR, NEAR])


def test_thresholds_themselves_are_inside() -> None:
    at = judge([[0.0, 0.0]], [[5.0, 0, 0]], rule(at_least_e6=500_000, unknown=FIVE))
    assert at.decisions == (Decision.ACCEPT,)


def test_rule_that_nothing_can_satisfy_abstains_always() -> None:
    """1,000,001 millionths: the vendor's way to say that no answer is good enough."""
    assert judge([[1000.0, 0.0]], [NEAR], rule(at_least_e6=1_000_001)).decisions == (Decision.ABSTAIN,)


def test_model_without_a_reference_has_no_distance() -> None:
    found = judge([SURE, UNSURE], None, rule(at_least_e6=900_000))
    assert (found.distance, found.decisions) == (None, (Decision.ACCEPT, Decision.ABSTAIN))


def test_temperature_makes_an_answer_less_sure_and_never_another() -> None:
    hot = judge([SURE], None, rule(10_000_000, 900_000))
    assert (hot.decisions, hot.top.tolist()) == ((Decision.ABSTAIN,), [0])
    assert hot.confidence[0] == pytest.approx(1 / (1 + np.exp(-0.5)))


def test_confidence_is_the_probability_of_the_top_class() -> None:
    found = judge([[0.0, 2.0], [3.0, 1.0]], None, rule())
    assert found.top.tolist() == [1, 0]
    assert found.confidence == pytest.approx(found.probabilities.max(axis=1))


def test_no_rows_have_no_decisions() -> None:
    made = Judge(rule(), None).judge(np.zeros((0, 2), np.float32), None)
    assert made.decisions == ()


def test_letters_of_the_record_are_distinct() -> None:
    assert [decision.letter for decision in Decision] == ["A", "B", "O"]


@pytest.mark.parametrize(("score", "at_least_e6"), [("entropy", -100_000), ("energy", 4_000_000), ("max_logit", 4_000_000)])
def test_answer_is_accepted_by_the_score_that_the_rule_names(score: str, at_least_e6: int) -> None:
    found = judge([SURE, UNSURE], None, rule(at_least_e6=at_least_e6, score=score))
    assert found.decisions == (Decision.ACCEPT, Decision.ABSTAIN)
    assert found.certainty[0] > at_least_e6 / 1e6 > found.certainty[1]


P = np.array([[0.5, 0.3, 0.15, 0.05], [0.25, 0.25, 0.25, 0.25]])


def kept(*thresholds_e6: int, method: str = "lac", penalty_e6: int = 0, free_ranks: int = 0) -> list[list[int]]:
    found = label_sets(LabelSetRule(method, 900_000, thresholds_e6, penalty_e6, free_ranks), P)
    return [np.flatnonzero(row).tolist() for row in found]


def test_labels_that_are_likely_enough_are_kept() -> None:
    assert kept(150_000) == [[0, 1, 2], [0, 1, 2, 3]]
    assert kept(600_000) == [[0], [0]], "the top one in any case"
    assert kept(600_000, 300_000, 200_000, 0, method="lac_by_class") == [[0, 1, 3], [0, 2, 3]]


def test_labels_are_kept_until_enough_probability_goes_before_them() -> None:
    assert kept(500_000, method="raps") == [[0, 1], [0, 1, 2]]
    assert kept(499_999, method="raps") == [[0], [0, 1]]
    assert kept(500_000, method="raps", penalty_e6=100_000, free_ranks=1) == [[0], [0, 1]]


@given(
    hnp.arrays(np.float64, st.tuples(st.integers(1, 4), st.integers(2, 7)), elements=st.floats(0, 9)),
    st.floats(0, 1),
    st.integers(0, 5),
)
def test_what_goes_before_a_label_is_what_ranks_before_it(logits: np.ndarray, penalty: float, free: int) -> None:
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    found = cumulated(p, penalty, free)
    for row, own in zip(p, found, strict=True):
        order = sorted(range(len(row)), key=lambda k: (-row[k], k))
        for rank, k in enumerate(order):
            expected = math.fsum(row[j] for j in order[:rank]) + penalty * max(0, rank + 1 - free)
            assert own[k] == pytest.approx(expected, abs=1e-9)


@given(
    hnp.arrays(np.float64, st.tuples(st.integers(1, 4), st.integers(2, 7)), elements=st.floats(0, 9)), st.integers(0, 10**6)
)
def test_no_set_is_empty_and_a_looser_one_holds_the_stricter(logits: np.ndarray, threshold: int) -> None:
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    for method, looser in (("lac", threshold // 2), ("raps", threshold * 2)):
        strict, loose = (label_sets(LabelSetRule(method, 900_000, (t,)), p) for t in (threshold, looser))
        assert strict.any(axis=1).all()
        assert (strict <= loose).all()
