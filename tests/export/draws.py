"""Seeded logits whose probabilities are known to be right, for tests of calibration."""

import numpy as np
from numpy.typing import NDArray

from appliance.model.confidence import probabilities


def draw(seed: int, n: int, temperature: float, classes: int = 4) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Logits float32 ``[n, classes]``, and labels drawn from softmax(logits / temperature)."""
    random = np.random.default_rng(seed)
    logits = random.normal(0, 2, (n, classes)) * temperature
    chances = probabilities(logits, temperature).cumsum(axis=1)
    return logits.astype(np.float32), (random.random((n, 1)) > chances).sum(axis=1).clip(max=classes - 1)


def clusters(
    n: int = 200, classes: int = 4, seed: int = 5
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]:
    """Embeddings float32 ``[n, 8]`` around a point for each class, logits that follow them, and labels."""
    random = np.random.default_rng(seed)
    labels = np.arange(n) % classes
    points = random.normal(size=(n, 8)) + 6 * np.eye(8)[labels]
    points[:, -1] = 0.0  # a unit that never fires
    return points.astype(np.float32), points[:, :classes].astype(np.float32), labels
