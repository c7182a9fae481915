"""The decision: an answer, an honest "I don't know", or "this isn't the kind of image I was made for".

Two different questions, in this order. *Is it of the kind I know?* is a distance in the space of embeddings. *Am I sure?*
is the calibrated probability of the best class. A sure answer to the wrong kind of image is still the wrong kind.
"""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from appliance.bundle.manifest import DecisionRule
from appliance.errors import InferenceFailed
from appliance.model.confidence import Floats, Reference, probabilities

E6 = 1_000_000


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

    ``label_sets``, bool ``[N, classes]``, are the labels that are not ruled out; None for a model without a rule for them.
    """

    logits: NDArray[np.float32]
    probabilities: NDArray[np.float64]
    top: NDArray[np.int64]
    distance: NDArray[np.float64] | None
    decisions: tuple[Decision, ...]
    label_sets: NDArray[np.bool_] | None

    @property
    def confidence(self) -> NDArray[np.float64]:
        """The probability of the top class, float64 ``[N]``."""
        return self.probabilities[np.arange(len(self.top)), self.top]


@dataclass(frozen=True, slots=True)
class Judge:
    """A signed rule, and the reference it needs."""

    rule: DecisionRule
    reference: Reference | None

    def judge(self, logits: NDArray[np.float32], embedding: Floats | None) -> Judgement:
        """Decides for each row of logits, float32 ``[N, classes]``, and its embedding, ``[N, width]``.

        Raises:
            InferenceFailed: the model's output holds a NaN or an infinity.
        """
        if not np.isfinite(logits).all():
            raise InferenceFailed("The model's output is not a number.")
        calibrated = probabilities(logits, self.rule.temperature_e6 / E6)
        top, distance = calibrated.argmax(axis=1), None
        sure = (calibrated[np.arange(len(top)), top] >= self.rule.accept_at_least_e6 / E6).tolist()
        unknown = [False] * len(sure)
        if self.rule.unknown is not None and self.reference is not None and embedding is not None:
            distance = self.reference.distance(embedding)
            # Written so that a NaN, of an embedding that overflowed, counts as unknown.
            unknown = (~(distance <= self.rule.unknown.reject_above_e6 / E6)).tolist()
        decisions = tuple(
            Decision.OUT_OF_DISTRIBUTION if u else Decision.ACCEPT if s else Decision.ABSTAIN
            for u, s in zip(unknown, sure, strict=True)
        )
        return Judgement(logits, calibrated, top, distance, decisions, self._label_sets(calibrated, top))

    def _label_sets(self, calibrated: NDArray[np.float64], top: NDArray[np.int64]) -> NDArray[np.bool_] | None:
        """Least ambiguous sets (Sadinle et al. 2019): every label that is likely enough, and the top one in any case."""
        if self.rule.label_set is None:
            return None
        sets = calibrated >= self.rule.label_set.include_at_least_e6 / E6
        sets[np.arange(len(top)), top] = True
        return sets
