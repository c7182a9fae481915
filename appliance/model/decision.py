"""The decision: an answer, an honest "I don't know", or "this isn't the kind of image I was made for".

Two different questions, in this order. *Is it of the kind I know?* is a distance in the space of embeddings. *Am I sure?*
is a score of the calibrated probabilities. A sure answer to the wrong kind of image is still the wrong kind.
"""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from appliance.bundle.manifest import E6, DecisionRule, LabelSetRule
from appliance.errors import InferenceFailed
from appliance.model.confidence import Floats, certainty, probabilities
from appliance.model.unknown import Detector


class Decision(StrEnum):
    ACCEPT = "ACCEPT"
    ABSTAIN = "ABSTAIN"
    OUT_OF_DISTRIBUTION = "OUT_OF_DISTRIBUTION"

    @property
    def letter(self) -> str:
        """How the audit record spells it."""
        return _LETTERS[self]


_LETTERS = {Decision.ACCEPT: "A", Decision.ABSTAIN: "B", Decision.OUT_OF_DISTRIBUTION: "O"}


@dataclass(frozen=True, eq=False)
class Judgement:
    """What a batch of N outputs means. ``distance`` is None for a model without a reference.

    ``certainty``, float64 ``[N]``, is the score that the rule goes by, higher for surer answers.
    ``label_sets``, bool ``[N, classes]``, are the labels that are not ruled out; None for a model without a rule for them.
    """

    logits: NDArray[np.float32]
    probabilities: NDArray[np.float64]
    top: NDArray[np.int64]
    certainty: NDArray[np.float64]
    distance: NDArray[np.float64] | None
    decisions: tuple[Decision, ...]
    label_sets: NDArray[np.bool_] | None

    @property
    def confidence(self) -> NDArray[np.float64]:
        """The probability of the top class, float64 ``[N]``."""
        return np.asarray(self.probabilities.max(axis=1))


@dataclass(frozen=True, slots=True)
class Judge:
    """A rule, and the reference it needs."""

    rule: DecisionRule
    detector: Detector | None

    def judge(self, logits: NDArray[np.float32], embedding: Floats | None) -> Judgement:
        """Decides for each row of logits, float32 ``[N, classes]``, and its embedding, ``[N, width]``.

        Raises:
            InferenceFailed: the model's output holds a NaN or an infinity.
        """
        if not np.isfinite(logits).all():
            raise InferenceFailed("The model's output is not a number.")
        rule, temperature = self.rule, self.rule.temperature_e6 / E6
        calibrated = probabilities(logits, temperature)
        sureness = certainty(rule.accept.score, logits, calibrated, temperature)
        distance = None
        if rule.unknown is not None and self.detector is not None and embedding is not None:
            distance = self.detector.distance(embedding, logits)
        decisions = decide(rule, sureness, distance)
        sets = None if rule.label_set is None else label_sets(rule.label_set, calibrated)
        return Judgement(logits, calibrated, calibrated.argmax(axis=1), sureness, distance, decisions, sets)


def decide(rule: DecisionRule, certainty: NDArray[np.float64], distance: NDArray[np.float64] | None) -> tuple[Decision, ...]:
    """What a rule makes of each row's certainty and distance, float64 ``[N]`` each."""
    sure = (certainty >= rule.accept.at_least_e6 / E6).tolist()
    unknown = [False] * len(sure)
    if rule.unknown is not None and distance is not None:
        # Written so that a NaN, of an embedding that overflowed, counts as unknown.
        unknown = (~(distance <= rule.unknown.reject_above_e6 / E6)).tolist()
    return tuple(
        Decision.OUT_OF_DISTRIBUTION if u else Decision.ACCEPT if s else Decision.ABSTAIN
        for u, s in zip(unknown, sure, strict=True)
    )


def label_sets(rule: LabelSetRule, calibrated: NDArray[np.float64]) -> NDArray[np.bool_]:
    """The labels that are not ruled out, bool ``[N, classes]``: each that is within its threshold, and the top one."""
    thresholds = np.array(rule.thresholds_e6) / E6
    if rule.method == "raps":
        sets = cumulated(calibrated, rule.penalty_e6 / E6, rule.free_ranks) <= thresholds
    else:  # least ambiguous sets, over all classes or class by class (Sadinle et al. 2019)
        sets = calibrated >= thresholds
    sets[np.arange(len(sets)), calibrated.argmax(axis=1)] = True
    return np.asarray(sets)


def cumulated(calibrated: NDArray[np.float64], penalty: float, free_ranks: int) -> NDArray[np.float64]:
    """How much probability goes before each label, float64 ``[N, classes]``, and a penalty for each rank past the free ones.

    The score of regularised adaptive sets (Angelopoulos et al. 2021, section 2), without the label's own probability: with
    it and without chance, sets hold several labels too many.
    """
    order = np.argsort(-calibrated, axis=1, kind="stable")
    ranked = np.take_along_axis(calibrated, order, axis=1)
    before = np.cumsum(ranked, axis=1) - ranked
    before += penalty * np.maximum(0, np.arange(1, ranked.shape[1] + 1) - free_ranks)
    found = np.empty_like(before)
    np.put_along_axis(found, order, before, axis=1)
    return found
