"""Fits each way to measure how far an input is from the known ones (``appliance.model.unknown``).

Covariances are drawn towards a multiple of the identity (Ledoit and Wolf 2004), so fewer images than dimensions will do.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from appliance.errors import MalformedBundle
from appliance.model.confidence import Floats
from appliance.model.unknown import Detector, Mahalanobis, Nearest, RelativeMahalanobis, Vim, decode, encode
from export.errors import CalibrationError

Array = NDArray[np.float64]
Labels = NDArray[np.int64]

SHRINKAGE_MIN = 1e-3
STEEPNESS_MAX = 1e5
PRINCIPAL_VARIANCE = 0.9
NEAREST_SHARE, NEAREST_MAX = 100, 50


@dataclass(frozen=True, eq=False)
class Rows:
    """Embeddings ``[N, width]``, raw logits ``[N, classes]``, and int64 ``[N]`` labels; those of strangers mean nothing."""

    embedding: Floats
    logits: Floats
    labels: Labels

    def __len__(self) -> int:
        return len(self.labels)

    def where(self, chosen: NDArray[np.bool_] | NDArray[np.int64]) -> "Rows":
        return Rows(self.embedding[chosen], self.logits[chosen], self.labels[chosen])

    def without(self, label: int) -> "Rows":
        """As if the network had never had that label."""
        rest = self.where(self.labels != label)
        logits = np.delete(rest.logits, label, axis=1)
        return Rows(rest.embedding, logits, rest.labels - (rest.labels > label))

    def left_out(self, label: int, other: "Rows") -> "Rows":
        """All rows of that label, here and in another half, as strangers to a network that never had it."""
        own = [half.where(half.labels == label) for half in (self, other)]
        logits = np.concatenate([np.delete(half.logits, label, axis=1) for half in own])
        return Rows(np.concatenate([half.embedding for half in own]), logits, np.zeros(len(logits), np.int64))


def fit(method: str, rows: Rows) -> Detector:
    """One detector, fitted on these rows, of which every label has some."""
    if method == "vim":
        return _vim(rows)
    if method == "nearest":
        return _nearest(rows)
    return _mahalanobis(rows) if method == "mahalanobis" else _relative(rows)


def as_served(detector: Detector, classes: int) -> Detector:
    """The same, written and read as a site would: what it would not accept is refused here."""
    try:
        return decode(detector.method, encode(detector), classes)
    except MalformedBundle as error:
        raise CalibrationError(
            f"The embedding varies so little, or so much, that {detector.method} does not fit numbers of 32 bits."
        ) from error


def distance(detector: Detector, rows: Rows) -> Array:
    """Float64 ``[N]``; what is not a number is infinitely far, as it is for the product."""
    with np.errstate(invalid="ignore", over="ignore"):
        found = detector.distance(rows.embedding, rows.logits)
    return np.where(np.isnan(found), np.inf, found)


def _mahalanobis(rows: Rows) -> Mahalanobis:
    means, within = _classes(rows)
    return Mahalanobis(means.astype(np.float32), _inverse(within))


def _relative(rows: Rows) -> RelativeMahalanobis:
    """The covariance of all is that within classes and that between them. Shrunk apart, the two would differ in directions
    that classes share, a unit that never fires above all, and the relative distance would be of what shrinking did.
    """
    means, within = _classes(rows)
    centre = np.asarray(rows.embedding, np.float64).mean(axis=0)
    shares = np.bincount(rows.labels, minlength=len(means)) / len(rows)
    whole = within + (means - centre).T @ (shares[:, None] * (means - centre))
    # Where a network has drawn its classes far apart, float32 could not hold an inverse as steep as that.
    lowest, *_, highest = np.linalg.eigvalsh(whole)
    lift = max(0.0, highest / STEEPNESS_MAX - lowest) * np.eye(len(centre))
    return RelativeMahalanobis(
        means.astype(np.float32), _inverse(within + lift), centre.astype(np.float32), _inverse(whole + lift)
    )


def _vim(rows: Rows) -> Vim:
    """The principal space: as many directions as hold 90 % of the variance, but at most half of them all (the paper takes
    about half of the width, whatever the network); so there is always a rest, and known inputs reach into it.

    The scale makes the length outside, on average, as large as the top logit is over the mean one. The paper takes the top
    logit itself; but logits mean the same whatever is added to all of them.
    """
    points = np.asarray(rows.embedding, np.float64)
    origin = points.mean(axis=0)
    shifted = points - origin
    variances, directions = np.linalg.eigh(shifted.T @ shifted / len(points))
    variances, directions = variances[::-1].clip(min=0), directions[:, ::-1]
    if not variances.sum() > 0:
        raise CalibrationError("The embedding does not vary between cases, so it cannot tell the unknown.")
    held = np.cumsum(variances) / variances.sum()
    kept = max(1, min(int(np.searchsorted(held, PRINCIPAL_VARIANCE)) + 1, len(variances) // 2))
    residual = directions[:, kept:]
    logits = np.asarray(rows.logits, np.float64)
    span = float((logits.max(axis=1) - logits.mean(axis=1)).mean())
    outside = max(float(np.linalg.norm(shifted @ residual, axis=1).mean()), 1e-6 * math.sqrt(variances.sum()))
    scale = np.array(max(span, 1e-6) / outside, np.float32)
    return Vim(origin.astype(np.float32), residual.astype(np.float32), scale)


def _nearest(rows: Rows) -> Nearest:
    """The bank is every row; k is a hundredth of it, from 1 to 50 (the paper's for 50,000 images)."""
    points = np.asarray(rows.embedding, np.float64)
    bank = points / np.maximum(np.linalg.norm(points, axis=1, keepdims=True), 1e-12)
    return Nearest(bank.astype(np.float32), np.array(min(NEAREST_MAX, max(1, len(bank) // NEAREST_SHARE)), np.float32))


def _classes(rows: Rows) -> tuple[Array, Array]:
    """The mean of each class, ``[classes, width]``, and the covariance around them, ``[width, width]``."""
    points, classes = np.asarray(rows.embedding, np.float64), rows.logits.shape[1]
    means = np.stack([points[rows.labels == label].mean(axis=0) for label in range(classes)])
    within = shrunk_covariance(points - means[rows.labels])
    if not np.trace(within) > 0:
        raise CalibrationError("The embedding does not vary between cases of a label, so it cannot tell the unknown.")
    return means, within


def _inverse(covariance: Array) -> NDArray[np.float32]:
    precision = np.linalg.inv(covariance)
    with np.errstate(over="ignore"):  # an infinity is refused where the detector is read again
        return np.asarray((precision + precision.T) / 2, np.float32)


def shrunk_covariance(residuals: Array) -> Array:
    """The covariance of zero-mean rows ``[N, width]``, drawn towards a multiple of the identity: so it has an inverse.

    How far is the estimate of Ledoit and Wolf 2004 (A well-conditioned estimator for large-dimensional covariance
    matrices), but at least 0.001, for units that never fire.
    """
    count, width = residuals.shape
    sample = residuals.T @ residuals / count
    scale = np.trace(sample) / width
    spread = ((sample - scale * np.eye(width)) ** 2).sum()
    # The sum over pairs of columns of the sum over rows of both squares is the sum over rows of the squared square length.
    noise = (((residuals**2).sum(axis=1) ** 2).sum() / count - (sample**2).sum()) / count
    shrinkage = max(SHRINKAGE_MIN, min(1.0, noise / spread)) if spread > 0 else 1.0
    return np.asarray((1 - shrinkage) * sample + shrinkage * scale * np.eye(width))
