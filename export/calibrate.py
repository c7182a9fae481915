"""Chooses, by experiment on the graph that is served, when to answer, when to abstain, and what is unknown.

Four choices, each made on validation images and evaluated with the rounded numbers that the manifest will carry:

- the temperature, by least negative log-likelihood (Guo et al. 2017), so that probabilities mean what they say;
- the distance over which an image is unknown: 95 % of known images are nearer (the reference is fitted on one half of
  the images, stratified by label, and the distance is taken from the other half, since a mean is nearer to its own);
- the probability from which on an answer is accepted: the smallest such that the error among accepted answers is at
  most the recipe's, with the upper Clopper–Pearson bound at 95 %. Images that count as unknown are not among them;
- the probability from which on a label is not ruled out, so that label sets hold the true one as often as promised.

The weak spot: that threshold is picked among many on the same images, so its 95 % is nominal; the report gives the
count and the errors behind it. The arithmetic is numpy alone.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from appliance.bundle.manifest import Accept, DecisionRule, Expected, LabelSetRule, Unknown
from appliance.model.confidence import Floats, probabilities
from appliance.model.decision import E6
from appliance.model.unknown import Mahalanobis as Reference
from export.errors import CalibrationError

Labels = NDArray[np.int64]

IMAGES_MIN = 100
IMAGES_OF_A_LABEL_MIN = 4
CONFIDENCE = 0.95
KNOWN_QUANTILE = 0.95
ECE_BINS = 15
COVERAGES = (1.0, 0.95, 0.9, 0.8, 0.5)
TEMPERATURES = (0.01, 100.0)
SHRINKAGE_MIN = 1e-3


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """Where answers are accepted: ``errors`` among ``accepted`` of ``images``; the upper ``bound`` on their rate."""

    accept_at_least_e6: int
    images: int
    accepted: int
    errors: int
    bound: float


@dataclass(frozen=True, eq=False)
class Calibration:
    """``rule`` and ``reference`` go into the bundle; the rest is for the report. ECE is before and after scaling."""

    rule: DecisionRule
    reference: Reference | None
    accuracy: float
    ece_before: float
    ece_after: float
    point: OperatingPoint
    risk_at_coverage: dict[str, float]


def require_enough(images: int) -> None:
    """Raises CalibrationError below the number of images that a temperature can be fitted on."""
    if images < IMAGES_MIN:
        raise CalibrationError(f"Calibration needs at least {IMAGES_MIN} validation images, and there are {images}.")


def calibrate(
    logits: Floats, embedding: Floats | None, labels: Labels, error_max: float, *, unknown: bool, coverage: float
) -> Calibration:
    """The decision rule for logits ``[N, classes]``, an embedding ``[N, width]`` and the true labels ``[N]``.

    Raises:
        CalibrationError: too few images, no embedding where ``unknown`` is wanted, or an ``error_max`` out of reach.
    """
    require_enough(len(labels))
    right = logits.argmax(axis=1) == labels
    temperature_e6 = round(temperature(logits, labels) * E6)
    calibrated = probabilities(logits, temperature_e6 / E6)
    confidence = calibrated.max(axis=1)
    known, reference, reject = np.ones(len(labels), bool), None, None
    if unknown:
        if embedding is None:
            raise CalibrationError("The module returns no embedding, so the recipe must say unknown=False.")
        reference, reject_above_e6 = fit_reference(embedding, logits, labels, logits.shape[1])
        reject = Unknown("mahalanobis", reject_above_e6)
        known = reference.distance(embedding, logits) <= reject_above_e6 / E6
    point = operating_point(confidence[known], right[known], error_max)
    return Calibration(
        rule=DecisionRule(
            temperature_e6,
            Accept("max_probability", point.accept_at_least_e6),
            reject,
            label_set(calibrated, labels, coverage),
            Expected(len(labels), 0, 0),
        ),
        reference=reference,
        accuracy=float(right.mean()),
        ece_before=expected_calibration_error(probabilities(logits, 1.0).max(axis=1), right),
        ece_after=expected_calibration_error(confidence, right),
        point=point,
        risk_at_coverage=risk_at_coverage(confidence, right),
    )


def label_set(calibrated: NDArray[np.float64], labels: Labels, coverage: float) -> LabelSetRule | None:
    """The probability from which on a label is kept, so that the true one is among those kept at the rate ``coverage``.

    Split conformal prediction with the score 1 − p of the true label (Sadinle et al. 2019; Vovk et al. 2005): the ⌈(n + 1) ·
    coverage⌉-th smallest of n scores. None where there are too few images for that rank.
    """
    likely = np.sort(calibrated[np.arange(len(labels)), labels])[::-1]
    rank = math.ceil((len(labels) + 1) * coverage - 1e-9)
    if rank > len(labels):
        return None
    return LabelSetRule("lac", round(coverage * E6), (math.floor(likely[rank - 1] * E6),))


def temperature(logits: Floats, labels: Labels) -> float:
    """The temperature of least negative log-likelihood, by golden section over its logarithm.

    Where the model makes no error on these images nothing bounds its certainty from above, so it stays as it is: 1.

    Raises:
        CalibrationError: no temperature helps; the model is no better than chance here.
    """
    rows = np.arange(len(labels))
    if (logits.argmax(axis=1) == labels).all():
        return 1.0

    def cost(log_temperature: float) -> float:
        scaled = np.asarray(logits, np.float64) / math.exp(log_temperature)
        top = scaled.max(axis=1)
        return float((top + np.log(np.exp(scaled - top[:, None]).sum(axis=1)) - scaled[rows, labels]).mean())

    low, high = math.log(TEMPERATURES[0]), math.log(TEMPERATURES[1])
    ratio = (math.sqrt(5) - 1) / 2
    left, right = high - ratio * (high - low), low + ratio * (high - low)
    cost_left, cost_right = cost(left), cost(right)
    while high - low > 1e-7:
        if cost_left <= cost_right:
            high, right, cost_right = right, left, cost_left
            left = high - ratio * (high - low)
            cost_left = cost(left)
        else:
            low, left, cost_left = left, right, cost_right
            right = low + ratio * (high - low)
            cost_right = cost(right)
    found = math.exp((low + high) / 2)
    if found > TEMPERATURES[1] * 0.99:
        share = float((logits.argmax(axis=1) == labels).mean())
        raise CalibrationError(f"The model is no better than chance on the validation images: {share:.1%} are right.")
    return found


def expected_calibration_error(confidence: Floats, right: NDArray[np.bool_], bins: int = ECE_BINS) -> float:
    """The mean gap between confidence and accuracy over equal-width bins, weighted by how many fall into each."""
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = [abs(confidence[place == b].sum() - right[place == b].sum()) for b in range(bins)]
    return float(sum(gaps) / len(confidence))


def risk_at_coverage(confidence: Floats, right: NDArray[np.bool_]) -> dict[str, float]:
    """The error rate among the surest share of the answers, for each share in ``COVERAGES``."""
    wrong = ~right[np.argsort(-confidence, kind="stable")]
    return {f"{c:.0%}": float(wrong[: max(1, round(c * len(wrong)))].mean()) for c in COVERAGES}


def upper_bound(errors: int, trials: int, confidence: float = CONFIDENCE) -> float:
    """The one-sided Clopper–Pearson bound: the rate at which so few errors would have probability 1 − confidence."""
    if errors >= trials:
        return 1.0
    low, high = errors / trials, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if binomial_tail(errors, trials, middle) > 1 - confidence else (low, middle)
    return high


def binomial_tail(errors: int, trials: int, rate: float) -> float:
    """P(X ≤ errors) for X ~ Binomial(trials, rate), summed in logarithms so that no term overflows."""
    if rate <= 0 or rate >= 1:
        return 1.0 if rate <= 0 or errors >= trials else 0.0
    terms = [
        math.lgamma(trials + 1)
        - math.lgamma(k + 1)
        - math.lgamma(trials - k + 1)
        + k * math.log(rate)
        + (trials - k) * math.log1p(-rate)
        for k in range(errors + 1)
    ]
    top = max(terms)
    return min(1.0, math.exp(top) * math.fsum(math.exp(term - top) for term in terms))


def operating_point(confidence: Floats, right: NDArray[np.bool_], error_max: float) -> OperatingPoint:
    """The smallest threshold whose accepted answers are wrong at a rate of at most ``error_max``, at 95 % confidence.

    Raises:
        CalibrationError: no threshold is good enough on so many images; the sentence says what would be.
    """
    thresholds, place = np.unique(np.floor(confidence * E6).astype(np.int64), return_inverse=True)
    accepted = np.bincount(place)[::-1].cumsum()[::-1]  # how many are at or over each threshold
    errors = np.bincount(place, ~right)[::-1].cumsum()[::-1].astype(int)
    for threshold, n, k in zip(thresholds, accepted, errors, strict=True):
        if k <= error_max * n and binomial_tail(int(k), int(n), error_max) <= 1 - CONFIDENCE:
            return OperatingPoint(int(threshold), len(right), int(n), int(k), upper_bound(int(k), int(n)))
    bounds = [upper_bound(int(k), int(n)) for n, k in zip(accepted, errors, strict=True)]
    best = int(np.argmin(bounds))
    enough = math.ceil(math.log(1 - CONFIDENCE) / math.log1p(-error_max))
    raise CalibrationError(
        f"No threshold keeps the error among accepted answers at {error_max:.2%} or less with {CONFIDENCE:.0%} "
        f"confidence: the best has {errors[best]} errors in {accepted[best]} answers, a bound of {bounds[best]:.2%}; "
        f"use error_among_accepted_max={math.ceil(bounds[best] * 1000) / 1000}, or more validation images "
        f"(at least {enough} accepted without an error, and there are {len(right)})."
    )


def fit_reference(embedding: Floats, logits: Floats, labels: Labels, classes: int) -> tuple[Reference, int]:
    """Class means and a shared precision, and the distance (in millionths) over which an image is unknown.

    The even images of each label, in order, fit the reference; the odd ones give the distance.

    Raises:
        CalibrationError: a label has too few images, or the embedding says nothing.
    """
    counts = np.bincount(labels, minlength=classes)
    if counts.min() < IMAGES_OF_A_LABEL_MIN:
        raise CalibrationError(
            f"To tell the unknown, every label needs at least {IMAGES_OF_A_LABEL_MIN} validation images, and label "
            f"{int(counts.argmin())} has {counts.min()}; add images, or say unknown=False in the recipe."
        )
    points = np.asarray(embedding, np.float64)
    fitting = np.zeros(len(labels), bool)
    for k in range(classes):
        fitting[np.flatnonzero(labels == k)[::2]] = True
    means = np.stack([points[fitting & (labels == k)].mean(axis=0) for k in range(classes)])
    covariance = shrunk_covariance(points[fitting] - means[labels[fitting]])
    if not np.trace(covariance) > 0:
        raise CalibrationError("The embedding does not vary between images, so it cannot tell the unknown.")
    precision = np.linalg.inv(covariance)
    precision = (precision + precision.T) / 2
    reference = Reference(means.astype(np.float32), precision.astype(np.float32))
    distances = np.sort(reference.distance(embedding[~fitting], logits[~fitting]))
    rank = min(len(distances), math.ceil(KNOWN_QUANTILE * (len(distances) + 1)))
    return reference, math.ceil(distances[rank - 1] * E6)


def shrunk_covariance(residuals: NDArray[np.float64]) -> NDArray[np.float64]:
    """The covariance of zero-mean rows ``[N, width]``, drawn towards a multiple of the identity: so it has an inverse.

    How far is the estimate of Ledoit and Wolf 2004 (A well-conditioned estimator for large-dimensional covariance
    matrices), but at least 0.001, for units that never fire.
    """
    count, width = residuals.shape
    sample = residuals.T @ residuals / count
    scale = np.trace(sample) / width
    spread = ((sample - scale * np.eye(width)) ** 2).sum()
    squares = residuals**2
    noise = ((squares.T @ squares).sum() / count - (sample**2).sum()) / count
    shrinkage = max(SHRINKAGE_MIN, min(1.0, noise / spread)) if spread > 0 else 1.0
    return np.asarray((1 - shrinkage) * sample + shrinkage * scale * np.eye(width))
