"""Chooses, by experiment on the graph that is served, when to answer, when to abstain, and what is unknown.

Each choice is made on validation images and evaluated with the rounded numbers that the manifest will carry:

- the temperature, so that probabilities mean what they say (``temperature``);
- how far an input may be from the known ones, and how that is measured (``unknown``);
- the score of how sure an answer is (``scores``), and from which value on an answer is accepted (``point``). Images that
  count as unknown are not among the answers; fewer of those that the detector was fitted on do, so more of the doubtful
  ones stay in, and the threshold errs on the safe side;
- the labels that are not ruled out, so that label sets hold the true one as often as promised (``conformal``).

What the report says of them is measured on images that did not choose it wherever that can be: coverage of label sets on
folds, distances and the ``Expected`` counts on the half of the images that the detector was not fitted on (on all images
where the unknown is not asked for). The threshold of distance comes from that half, so one in twenty of it is unknown by
construction, which is also what is to be expected of new images. The accuracy, the calibration error and the risk at each
coverage are those of all images, of which the temperature took one number. The arithmetic is numpy alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from appliance.bundle.manifest import E6, Accept, DecisionRule, Expected, Unknown
from appliance.model.confidence import probabilities
from appliance.model.decision import Decision, Judge
from appliance.model.unknown import Detector
from export import conformal, detectors, scores, temperature, unknown
from export.conformal import LabelSetResult
from export.detectors import Rows
from export.errors import CalibrationError
from export.point import OperatingPoint, operating_point
from export.scores import RiskCurve, ScoreResult
from export.temperature import Reliability
from export.unknown import Chosen, UnknownResult

if TYPE_CHECKING:
    from export.session import Outputs  # which brings the runtime along

Labels = NDArray[np.int64]

IMAGES_MIN = 100


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the recipe asks for. None: chosen by experiment (``score``, ``unknown_method``), or by how many images there are
    of each label (``label_set_method``). The unknown by ``nearest``, and label sets by ``raps``, only where named.
    """

    error_among_accepted_max: float
    label_set_coverage: float
    unknown: bool
    score: str | None = None
    label_set_method: str | None = None
    unknown_method: str | None = None


@dataclass(frozen=True, eq=False)
class Calibration:
    """``rule`` and ``detector`` go into the bundle; the rest is for the report.

    ``ece`` is before and after scaling; ``ece_by_chance`` what so many images would show of a model whose every probability
    is right. ``known_distances`` are float64, of the images that the detector was not fitted on; ``strange_distances`` of
    the sets given, by name; both empty where the unknown is not asked for. In a tuple of results one is ``chosen``; of
    ``unknown``, one method's; ``unknown_unfitted`` are methods that this embedding did not allow to be tried.
    """

    rule: DecisionRule
    detector: Detector | None
    accuracy: float
    ece_before: float
    ece_after: float
    ece_by_chance: float
    reliability_before: Reliability
    reliability_after: Reliability
    scores: tuple[ScoreResult, ...]
    risk_curve: RiskCurve
    point: OperatingPoint
    label_sets: tuple[LabelSetResult, ...]
    unknown: tuple[UnknownResult, ...]
    unknown_unfitted: tuple[str, ...]
    known_distances: NDArray[np.float64]
    strange_distances: Mapping[str, NDArray[np.float64]]

    @property
    def label_set(self) -> LabelSetResult | None:
        """What was measured of the label sets that the rule gives."""
        return next((result for result in self.label_sets if result.chosen), None)


def require_enough(images: int) -> None:
    """Raises CalibrationError below the number of images that a temperature can be fitted on."""
    if images < IMAGES_MIN:
        raise CalibrationError(f"Calibration needs at least {IMAGES_MIN} validation cases, and there are {images}.")


def calibrate(found: "Outputs", labels: Labels, wishes: Wishes, strange: Mapping[str, "Outputs"] = {}) -> Calibration:
    """The decision rule for the graph's outputs of N validation images and their true labels ``[N]``.

    ``strange`` are its outputs for inputs of another kind, by the name of their set.

    Raises:
        CalibrationError: too few images, no embedding where the unknown is asked for, or a wish out of reach.
    """
    require_enough(len(labels))
    logits = found.logits
    if not np.isfinite(logits).all():
        raise CalibrationError("The graph's output for a validation case is not a number.")
    right = logits.argmax(axis=1) == labels
    temperature_e6 = round(temperature.fit(logits, labels) * E6)
    calibrated = probabilities(logits, temperature_e6 / E6)
    before = temperature.reliability(probabilities(logits, 1.0).max(axis=1), right)
    after = temperature.reliability(calibrated.max(axis=1), right)

    apart = _unknown(found, labels, strange, wishes.unknown_method) if wishes.unknown else None
    certain = scores.certainties(logits, calibrated, temperature_e6 / E6)
    compared = scores.compare(certain, right, wishes.score)
    score = next(result.score for result in compared if result.chosen)
    known = np.ones(len(labels), bool)
    if apart is not None:
        known = detectors.distance(apart.detector, _rows(found, labels)) <= apart.reject_above_e6 / E6
    point = operating_point(certain[score][known], right[known], wishes.error_among_accepted_max)
    label_set, label_sets = conformal.choose(calibrated, labels, wishes.label_set_coverage, wishes.label_set_method)

    detector = None if apart is None else apart.detector
    reject = None if apart is None else Unknown(apart.detector.method, apart.reject_above_e6)
    accept = Accept(score, point.accept_at_least_e6)
    rule = DecisionRule(temperature_e6, accept, reject, label_set, Expected(len(labels), 0, 0))
    rule = replace(rule, expected=_expected(Judge(rule, detector), found, None if apart is None else apart.held_out))
    return Calibration(
        rule=rule,
        detector=detector,
        accuracy=float(right.mean()),
        ece_before=before.error,
        ece_after=after.error,
        ece_by_chance=temperature.by_chance(calibrated.max(axis=1)),
        reliability_before=before,
        reliability_after=after,
        scores=compared,
        risk_curve=scores.risk_curve(*scores.Ranked(certain[score], ~right).counts()),
        point=point,
        label_sets=label_sets,
        unknown=() if apart is None else apart.results,
        unknown_unfitted=() if apart is None else apart.unfitted,
        known_distances=np.empty(0) if apart is None else apart.known_distances,
        strange_distances={} if apart is None else apart.strange_distances,
    )


def _unknown(found: "Outputs", labels: Labels, strange: Mapping[str, "Outputs"], wanted: str | None) -> Chosen:
    if found.embedding is None:
        raise CalibrationError("The module returns no embedding, so the recipe must say unknown=False.")
    sets = {name: _rows(outputs, np.zeros(len(outputs.logits), np.int64)) for name, outputs in strange.items()}
    return unknown.choose(_rows(found, labels), sets, wanted)


def _rows(outputs: "Outputs", labels: Labels) -> Rows:
    assert outputs.embedding is not None  # noqa: S101  one graph gave them all, and its embedding has been looked for
    return Rows(outputs.embedding, outputs.logits, labels)


def _expected(judge: Judge, found: "Outputs", held_out: NDArray[np.bool_] | None) -> Expected:
    """How the product decides on images that the detector was not fitted on; on all where there is none."""
    rows = slice(None) if held_out is None else held_out
    judged = judge.judge(found.logits[rows], None if found.embedding is None else found.embedding[rows]).decisions
    return Expected(len(judged), judged.count(Decision.ABSTAIN), judged.count(Decision.OUT_OF_DISTRIBUTION))
