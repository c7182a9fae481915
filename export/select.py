"""Picks the golden cases: the inputs and answers that travel in the bundle and are replayed wherever it is loaded."""

import numpy as np

from appliance.model.golden import GoldenCases
from export.recipe import Recipe
from export.session import GraphSession
from export.validation import Validation


def golden(recipe: Recipe, validation: Validation, session: GraphSession) -> GoldenCases:
    """Cases spread evenly over the labels and, within a label, over its cases; each answered alone.

    Files and texts travel as they are, to be decoded as a caller's would be.
    """
    chosen = spread(validation.labels.tolist(), recipe.golden_cases)
    logits = session.run(tuple(array[chosen] for array in validation.rows), 1).logits
    return GoldenCases(tuple(validation.content(i) for i in chosen), logits)


def spread(labels: list[int], cases: int) -> list[int]:
    """The positions of ``cases`` items, fewer where there are not so many: the labels take turns."""
    rows = np.array(labels)
    by_label = [np.flatnonzero(rows == label) for label in np.unique(rows)]
    turns = -(-cases // len(by_label))
    # Within a label the first, the last and those between, as far apart as they can be.
    chosen = [np.unique(np.linspace(0, len(own) - 1, turns).astype(int)) for own in by_label]
    pairs = list(zip(by_label, chosen, strict=True))
    return [int(own[pick[t]]) for t in range(turns) for own, pick in pairs if t < len(pick)][:cases]
