"""Picks the golden cases: the images and answers that travel in the bundle and are replayed wherever it is loaded."""

import numpy as np

from appliance.model import inputs
from appliance.model.golden import GoldenCases
from export.recipe import Recipe
from export.session import GraphSession
from export.validation import Validation


def golden(recipe: Recipe, validation: Validation, session: GraphSession) -> GoldenCases:
    """Cases spread evenly over the labels and, within a label, over its files; each answered alone.

    The files travel as they are, to be decoded as a caller's would be.
    """
    files = [validation.paths[i].read_bytes() for i in spread(validation.labels.tolist(), recipe.golden_cases)]
    logits = session.run(inputs.decode(recipe.input, files), 1).logits
    return GoldenCases.of_encoded(files, logits)


def spread(labels: list[int], cases: int) -> list[int]:
    """The positions of ``cases`` items, fewer where there are not so many: the labels take turns."""
    rows = np.array(labels)
    by_label = [np.flatnonzero(rows == label) for label in np.unique(rows)]
    turns = -(-cases // len(by_label))
    # Within a label the first, the last and those between, as far apart as they can be.
    chosen = [np.unique(np.linspace(0, len(own) - 1, turns).astype(int)) for own in by_label]
    pairs = list(zip(by_label, chosen, strict=True))
    return [int(own[pick[t]]) for t in range(turns) for own, pick in pairs if t < len(pick)][:cases]
