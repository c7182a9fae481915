"""The operating point: from which score on an answer is accepted.

The smallest threshold such that the error among accepted answers is at most what the recipe asks for, by the upper bound
of Clopper and Pearson at 95 % (the selective guarantee of Geifman and El-Yaniv 2017, section 3). The weak spot: the
threshold is picked among many on the same images, so the 95 % is nominal; the report gives the count and the errors
behind it.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from appliance.bundle.manifest import E6
from appliance.model.confidence import Floats
from export.binomial import CONFIDENCE, tail, upper_bound
from export.errors import CalibrationError

Counts = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """Where answers are accepted: ``errors`` among ``accepted`` of ``images``; the upper ``bound`` on their rate."""

    accept_at_least_e6: int
    images: int
    accepted: int
    errors: int
    bound: float


def operating_point(certain: Floats, right: NDArray[np.bool_], error_max: float) -> OperatingPoint:
    """For a score ``[N]`` of any sign and range, higher for surer answers, and whether each was right.

    Raises:
        CalibrationError: no threshold is good enough on so many images; the sentence says what would be.
    """
    if not len(certain):
        raise CalibrationError("Every validation case counts as unknown, so no answer is left to accept.")
    thresholds = np.unique(np.floor(np.asarray(certain, np.float64) * E6).astype(np.int64))
    order = np.argsort(certain, kind="stable")
    # Compared as the product will compare, so that a rounding of the threshold's millionths cannot part the two.
    first = np.searchsorted(certain[order], thresholds / E6, side="left")
    accepted = len(right) - first
    errors = np.concatenate([np.cumsum(~right[order][::-1])[::-1], [0]])[first]
    thresholds, accepted, errors = (counts[accepted > 0] for counts in (thresholds, accepted, errors))
    for threshold, n, k in zip(thresholds.tolist(), accepted.tolist(), errors.tolist(), strict=True):
        if k <= error_max * n and tail(k, n, error_max) <= 1 - CONFIDENCE:
            return OperatingPoint(threshold, len(right), n, k, upper_bound(k, n))
    n, k, bound = _best(accepted, errors)
    enough = math.ceil(math.log(1 - CONFIDENCE) / math.log1p(-error_max))
    advice = f"use error_among_accepted_max={math.ceil(bound * 1000) / 1000}, or " if bound < 0.999 else "it takes "
    raise CalibrationError(
        f"No threshold keeps the error among accepted answers at {error_max:.2%} or less with {CONFIDENCE:.0%} "
        f"confidence: the best has {k} errors in {n} answers, a bound of {bound:.2%}; "
        f"{advice}more validation cases "
        f"(at least {enough} accepted without an error, and there are {len(right)})."
    )


def _best(accepted: Counts, errors: Counts) -> tuple[int, int, float]:
    """The counts with the lowest bound, and the bound; a bound is computed only where it is lower than the last one."""
    best = (int(accepted[0]), int(errors[0]), 1.0)
    for i in np.argsort(errors / accepted, kind="stable").tolist():
        n, k = int(accepted[i]), int(errors[i])
        if k < n and tail(k, n, best[2]) < 1 - CONFIDENCE:
            best = (n, k, upper_bound(k, n))
    return best
