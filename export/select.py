"""Picks the golden cases: the inputs and answers that travel in the bundle and are replayed wherever it is loaded."""

import numpy as np

from appliance.bundle.manifest import E6, Golden
from appliance.model import inputs
from appliance.model.golden import GoldenCases
from export.errors import RecipeError
from export.evenly import evenly
from export.recipe import LOGIT_TOLERANCES, Recipe
from export.session import GraphSession
from export.validation import Validation


def golden(recipe: Recipe, validation: Validation, session: GraphSession) -> GoldenCases:
    """Cases spread evenly over the labels and, within a label, over its cases; each answered alone.

    Files and texts travel to be decoded as a caller's would be; of an image, its metadata stays at home.

    Raises:
        RecipeError: a file reads otherwise without its metadata.
    """
    chosen = spread(validation.labels.tolist(), recipe.golden_cases)
    rows = tuple(array[chosen] for array in validation.rows)
    cases = tuple(validation.content(i) for i in chosen)
    for i, case in enumerate(cases):
        for spec, content, array in zip(recipe.input.specs, case, rows, strict=True):
            if not np.array_equal(inputs.read(spec, content)[0], array[i]):
                raise RecipeError(f"{validation.names[chosen[i]]} cannot travel: it reads otherwise without its metadata")
    return GoldenCases(cases, session.run(rows, 1).logits)


def limit(recipe: Recipe, golden: GoldenCases) -> Golden:
    """How many cases there are, and how far a logit may be off on another machine, in millionths.

    As far as the precision asks for, but less than half of what parts the two best logits of a case in the middle: else the
    replay would take answers for good that are turned round.
    """
    tolerance = recipe.logit_tolerance
    if tolerance is None:
        two_best = np.sort(np.asarray(golden.logits, np.float64), axis=1)[:, -2:]
        apart = float(np.median(two_best[:, 1] - two_best[:, 0]))
        coarse = LOGIT_TOLERANCES[recipe.precision] * max(1.0, float(np.abs(golden.logits).max()))
        tolerance = min(coarse, 0.49 * apart)
    return Golden(len(golden.cases), min(E6, max(1, round(tolerance * E6))))


def spread(labels: list[int], cases: int) -> list[int]:
    """The positions of ``cases`` items, fewer where there are not so many: the labels take turns."""
    rows = np.array(labels)
    by_label = [np.flatnonzero(rows == label) for label in np.unique(rows)]
    turns = -(-cases // len(by_label))
    chosen = [evenly(len(own), turns) for own in by_label]
    pairs = list(zip(by_label, chosen, strict=True))
    return [int(own[pick[t]]) for t in range(turns) for own, pick in pairs if t < len(pick)][:cases]
