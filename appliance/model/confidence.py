"""From logits to probabilities, and to one number that says how sure an answer is."""

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float32] | NDArray[np.float64]

GEN_EXPONENT, GEN_CLASSES_MAX = 0.1, 100


def probabilities(logits: Floats, temperature: float) -> NDArray[np.float64]:
    """softmax(logits / temperature), float64 ``[N, classes]`` (temperature scaling: Guo et al. 2017, section 4.2)."""
    scaled = np.asarray(logits, np.float64) / temperature
    exponentials = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    return np.asarray(exponentials / exponentials.sum(axis=1, keepdims=True))


def certainty(score: str, logits: Floats, calibrated: NDArray[np.float64], temperature: float) -> NDArray[np.float64]:
    """One of the manifest's ``SCORES`` for each row, float64 ``[N]``; higher is surer.

    ``calibrated`` are the probabilities at this temperature. The definitions stand in bundle-format section 4.2.
    """
    match score:
        case "max_probability":
            found = calibrated.max(axis=1)
        case "margin":
            best = np.partition(calibrated, -2, axis=1)
            found = best[:, -1] - best[:, -2]
        case "top_two":
            found = np.partition(calibrated, -2, axis=1)[:, -2:].sum(axis=1)
        case "entropy":
            found = (calibrated * np.log(np.maximum(calibrated, np.finfo(np.float64).tiny))).sum(axis=1)
        case "max_logit":
            found = np.asarray(logits, np.float64).max(axis=1) / temperature
        case "energy":
            found = log_sum_exp(np.asarray(logits, np.float64) / temperature)
        case "gen":  # Liu et al. 2023, equation 5
            top = np.sort(calibrated, axis=1)[:, -GEN_CLASSES_MAX:]
            found = -(top**GEN_EXPONENT * (1 - top) ** GEN_EXPONENT).sum(axis=1)
        case _:
            raise ValueError(score)
    return np.asarray(found)


def log_sum_exp(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """log Σ exp over the last axis, without overflow, float64 ``[N]``."""
    top = values.max(axis=1)
    return np.asarray(top + np.log(np.exp(values - top[:, None]).sum(axis=1)))
