"""How to tell the unknown: fits each way to measure distance, and chooses between them by experiment.

Validation images are halved, label by label: one half fits the detectors, the other gives the distance over which an input
counts as unknown, 95 % of it being nearer, since what a detector was fitted on is nearer to it. What each method is worth is
tried on inputs of another kind: those that the caller gives, and every label in turn, left out and taken for a stranger.

The second is optimistic: the network was trained on that label, so its embedding has room for it. It shows at least what the
distance alone makes of a gap. And no figure says what a detector makes of strangers that nobody thought of.

Covariances are drawn towards a multiple of the identity (Ledoit and Wolf 2004), so fewer images than dimensions will do.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from appliance.bundle.manifest import UNKNOWN_METHODS
from appliance.model.confidence import Floats
from appliance.model.unknown import Detector, Mahalanobis, Nearest, RelativeMahalanobis, Vim
from export.errors import CalibrationError
from export.millionths import over

Array = NDArray[np.float64]
Labels = NDArray[np.int64]

IMAGES_OF_A_LABEL_MIN = 4
WIDTH_MIN = 2
KNOWN_QUANTILE = 0.95
SHRINKAGE_MIN = 1e-3
PRINCIPAL_VARIANCE = 0.9
NEAREST_SHARE, NEAREST_MAX = 100, 50
LEFT_OUT = "a label left out (optimistic: the network was trained on it)"
LEFT_OUT_LABELS_MAX, LEFT_OUT_LABELS_OF_WIDE_MAX, LEFT_OUT_ROWS_MAX = 20, 5, 2000
WIDE = 1024
AUROC_DIGITS = 3


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

    The distances, float64, are the chosen method's: of those images, and of each set of strangers.
    """

    detector: Detector
    reject_above_e6: int
    held_out: NDArray[np.bool_]
    results: tuple[UnknownResult, ...]
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
    methods = [method for method in UNKNOWN_METHODS if method != "nearest" or method == wanted]
    detectors = {method: fit(method, fitted_on) for method in methods}
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
    for method, found in leave_one_out(methods, fitted_on, held_out).items():
        figures[method][LEFT_OUT] = found
    counted = [name for name in figures[methods[0]] if name != LEFT_OUT or known.logits.shape[1] > 2 or not strange]
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
        known_distances=distances[method],
        strange_distances=apart[method],
    )


def fit(method: str, rows: Rows) -> Detector:
    """One detector, fitted on these rows, of which every label has some."""
    if method == "vim":
        return _vim(rows)
    if method == "nearest":
        return _nearest(rows)
    means, within = _classes(rows)
    near = Mahalanobis(means.astype(np.float32), _inverse(within))
    if method == "mahalanobis":
        return near
    # The covariance of all is that within classes and that between them. Shrunk apart, the two would differ in directions
    # that classes share, a unit that never fires above all, and the relative distance would be of what shrinking did.
    centre = np.asarray(rows.embedding, np.float64).mean(axis=0)
    shares = np.bincount(rows.labels, minlength=len(means)) / len(rows)
    between = (means - centre).T @ (shares[:, None] * (means - centre))
    return RelativeMahalanobis(near.means, near.precision, centre.astype(np.float32), _inverse(within + between))


def distance(detector: Detector, rows: Rows) -> Array:
    """Float64 ``[N]``; what is not a number is infinitely far, as it is for the product."""
    with np.errstate(invalid="ignore", over="ignore"):
        found = detector.distance(rows.embedding, rows.logits)
    return np.where(np.isnan(found), np.inf, found)


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
    sample = held_out.where(np.unique(np.linspace(0, len(held_out) - 1, min(len(held_out), LEFT_OUT_ROWS_MAX)).astype(int)))
    found: dict[str, list[tuple[int, float, float]]] = {method: [] for method in methods}
    for label in tried:
        rest, known, strange = fitted_on.without(label), sample.without(label), fitted_on.left_out(label, held_out)
        for method in methods:
            detector = fit(method, rest)
            near, far = distance(detector, known), distance(detector, strange)
            found[method].append((len(far), auroc(near, far), passing(near, far)))
    return {
        method: (
            sum(n for n, _, _ in rows),
            float(np.mean([a for _, a, _ in rows])),
            float(np.mean([f for _, _, f in rows])),
        )
        for method, rows in found.items()
    }


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
    return means, shrunk_covariance(points - means[rows.labels])


def _inverse(covariance: Array) -> NDArray[np.float32]:
    precision = np.linalg.inv(covariance)
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


def _require_enough(known: Rows) -> None:
    counts = np.bincount(known.labels, minlength=known.logits.shape[1])
    if counts.min() < IMAGES_OF_A_LABEL_MIN:
        raise CalibrationError(
            f"To tell the unknown, every label needs at least {IMAGES_OF_A_LABEL_MIN} validation images, and label "
            f"{int(counts.argmin())} has {counts.min()}; add images, or say unknown=False in the recipe."
        )
    width = known.embedding.shape[1]
    if width < WIDTH_MIN:
        raise CalibrationError(
            f"To tell the unknown, an embedding needs at least {WIDTH_MIN} numbers, and there is {width}."
        )
    if not np.isfinite(known.embedding).all():
        raise CalibrationError("The embedding of a validation image is not a number.")
    points = known.embedding[halves(known.labels)]
    if not (points != points[0]).any():
        raise CalibrationError("The embedding does not vary between images, so it cannot tell the unknown.")
