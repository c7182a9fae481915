"""Which score says best that an answer is wrong: risk and coverage, compared by experiment.

Accept answers from the surest on: with every one more, coverage grows, and so, if the score is good, does the share of wrong
ones. Two areas sum that up, both lower for better:

- AURC, the mean over all coverages of the error among the accepted (Geifman, Uziel and El-Yaniv 2019, section 2);
- AUGRC, the area under the errors accepted as a share of *all* cases (Traub et al. 2024, section 3), which does not give
  the few surest answers more weight than the others.

Scores are compared in millionths, as fine as a threshold in the manifest can be. Answers that tie count as their tie's mean,
which is what they would give on average over all orders; so no order within a tie can matter.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from appliance.bundle.manifest import E6, SCORES
from appliance.model.confidence import Floats, certainty

Array = NDArray[np.float64]

COVERAGES = (1.0, 0.95, 0.9, 0.8, 0.5)
DRAWS, SEED = 400, 0


@dataclass(frozen=True, slots=True)
class ScoreResult:
    """``behind`` is the difference of its AURC to the best one's, ``standard_error`` that of this difference.

    ``accuracy_at`` is the share of right answers among the surest, by coverage.
    """

    score: str
    aurc: float
    augrc: float
    accuracy_at: Mapping[float, float]
    behind: float
    standard_error: float
    chosen: bool


@dataclass(frozen=True, eq=False)
class RiskCurve:
    """The error among the accepted, ``risk`` float64 ``[points]``, at each ``coverage`` over 0 that a threshold can give."""

    coverage: Array
    risk: Array


class Ranked:
    """Answers in order of their score, surest first, in groups that tie."""

    def __init__(self, certain: Floats, wrong: NDArray[np.bool_]) -> None:
        millionths = np.round(np.asarray(certain, np.float64) * E6)
        self._order = np.argsort(-millionths, kind="stable")
        ranked = millionths[self._order]
        self._starts = np.flatnonzero(np.concatenate([[True], ranked[1:] != ranked[:-1]]))
        self._wrong = wrong[self._order].astype(np.float64)

    def counts(self, weights: NDArray[np.int64] | None = None) -> tuple[Array, Array]:
        """How many answers, and how many wrong ones, there are down to the end of each group, float64 ``[groups]``.

        ``weights``, int64 ``[N]``, say how often each answer was drawn.
        """
        drawn = np.ones(len(self._wrong)) if weights is None else weights[self._order].astype(np.float64)
        answers = np.add.reduceat(drawn, self._starts).cumsum()
        return answers, np.add.reduceat(drawn * self._wrong, self._starts).cumsum()


def aurc(answers: Array, errors: Array) -> float:
    """The mean of the error among the first 1, 2, … N answers, from the counts of ``Ranked``.

    Within a tie of w answers, e of them wrong, after W answers with E wrong, the j-th has E + (j − W)·e/w wrong before it;
    summed over the tie that is e + (E − W·e/w) · (H(W + w) − H(W)), where H are the harmonic numbers.
    """
    before_answers, before_errors = _before(answers), _before(errors)
    size, wrong = answers - before_answers, errors - before_errors
    rate = np.divide(wrong, size, out=np.zeros_like(size), where=size > 0)  # a group that no draw hit counts for nothing
    n = int(answers[-1])
    harmonic = np.concatenate([[0.0], np.cumsum(1 / np.arange(1, n + 1))])
    steps = harmonic[answers.astype(int)] - harmonic[before_answers.astype(int)]
    return float((wrong + (before_errors - before_answers * rate) * steps).sum() / n)


def augrc(answers: Array, errors: Array) -> float:
    """The area under (answers accepted, errors accepted), both as shares of all; ties are straight lines."""
    sizes = answers - _before(answers)
    return float((sizes * (errors + _before(errors))).sum() / (2 * answers[-1] ** 2))


def accuracy_at(answers: Array, errors: Array, coverage: float) -> float:
    """The share of right answers among the surest ``coverage`` of all, at least one answer."""
    wanted = max(1, round(coverage * answers[-1]))
    return float(1 - np.interp(wanted, [0, *answers], [0, *errors]) / wanted)


def risk_curve(answers: Array, errors: Array) -> RiskCurve:
    return RiskCurve(answers / answers[-1], errors / answers)


def certainties(logits: Floats, calibrated: Array, temperature: float) -> dict[str, Array]:
    """Every one of ``SCORES`` for each row, float64 ``[N]``."""
    return {score: certainty(score, logits, calibrated, temperature) for score in SCORES}


def compare(certain: Mapping[str, Floats], right: NDArray[np.bool_], wanted: str | None = None) -> tuple[ScoreResult, ...]:
    """One result for each score, in the order given, simplest first.

    Chosen is ``wanted``, or the first whose AURC is within one standard error of the best (Breiman et al. 1984, section
    3.4.3). The error is that of the difference, over bootstrap draws of the same cases for both.
    """
    ranked = {score: Ranked(values, ~right) for score, values in certain.items()}
    counts = {score: rows.counts() for score, rows in ranked.items()}
    areas = {score: aurc(*rows) for score, rows in counts.items()}
    best = min(areas, key=areas.__getitem__)
    errors = _standard_errors(ranked, best, len(right))
    behind = {score: areas[score] - areas[best] for score in areas}
    chosen = wanted or next(score for score in areas if behind[score] <= errors[score])
    return tuple(
        ScoreResult(
            score=score,
            aurc=areas[score],
            augrc=augrc(*counts[score]),
            accuracy_at={coverage: accuracy_at(*counts[score], coverage) for coverage in COVERAGES},
            behind=behind[score],
            standard_error=errors[score],
            chosen=score == chosen,
        )
        for score in areas
    )


def _standard_errors(ranked: Mapping[str, Ranked], best: str, n: int) -> dict[str, float]:
    random = np.random.default_rng(SEED)
    drawn = {score: np.empty(DRAWS) for score in ranked}
    for draw in range(DRAWS):
        weights = np.bincount(random.integers(0, n, n), minlength=n)
        for score, rows in ranked.items():
            drawn[score][draw] = aurc(*rows.counts(weights))
    return {score: float(np.std(values - drawn[best], ddof=1)) for score, values in drawn.items()}


def _before(totals: Array) -> Array:
    return np.concatenate([[0.0], totals[:-1]])
