"""The whole of calibration: one complete rule, from the graph's outputs on validation images and on strange ones."""

import time
from dataclasses import replace

import numpy as np
import pytest

from appliance.bundle.manifest import E6, SCORES
from appliance.model.confidence import probabilities
from appliance.model.decision import Decision, Judge
from export import unknown
from export.calibrate import Wishes, calibrate
from export.errors import CalibrationError
from export.session import Outputs
from tests.export.draws import clusters, draw

WISHES = Wishes(error_among_accepted_max=0.5, label_set_coverage=0.9, unknown=False)


def model(n: int = 800, seed: int = 5) -> tuple[Outputs, np.ndarray]:
    """A network that is right four times in five, its logits twice too large."""
    points, _, labels = clusters(n, 4, seed)
    random = np.random.default_rng(seed)
    seen = points[:, :4] * 0.3 + random.normal(0, 1, (n, 4))
    return Outputs((2 * seen).astype(np.float32), points), labels


def strange(n: int = 60) -> Outputs:
    points = np.random.default_rng(1).normal(size=(n, 8)).astype(np.float32) + 9
    return Outputs(points[:, :4], points)


def test_one_rule_is_complete_and_says_what_it_does() -> None:
    """Every choice is made, and the counts expected of it are those of the product on images not fitted on."""
    found, labels = model()
    made = calibrate(found, labels, replace(WISHES, error_among_accepted_max=0.25, unknown=True), {"far": strange()})
    rule = made.rule
    assert rule.accept.score in SCORES
    assert made.detector is not None
    assert (rule.unknown is not None and rule.unknown.method) == made.detector.method
    assert rule.label_set is not None
    assert rule.label_set.method == "lac_by_class"
    held_out = ~unknown.halves(labels)
    assert found.embedding is not None
    judged = Judge(rule, made.detector).judge(found.logits[held_out], found.embedding[held_out]).decisions
    assert rule.expected.cases == held_out.sum() == len(made.known_distances)
    assert rule.expected.abstained == judged.count(Decision.ABSTAIN) > 0
    assert rule.expected.unknown == judged.count(Decision.OUT_OF_DISTRIBUTION) <= 0.05 * held_out.sum()
    assert made.ece_after < made.ece_before
    assert made.ece_after == made.reliability_after.error
    for results in (made.scores, made.label_sets):
        assert sum(result.chosen for result in results) == 1
    assert {result.name for result in made.unknown} == {"far", unknown.LEFT_OUT}
    assert set(made.strange_distances) == {"far"}


def test_point_is_what_the_product_accepts() -> None:
    """Of all validation images the product accepts as many, with as many errors, as the operating point says."""
    found, labels = model()
    for score in SCORES:
        wishes = replace(WISHES, error_among_accepted_max=0.25, unknown=True, score=score)
        if score == "top_two":
            wishes = replace(wishes, error_among_accepted_max=0.4)
        made = calibrate(found, labels, wishes)
        judged = Judge(made.rule, made.detector).judge(found.logits, found.embedding)
        accepted = np.array([decision is Decision.ACCEPT for decision in judged.decisions])
        assert (made.rule.accept.score, accepted.sum()) == (score, made.point.accepted)
        assert (judged.top != labels)[accepted].sum() == made.point.errors
        assert made.point.bound <= wishes.error_among_accepted_max


def test_score_is_chosen_by_experiment() -> None:
    """Here an answer is wrong where it is faint, whatever its probabilities: the top logit knows, and they do not."""
    random = np.random.default_rng(0)
    n = 2000
    labels, loud = random.integers(0, 3, n), random.random(n) < 0.7
    seen = np.where(loud | (random.random(n) < 0.4), labels, (labels + 1) % 3)
    logits = 2.0 * np.eye(3)[seen] + np.where(loud, 5.0, 0.0)[:, None] + random.normal(0, 0.1, (n, 3))
    made = calibrate(Outputs(logits.astype(np.float32), None), labels, WISHES)
    assert made.rule.accept.score == "max_logit"
    assert [result.score for result in made.scores] == list(SCORES)
    chosen = next(result for result in made.scores if result.chosen)
    assert chosen.aurc < next(result.aurc for result in made.scores if result.score == "max_probability")
    assert made.risk_curve.risk[-1] == pytest.approx(1 - made.accuracy)
    assert made.risk_curve.risk[len(made.risk_curve.risk) // 2] < 0.02


def test_what_is_asked_for_by_name_is_taken() -> None:
    found, labels = model()
    wishes = Wishes(0.3, 0.9, True, score="entropy", label_set_method="raps", unknown_method="nearest")
    rule = calibrate(found, labels, wishes).rule
    assert rule.label_set is not None
    assert rule.unknown is not None
    assert (rule.accept.score, rule.label_set.method, rule.unknown.method) == ("entropy", "raps", "nearest")


def test_rounded_numbers_are_those_that_were_tried() -> None:
    """The temperature is rounded first; what is measured afterwards is measured with the rounded one."""
    found, labels = model()
    made = calibrate(found, labels, WISHES)
    calibrated = probabilities(found.logits, made.rule.temperature_e6 / E6)
    assert made.reliability_after.confidence.max() == pytest.approx(
        calibrated.max(axis=1)[calibrated.max(axis=1) >= 14 / 15].mean()
    )


def test_calibration_is_the_same_every_time() -> None:
    """Bootstrap and folds are seeded: the same images give the same bundle."""
    found, labels = model()
    one, other = (calibrate(found, labels, replace(WISHES, unknown=True), {"far": strange()}) for _ in range(2))
    assert (one.rule, one.scores, one.label_sets, one.unknown) == (other.rule, other.scores, other.label_sets, other.unknown)


def test_label_without_images_is_fine_without_the_unknown() -> None:
    """Calibration of probabilities needs no image of each label; counts are then those of all images."""
    logits, labels = draw(2, 400, 2.0, classes=3)
    wide = np.pad(logits * 4, ((0, 0), (0, 1)), constant_values=-30)
    made = calibrate(Outputs(wide, None), labels, WISHES)
    assert (made.rule.unknown, made.detector, made.unknown, made.rule.expected.cases) == (None, None, (), 400)


def test_unknown_without_an_embedding_is_refused() -> None:
    logits, labels = draw(2, 400, 2.0)
    with pytest.raises(CalibrationError, match="unknown=False"):
        calibrate(Outputs(logits, None), labels, replace(WISHES, unknown=True))


def test_too_few_images_are_refused() -> None:
    logits, labels = draw(2, 99, 1.0)
    with pytest.raises(CalibrationError, match="at least 100 validation cases, and there are 99"):
        calibrate(Outputs(logits, None), labels, WISHES)


def test_coverage_that_the_images_cannot_carry_is_refused() -> None:
    """It used to leave the label sets out of the bundle, without a word."""
    logits, labels = draw(2, 400, 2.0)
    with pytest.raises(CalibrationError, match="need at least 999 validation cases, and there are 400"):
        calibrate(Outputs(logits, None), labels, replace(WISHES, label_set_coverage=0.999))


def test_output_that_is_not_a_number_is_refused() -> None:
    logits, labels = draw(2, 400, 2.0)
    logits[7, 1] = np.nan
    with pytest.raises(CalibrationError, match="not a number"):
        calibrate(Outputs(logits, None), labels, WISHES)


def test_ten_thousand_images_of_a_hundred_labels_take_seconds() -> None:
    random = np.random.default_rng(0)
    labels = np.arange(10_000) % 100
    centres = random.normal(size=(100, 128))
    points = (centres[labels] * 0.8 + random.normal(size=(10_000, 128))).astype(np.float32)
    found = Outputs((points @ centres.T / 10).astype(np.float32), points)
    started = time.process_time()
    made = calibrate(
        found, labels, Wishes(0.4, 0.9, True), {"noise": Outputs(found.logits[:500], found.embedding[:500] + 3)}
    )
    assert len(made.scores) == 7
    assert time.process_time() - started < 15
