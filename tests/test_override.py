"""Thresholds of a site's own: they change which rows pass, and nothing of what the vendor measures."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance import canonical, override
from appliance.bundle.manifest import SCORES, Accept, DecisionRule, Expected, Unknown
from appliance.errors import ConfigError
from appliance.model.decision import Decision, Judge
from appliance.model.unknown import Mahalanobis
from appliance.override import AS_SIGNED, Override

RULE = DecisionRule(
    1_500_000, Accept("max_probability", 500_000), Unknown("mahalanobis", 3_000_000), None, Expected(9, 1, 1)
)
ACCEPTS = st.none() | st.integers(0, 1_000_000)
REJECTS = st.none() | st.integers(-(10**15), 10**15)
OVERRIDES = st.builds(Override, ACCEPTS, REJECTS)


@given(OVERRIDES)
def test_what_is_written_is_what_is_read(made: Override) -> None:
    assert override.decode(canonical.decode(canonical.encode(made.encode()))) == made
    assert bool(made) == bool(made.encode())


@pytest.mark.parametrize("said", [
    *({"accept_at_least_e6": value} for value in ("800000", 0.8, True, [800_000], None)), {"temperature_e6": 1},
])  # fmt: skip
def test_what_is_no_whole_number_of_ours_is_no_threshold(said: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        override.decode(said)


@given(OVERRIDES)
def test_thresholds_change_and_nothing_else_does(made: Override) -> None:
    rule = made.over(RULE)
    assert rule.unknown is not None
    assert rule.accept.at_least_e6 == (500_000 if made.accept_at_least_e6 is None else made.accept_at_least_e6)
    assert rule.unknown.reject_above_e6 == (3_000_000 if made.reject_above_e6 is None else made.reject_above_e6)
    back = replace(
        rule,
        accept=replace(rule.accept, at_least_e6=500_000),
        unknown=replace(rule.unknown, reject_above_e6=3_000_000),
    )
    assert back == RULE
    assert AS_SIGNED.over(RULE) == RULE


@given(st.lists(OVERRIDES, max_size=5))
def test_the_last_word_on_each_threshold_counts_and_the_signed_one_is_no_override(said: list[Override]) -> None:
    found, accept, reject = AS_SIGNED, 500_000, 3_000_000
    for later in said:
        found = found.then(later, RULE)
        accept = accept if later.accept_at_least_e6 is None else later.accept_at_least_e6
        reject = reject if later.reject_above_e6 is None else later.reject_above_e6
    assert found.over(RULE) == Override(accept, reject).over(RULE)
    assert found.accept_at_least_e6 != 500_000
    assert found.reject_above_e6 != 3_000_000


@pytest.mark.parametrize(("score", "wrong", "sentence"), [
    ("max_probability", 1_000_001, "a threshold of max_probability is from 0 to 1"),
    ("margin", -1, "a threshold of margin is from 0 to 1"),
    ("top_two", 2_000_000, "a threshold of top_two is from 0 to 1"),
    ("entropy", 1, "a threshold of entropy is from -12 to 0"),
    ("gen", 500_000, "a threshold of gen is from -100 to 0"),
    ("max_logit", 10**12 + 1, "a threshold of max_logit is from -1000000 to 1000000"),
    ("energy", -(10**12) - 1, "a threshold of energy is from -1000000 to 1000000"),
])  # fmt: skip
def test_a_threshold_that_its_score_never_reaches_is_refused(score: str, wrong: int, sentence: str) -> None:
    assert score in SCORES
    with pytest.raises(ConfigError, match=sentence):
        AS_SIGNED.then(Override(wrong), replace(RULE, accept=Accept(score, -1 if score in ("entropy", "gen") else 1)))


def test_every_score_has_its_range_tried_here() -> None:
    marks = test_a_threshold_that_its_score_never_reaches_is_refused.pytestmark  # type: ignore[attr-defined]
    assert {case[0] for case in marks[0].args[1]} == set(SCORES)


def test_a_model_that_does_not_tell_unknown_inputs_has_no_threshold_for_them() -> None:
    with pytest.raises(ConfigError, match="does not tell unknown inputs"):
        AS_SIGNED.then(Override(None, 1), replace(RULE, unknown=None))
    with pytest.raises(ConfigError, match="a distance is from -1000000000 to 1000000000"):
        AS_SIGNED.then(Override(None, 10**15 + 1), RULE)


def test_people_read_the_number_that_was_set() -> None:
    assert str(Override(812_345, 3_200_000)) == "accepts at 0.812345 or more and takes for unknown above 3.2"
    assert str(Override(None, 123_456_789_000_001)) == "takes for unknown above 123456789.000001"
    assert str(AS_SIGNED) == "decides as signed"


def test_a_row_is_decided_by_the_thresholds_that_are_on() -> None:
    """Scores and distances are the same; a NaN is unknown whatever the threshold."""
    detector = Mahalanobis(np.zeros((3, 1), np.float32), np.ones((1, 1), np.float32))
    logits = np.array([[9, 0, 0], [0.5, 0, 0], [9, 0, 0], [9, 0, 0]], np.float32)
    embedding = np.array([[0], [0], [4], [np.nan]], np.float32)
    decided = {
        made: Judge(made.over(RULE), detector).judge(logits, embedding)
        for made in (AS_SIGNED, Override(1_000_000), Override(0, 5_000_000))
    }
    a, b, o = Decision.ACCEPT, Decision.ABSTAIN, Decision.OUT_OF_DISTRIBUTION
    assert [found.decisions for found in decided.values()] == [(a, b, o, o), (b, b, o, o), (a, a, a, o)]
    signed = decided[AS_SIGNED]
    for found in decided.values():
        np.testing.assert_array_equal(found.certainty, signed.certainty)
        np.testing.assert_array_equal(found.distance, signed.distance)
