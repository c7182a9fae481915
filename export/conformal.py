"""Label sets: which labels an answer does not rule out, so that the true one is among them as often as promised.

Split conformal prediction (Vovk et al. 2005): give every label a score, take those of the true labels of n validation cases
and find the one that all but l = ⌊(n + 1)(1 − coverage)⌋ of them are within. A label is then kept where it is within too, as
``appliance.model.decision.label_sets`` does it. On cases like these the true label is kept at least as often as promised,
on average over validation sets; for the one set at hand the true coverage is spread as Beta(n + 1 − l, l).

- ``lac``: the score is the label's probability (Sadinle, Lei and Wasserman 2019): the smallest sets on average.
- ``lac_by_class``: the same with a threshold for each class, so that the promise holds for each. It needs many of each.
- ``raps``: the probability of all labels before it, and a penalty for ranks past the free ones (Angelopoulos et al. 2021),
  without the label's own probability. Without chance and where the top label is mostly right, its scores are mostly 0 and
  its sets hold the true label more often than asked for. It is used where a recipe asks for it.

Coverage is *measured* on cases that did not choose the threshold: ten folds, each judged by a rule fitted on the other
nine. The rule that ships is fitted on all. The temperature, one number, is that of all in both. The penalty and the free
ranks of ``raps`` are picked on the same cases as its threshold, which the promise does not allow for; the folds do.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from appliance.bundle.manifest import E6, LabelSetRule
from appliance.model.decision import cumulated, label_sets
from export.binomial import coverage_interval, left_out
from export.errors import CalibrationError
from export.millionths import over, under

Array = NDArray[np.float64]
Labels = NDArray[np.int64]

CASES_OF_A_CLASS_MIN = 100
FOLDS, SEED = 10, 0
PENALTIES = (0.001, 0.01, 0.1, 0.2, 0.5)  # the paper's, appendix E
_SIMULATED = 4000


@dataclass(frozen=True, slots=True)
class LabelSetResult:
    """``coverage``, ``labels_mean`` (a set's size) and ``coverage_by_class`` (None for a class without a case) are
    measured on held-out folds. ``interval``: where the true coverage of the rule that ships lies in nine cases of ten; its
    lower end fails once in twenty.
    """

    method: str
    coverage: float
    labels_mean: float
    interval: tuple[float, float]
    coverage_by_class: tuple[float | None, ...]
    chosen: bool


def choose(
    calibrated: Array, labels: Labels, coverage: float, wanted: str | None = None
) -> tuple[LabelSetRule, tuple[LabelSetResult, ...]]:
    """The rule for probabilities ``[N, classes]`` and true labels ``[N]``, and what each method came to.

    Chosen is ``wanted``; or else ``lac_by_class`` where each class has 100 cases, and ``lac`` where one has fewer.

    Raises:
        CalibrationError: so few cases cannot carry that coverage.
    """
    by_class = np.bincount(labels, minlength=calibrated.shape[1])
    many = by_class.min() >= max(CASES_OF_A_CLASS_MIN, needed(coverage))
    method = wanted or ("lac_by_class" if many else "lac")
    rule = fit(method, calibrated, labels, coverage)
    measured = ["lac", *(["lac_by_class"] if many else []), *(["raps"] if method == "raps" else [])]
    return rule, tuple(measure(each, calibrated, labels, coverage, chosen=each == method) for each in measured)


def fit(method: str, calibrated: Array, labels: Labels, coverage: float) -> LabelSetRule:
    """One method's rule, from all rows given.

    Raises:
        CalibrationError: so few cases cannot carry that coverage.
    """
    counts = np.bincount(labels, minlength=calibrated.shape[1])
    smallest, whose = int(counts.argmin()), ""
    cases = len(labels)
    if method == "lac_by_class":
        cases, whose = int(counts[smallest]), f" of label {smallest}"
        if cases < CASES_OF_A_CLASS_MIN:
            raise CalibrationError(
                f"Label sets by class need at least {CASES_OF_A_CLASS_MIN} validation cases of each label, and there are "
                f"{cases}{whose}."
            )
    if left_out(cases, coverage) < 1:
        raise CalibrationError(
            f"Label sets that hold the true label at a rate of {coverage:.4g} need at least {needed(coverage)} validation "
            f"cases{whose}, and there are {cases}, which carry {under(cases / (cases + 1), 1000) / 1000:.3f} at most."
        )
    return _rule(method, calibrated, labels, coverage)


def measure(method: str, calibrated: Array, labels: Labels, coverage: float, *, chosen: bool) -> LabelSetResult:
    """What rules of this method do on cases that they were not fitted on."""
    counts = np.bincount(labels, minlength=calibrated.shape[1])
    covered, sizes = np.zeros(len(labels), bool), np.zeros(len(labels), np.int64)
    for held in folds(labels):
        rest = labels[~held]
        least = int(np.bincount(rest, minlength=len(counts)).min()) if method == "lac_by_class" else len(rest)
        # Where nine tenths of the cases carry a little less than all of them do, the most that they carry is measured.
        rule = _rule(method, calibrated[~held], rest, min(coverage, least / (least + 1)))
        sets = label_sets(rule, calibrated[held])
        covered[held], sizes[held] = sets[np.arange(len(sets)), labels[held]], sets.sum(axis=1)
    hits = np.bincount(labels, covered, minlength=len(counts))
    return LabelSetResult(
        method=method,
        coverage=float(covered.mean()),
        labels_mean=float(sizes.mean()),
        interval=true_coverage(counts.tolist() if method == "lac_by_class" else [len(labels)], coverage),
        coverage_by_class=tuple(float(h / n) if n else None for h, n in zip(hits, counts, strict=True)),
        chosen=chosen,
    )


def true_coverage(calibrated_on: Sequence[int], coverage: float) -> tuple[float, float]:
    """Where a rule's true coverage lies in nine cases of ten. Of several thresholds, each for its class: classes as often
    as here, drawn from their beta distributions (seeded).
    """
    if len(calibrated_on) == 1:
        return coverage_interval(calibrated_on[0], coverage)
    counts = np.array(calibrated_on)
    missed = np.array([left_out(n, coverage) for n in calibrated_on])
    drawn = np.random.default_rng(SEED).beta(counts + 1 - missed, missed, (_SIMULATED, len(counts)))
    low, high = np.quantile(drawn @ (counts / counts.sum()), (0.05, 0.95))
    return float(low), float(high)


def needed(coverage: float) -> int:
    """The fewest cases of which one may be missed: (n + 1)(1 − coverage) ≥ 1."""
    n = max(1, int(1 / (1 - coverage)) - 2)
    while left_out(n, coverage) < 1:
        n += 1
    return n


def folds(labels: Labels) -> list[NDArray[np.bool_]]:
    """Masks of ten disjoint parts, each with its share of every label (seeded)."""
    order = np.random.default_rng(SEED).permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    turn = np.empty(len(labels), np.int64)
    turn[order] = np.arange(len(labels)) % FOLDS
    return [turn == fold for fold in range(min(FOLDS, len(labels)))]


def _rule(method: str, calibrated: Array, labels: Labels, coverage: float) -> LabelSetRule:
    rows, coverage_e6 = np.arange(len(labels)), round(coverage * E6)
    if method == "raps":
        penalty_e6, free_ranks = _regularisation(calibrated, labels, coverage)
        scores = cumulated(calibrated, penalty_e6 / E6, free_ranks)[rows, labels]
        threshold = over(-_least_kept(-scores, coverage))
        return LabelSetRule(method, coverage_e6, (max(0, threshold),), penalty_e6, free_ranks)
    likely = calibrated[rows, labels]
    groups = [likely[labels == k] for k in range(calibrated.shape[1])] if method == "lac_by_class" else [likely]
    return LabelSetRule(method, coverage_e6, tuple(under(_least_kept(group, coverage)) for group in groups))


def _least_kept(values: Array, coverage: float) -> float:
    """The value that all but l of these, higher for likelier, are over, or equal."""
    place = left_out(len(values), coverage)
    # Missing l of n + 1 means that the l-th smallest is still kept.
    return float(np.partition(values, place - 1)[place - 1])


def _regularisation(calibrated: Array, labels: Labels, coverage: float) -> tuple[int, int]:
    """The penalty (millionths) that gives the smallest sets, and the free ranks: as many as hold the true label at the rate
    of ``coverage`` (the paper's appendix E).
    """
    rows = np.arange(len(labels))
    ranks = 1.0 + (calibrated > calibrated[rows, labels][:, None]).sum(axis=1)
    free_ranks = int(-_least_kept(-ranks, coverage))
    sizes = {}
    for penalty in PENALTIES:
        scores = cumulated(calibrated, penalty, free_ranks)
        sizes[penalty] = int((scores <= -_least_kept(-scores[rows, labels], coverage)).sum())
    return round(min(sizes, key=sizes.__getitem__) * E6), free_ranks
