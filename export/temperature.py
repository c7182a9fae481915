"""The temperature that makes probabilities mean what they say, and how well they then do.

Temperature scaling is that of Guo et al. 2017, section 4.2. The expected calibration error is the plain one of that paper's
section 2: 15 bins of equal width. On few cases it is biased upwards: bins of a perfectly calibrated model do not come out
even either. ``by_chance`` is how large it would be then.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from appliance.model.confidence import Floats
from export.errors import CalibrationError

BINS = 15
TEMPERATURES = (0.01, 100.0)
_STEPS_MAX = 100
_DRAWS, _SEED = 200, 0


@dataclass(frozen=True, eq=False)
class Reliability:
    """For each of 15 bins of confidence, 0 to 1: ``count``, int64; ``confidence`` and ``accuracy``, means, float64, 0 where
    the bin is empty. ``error`` is the expected calibration error.
    """

    count: NDArray[np.int64]
    confidence: NDArray[np.float64]
    accuracy: NDArray[np.float64]

    @property
    def error(self) -> float:
        return float((self.count * np.abs(self.confidence - self.accuracy)).sum() / self.count.sum())


def fit(logits: Floats, labels: NDArray[np.int64]) -> float:
    """The temperature of least negative log-likelihood for logits ``[N, classes]`` and labels ``[N]``.

    The likelihood is concave in 1 / T, so Newton's method finds the one maximum; a step that leaves the bracket halves it
    instead. Where the model makes no error here nothing bounds its certainty from above, so it stays as it is: 1.

    Raises:
        CalibrationError: no temperature helps; the model is no better than chance here.
    """
    right = logits.argmax(axis=1) == labels
    if right.all():
        return 1.0
    shifted = np.asarray(logits, np.float64)
    shifted = shifted - shifted.max(axis=1, keepdims=True)
    own = float(shifted[np.arange(len(labels)), labels].mean())
    low, high = 1 / TEMPERATURES[1], 1 / TEMPERATURES[0]
    found = 1.0
    for _ in range(_STEPS_MAX):
        weights = np.exp(shifted * found)
        weights /= weights.sum(axis=1, keepdims=True)
        first = np.einsum("nk,nk->n", weights, shifted)
        slope = float(first.mean()) - own
        curvature = float((np.einsum("nk,nk,nk->n", weights, shifted, shifted) - first**2).mean())
        low, high = (low, found) if slope > 0 else (found, high)
        step = found - slope / curvature if curvature > 0 else math.inf
        step = step if low < step < high else math.sqrt(low * high)
        found, moved = step, abs(step / found - 1)
        if moved < 1e-9:
            break
    if 1 / found > TEMPERATURES[1] * 0.99:
        raise CalibrationError(f"The model is no better than chance on the validation cases: {right.mean():.1%} are right.")
    return 1 / found


def reliability(confidence: Floats, right: NDArray[np.bool_], bins: int = BINS) -> Reliability:
    """Bins of equal width over the probability of the top class, ``[N]``, and whether it was the true one."""
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    count = np.bincount(place, minlength=bins)
    sums = [np.bincount(place, values, minlength=bins) for values in (confidence, right)]
    means = [np.divide(total, count, out=np.zeros(bins), where=count > 0) for total in sums]
    return Reliability(count, *means)


def by_chance(confidence: Floats, bins: int = BINS) -> float:
    """The mean expected calibration error of a model with these confidences whose every probability is right (seeded)."""
    place, n = np.minimum((confidence * bins).astype(int), bins - 1), len(confidence)
    random = np.random.default_rng(_SEED)
    errors = []
    for _ in range(_DRAWS):
        gaps = np.bincount(place, confidence - (random.random(n) < confidence), minlength=bins)
        errors.append(np.abs(gaps).sum() / n)
    return float(np.mean(errors))
