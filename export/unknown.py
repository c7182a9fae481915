"""How to tell the unknown: fits each way to measure distance, and chooses between them by experiment.

Validation images are halved, label by label: one half fits the detectors, the other gives the distance over which an input
counts as unknown, 95 % of it being nearer, since what a detector was fitted on is nearer to it. What each method is worth is
tried on inputs of another kind: those that the caller gives, and every label in turn, left out and taken for a stranger.

The second is optimistic: the network was trained on that label, so its embedding has room for it. It shows at least what the
distance alone makes of a gap. And no figure says what a detector makes of strangers that nobody thought of.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from appliance.bundle.manifest import UNKNOWN_METHODS
from appliance.model.unknown import Detector
from export.detectors import Rows, as_served, distance, fit
from export.errors import CalibrationError
from export.evenly import evenly
from export.millionths import over

Array = NDArray[np.float64]
Labels = NDArray[np.int64]

IMAGES_OF_A_LABEL_MIN = 4
WIDTH_MIN, WIDTH_MAX = 2, 4096  # a fit takes the cube of it: minutes at the most
KNOWN_QUANTILE = 0.95
LEFT_OUT = "a label left out (optimistic: the network was trained on it)"
LEFT_OUT_LABELS_MAX, LEFT_OUT_LABELS_OF_WIDE_MAX, LEFT_OUT_ROWS_MAX = 20, 5, 2000
WIDE = 1024
AUROC_DIGITS = 3


@dataclass(frozen=True, slots=True)
class UnknownResult:
    """How well ``method`` tells the ``n`` inputs of the set ``name`` from known ones held out.

    ``auroc`` is how often a stranger is farther than a known input; ``fpr95`` the share of strangers that pass where 95 % of
    known inputs do.
    """

    method: str
    name: str
    n: int
    auroc: float
    fpr95: float
    chosen: bool


@dataclass(frozen=True, eq=False)
class Chosen:
    """A detector and its threshold; ``held_out``, bool ``[N]``, are the images that it was not fitted on.

    ``unfitted`` are the methods that could not be tried, since they cannot be fitted to this embedding. The distances,
    float64, are the chosen method's: of those images, and of each set of strangers.
    """

    detector: Detector
    reject_above_e6: int
    held_out: NDArray[np.bool_]
    results: tuple[UnknownResult, ...]
    unfitted: tuple[str, ...]
    known_distances: Array
    strange_distances: Mapping[str, Array]


def choose(known: Rows, strange: Mapping[str, Rows], wanted: str | None = None) -> Chosen:
    """The method ``wanted``, or else that with the best mean AUROC over all sets to three digits, the simplest at a tie.

    With two labels, the one left over has nothing to be told from; then that set counts only where there is no other.

    Raises:
        CalibrationError: a label has too few images, or the embedding says nothing.
    """
    _require_enough(known)
    fitting = halves(known.labels)
    fitted_on, held_out = known.where(fitting), known.where(~fitting)
    if wanted is None:
        _require_spread(fitted_on)
    asked = [method for method in UNKNOWN_METHODS if method != "nearest" or method == wanted]
    detectors = _fitted(asked, fitted_on, wanted)
    methods = list(detectors)
    distances = {method: distance(each, held_out) for method, each in detectors.items()}
    apart = {
        method: {name: distance(each, rows) for name, rows in strange.items() if len(rows)}
        for method, each in detectors.items()
    }
    figures = {
        method: {
            name: (len(far), auroc(distances[method], far), passing(distances[method], far)) for name, far in sets.items()
        }
        for method, sets in apart.items()
    }
    given = list(figures[methods[0]])
    left_out = leave_one_out(methods, fitted_on, held_out)
    counted = given if given and (known.logits.shape[1] == 2 or not left_out) else [*given, LEFT_OUT]
    if not given and not left_out:
        raise CalibrationError("Nothing can be told from the known: no strangers are given, and no label can be left out.")
    for method, found in left_out.items():
        figures[method][LEFT_OUT] = found
    mean = {method: np.mean([figures[method][name][1] for name in counted]) for method in methods}
    method = wanted or max(methods, key=lambda each: round(float(mean[each]), AUROC_DIGITS))
    return Chosen(
        detector=detectors[method],
        reject_above_e6=over(threshold(distances[method])),
        held_out=~fitting,
        results=tuple(
            UnknownResult(each, name, *found, chosen=each == method)
            for each in methods
            for name, found in figures[each].items()
        ),
        unfitted=tuple(each for each in asked if each not in detectors),
        known_distances=distances[method],
        strange_distances=apart[method],
    )


def _fitted(methods: Sequence[str], known: Rows, wanted: str | None) -> dict[str, Detector]:
    """A detector by method, of those that can be fitted.

    Raises:
        CalibrationError: the one that was asked for cannot be, or none can.
    """
    made, failed = dict[str, Detector](), dict[str, CalibrationError]()
    for method in methods:
        try:
            made[method] = as_served(fit(method, known), known.logits.shape[1])
        except CalibrationError as error:
            failed[method] = error
        except np.linalg.LinAlgError:
            failed[method] = CalibrationError(f"The directions of the embedding cannot be told apart, as {method} has to.")
    if failed and (wanted in failed or not made):
        raise failed.get(wanted or "", next(iter(failed.values())))
    return made


def threshold(known: Array) -> float:
    """The distance that a new known input exceeds with a probability of at most 5 %: the ⌈0.95 (n + 1)⌉-th smallest."""
    rank = min(len(known), math.ceil(KNOWN_QUANTILE * (len(known) + 1) - 1e-9))
    return float(np.partition(known, rank - 1)[rank - 1])


def auroc(known: Array, strange: Array) -> float:
    """How often a stranger is farther than a known input; a tie counts half."""
    ranked = np.sort(known)
    nearer, within = (np.searchsorted(ranked, strange, side=side).sum() for side in ("left", "right"))
    return float((int(nearer) + int(within)) / (2 * len(known) * len(strange)))


def passing(known: Array, strange: Array) -> float:
    """The share of strangers within the threshold that known inputs give."""
    return float((strange <= threshold(known)).mean())


def halves(labels: Labels) -> NDArray[np.bool_]:
    """Which rows a detector is fitted on: the first, third … of each label, in order."""
    fitting = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        fitting[np.flatnonzero(labels == label)[::2]] = True
    return fitting


def leave_one_out(methods: Sequence[str], fitted_on: Rows, held_out: Rows) -> dict[str, tuple[int, float, float]]:
    """By method: the strangers, and the means over labels left out of AUROC and of FPR95.

    Twenty of many labels are tried, five where the embedding is wide, and of many known rows an even choice of 2,000: a
    fit's cost grows as the cube of the width.
    """
    classes, width = fitted_on.logits.shape[1], fitted_on.embedding.shape[1]
    most = LEFT_OUT_LABELS_MAX if width <= WIDE else LEFT_OUT_LABELS_OF_WIDE_MAX
    tried = np.unique(np.linspace(0, classes - 1, min(classes, most)).round().astype(int)).tolist()
    sample = held_out.where(evenly(len(held_out), LEFT_OUT_ROWS_MAX))
    found: dict[str, list[tuple[int, float, float]]] = {method: [] for method in methods}
    for label in tried:
        rest, known, strange = fitted_on.without(label), sample.without(label), fitted_on.left_out(label, held_out)
        try:
            detectors = {method: fit(method, rest) for method in methods}
        except (CalibrationError, np.linalg.LinAlgError):  # what is left says too little; the others are tried all the same
            continue
        for method, detector in detectors.items():
            near, far = distance(detector, known), distance(detector, strange)
            found[method].append((len(far), auroc(near, far), passing(near, far)))
    return {
        method: (
            sum(n for n, _, _ in rows),
            float(np.mean([a for _, a, _ in rows])),
            float(np.mean([f for _, _, f in rows])),
        )
        for method, rows in found.items()
        if rows
    }


def _require_enough(known: Rows) -> None:
    counts = np.bincount(known.labels, minlength=known.logits.shape[1])
    if counts.min() < IMAGES_OF_A_LABEL_MIN:
        raise CalibrationError(
            f"To tell the unknown, every label needs at least {IMAGES_OF_A_LABEL_MIN} validation cases, and label "
            f"{int(counts.argmin())} has {counts.min()}; add cases, or say unknown=False in the recipe."
        )
    width = known.embedding.shape[1]
    if width < WIDTH_MIN:
        raise CalibrationError(
            f"To tell the unknown, an embedding needs at least {WIDTH_MIN} numbers, and there is {width}."
        )
    if width > WIDTH_MAX:
        raise CalibrationError(
            f"To tell the unknown, an embedding has at most {WIDTH_MAX} numbers, and there are {width}; "
            "pool it, or project it."
        )
    if not np.isfinite(known.embedding).all():
        raise CalibrationError("The embedding of a validation case is not a number.")
    points = known.embedding[halves(known.labels)]
    if not (points != points[0]).any():
        raise CalibrationError("The embedding does not vary between cases, so it cannot tell the unknown.")


def _require_spread(rows: Rows) -> None:
    """Within labels: else whatever differs in the least would be unknown. Who asks for a method may want just that."""
    of_labels = (rows.embedding[rows.labels == label] for label in np.unique(rows.labels))
    if not any((own != own[0]).any() for own in of_labels):
        raise CalibrationError("The embedding does not vary between cases of a label, so it cannot tell the unknown.")
