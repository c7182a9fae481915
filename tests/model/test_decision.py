"""The decision: first whether the image is of the kind that the model knows, then whether the model is sure."""

import numpy as np
import pytest

from appliance.bundle.manifest import DecisionRule, Unknown
from appliance.errors import InferenceFailed
from appliance.model.confidence import Reference
from appliance.model.decision import Decision, Judge, Judgement

REFERENCE = Reference(np.zeros((2, 3), np.float32), np.eye(3, dtype=np.float32))
RULE = DecisionRule(1_000_000, 900_000, Unknown("mahalanobis", 5_000_000))
SURE, UNSURE, NEAR, FAR = [5.0, 0.0], [0.5, 0.0], [1.0, 0.0, 0.0], [50.0, 0.0, 0.0]


def judge(rows: list[list[float]], embeddings: list[list[float]] | None, rule: DecisionRule = RULE) -> Judgement:
    made = Judge(rule, REFERENCE if rule.unknown else None)
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
    at = judge([[0.0, 0.0]], [[5.0, 0, 0]], DecisionRule(1_000_000, 500_000, Unknown("mahalanobis", 5_000_000)))
    assert at.decisions == (Decision.ACCEPT,)


def test_rule_that_nothing_can_satisfy_abstains_always() -> None:
    """1,000,001 millionths: the vendor's way to say that no answer is good enough."""
    assert judge([[1000.0, 0.0]], [NEAR], DecisionRule(1_000_000, 1_000_001, None)).decisions == (Decision.ABSTAIN,)


def test_model_without_a_reference_has_no_distance() -> None:
    found = judge([SURE, UNSURE], None, DecisionRule(1_000_000, 900_000, None))
    assert (found.distance, found.decisions) == (None, (Decision.ACCEPT, Decision.ABSTAIN))


def test_temperature_makes_an_answer_less_sure_and_never_another() -> None:
    hot = judge([SURE], None, DecisionRule(10_000_000, 900_000, None))
    assert (hot.decisions, hot.top.tolist()) == ((Decision.ABSTAIN,), [0])
    assert hot.confidence[0] == pytest.approx(1 / (1 + np.exp(-0.5)))


def test_confidence_is_the_probability_of_the_top_class() -> None:
    found = judge([[0.0, 2.0], [3.0, 1.0]], None, DecisionRule(1_000_000, 0, None))
    assert found.top.tolist() == [1, 0]
    assert found.confidence == pytest.approx(found.probabilities.max(axis=1))


def test_no_rows_have_no_decisions() -> None:
    made = Judge(DecisionRule(1_000_000, 0, None), None).judge(np.zeros((0, 2), np.float32), None)
    assert made.decisions == ()


def test_letters_of_the_record_are_distinct() -> None:
    assert [decision.letter for decision in Decision] == ["A", "B", "O"]
