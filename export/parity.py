"""The parity gate: the graph answers as the author's network does, on real cases, in any batch.

Three questions. Does the graph agree with the network? Does a row's answer depend on the rows beside it: alone, in company,
in another order? And does the answer to a text depend on what stands past its end? Float32 has to agree number by number;
half precision within a hundredth; integers of 8 bits in what they answer, and no class may pay for it.
"""

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from appliance.bundle.manifest import E6
from appliance.model.confidence import Floats, probabilities
from appliance.model.inputs import Rows
from export.errors import ParityError
from export.evenly import evenly
from export.session import GraphSession, Outputs

CASES_MIN = 64
SAMPLE_CASES = 64
BATCHES = (1, 2, 3, 7)
PROBABILITY_MAX = 1e-5
E9 = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Limits:
    """``relative`` is of a row's largest |logit|, or of 1 where that is less; None where logits need not agree.

    Where the network's own two best logits are nearer than ``margin``, either may win. Drops are shares of the cases; of
    float32, all of which has to agree, nothing more is asked.
    """

    relative: float | None
    together: float  # as relative: between a row alone and the same row in company
    margin: float
    agreement: float
    accuracy_drop: float
    class_drop: float


LIMITS = {
    "fp32": Limits(relative=1e-4, together=1e-4, margin=2e-4, agreement=1.0, accuracy_drop=1, class_drop=1),
    "fp16": Limits(relative=0.01, together=0.01, margin=0.02, agreement=0.999, accuracy_drop=0.001, class_drop=0.01),
    "int8": Limits(relative=None, together=0.01, margin=0, agreement=0.98, accuracy_drop=0.005, class_drop=0.01),
}


@dataclass(frozen=True, slots=True)
class ParityReport:
    """Largest differences found, in units of 1e-9, and shares in millionths.

    ``close_calls``: rows where another class won within the margin. ``padding_difference_e9`` is of texts alone.
    """

    cases: int
    logit_difference_e9: int
    probability_difference_e9: int
    embedding_difference_e9: int
    composition_difference_e9: int
    padding_difference_e9: int
    close_calls: int
    agreement_e6: int
    accuracy_drop_e6: int
    worst_class_drop_e6: int

    def figures(self) -> dict[str, int]:
        """As the manifest's ``provenance.parity`` holds them."""
        return asdict(self)


def require_enough(cases: int) -> None:
    """Raises ParityError below the number of cases that prove anything."""
    if cases < CASES_MIN:
        raise ParityError(f"Parity needs at least {CASES_MIN} real cases, and there are {cases}.")


def check(
    session: GraphSession,
    rows: Rows,
    network: Outputs,
    labels: NDArray[np.int64],
    rows_max: int,
    *,
    precision: str = "fp32",
    text: bool = False,
) -> ParityReport:
    """Compares the graph with the network's outputs for the same N rows, of which ``labels``, int64 ``[N]``, are the truth.

    Raises:
        ParityError: fewer than 64 cases, an output that is not a number, or a difference over its limit.
    """
    require_enough(len(labels))
    limits = LIMITS[precision]
    whole = session.run(rows, rows_max)
    _require_finite(network, "network")
    _require_finite(whole, "graph")
    logit = _difference("The graph differs from the network in a logit", whole.logits, network.logits, limits.relative)
    embedding = _embeddings(whole, network, limits.relative)
    wanted, got = (probabilities(logits, 1.0) for logits in (network.logits, whole.logits))
    probability = float(np.abs(wanted - got).max())
    if precision == "fp32" and not probability <= PROBABILITY_MAX:
        raise ParityError(
            f"The graph differs from the network by {probability:.2e} in a probability on validation cases; "
            f"{PROBABILITY_MAX:.2e} is allowed."
        )
    close_calls, agreement = _check_top(whole.logits, network.logits, limits)
    drop, class_drop = _check_accuracy(whole.logits, network.logits, labels, limits)
    composition = _check_composition(session, rows, network, rows_max, limits)
    padding = _check_padding(session, rows, whole, rows_max, limits) if text else 0.0
    return ParityReport(
        cases=len(labels),
        logit_difference_e9=round(logit * E9),
        probability_difference_e9=round(probability * E9),
        embedding_difference_e9=round(embedding * E9),
        composition_difference_e9=round(composition * E9),
        padding_difference_e9=round(padding * E9),
        close_calls=close_calls,
        agreement_e6=round(agreement * E6),
        accuracy_drop_e6=round(drop * E6),
        worst_class_drop_e6=round(class_drop * E6),
    )


def _check_composition(session: GraphSession, rows: Rows, network: Outputs, rows_max: int, limits: Limits) -> float:
    """A sample of evenly spread rows, in batches of each size, in order and shuffled."""
    sample = evenly(len(rows[0]), SAMPLE_CASES)
    alone = session.run(_take(rows, sample), 1)
    worst = 0.0
    for size in sorted({min(size, rows_max) for size in (*BATCHES, rows_max)}):
        for order in (np.arange(len(sample)), np.random.default_rng(size).permutation(len(sample))):
            # Going round again fills the last batch, so that every batch has exactly this size.
            order = np.resize(order, -(-len(order) // size) * size)
            found = session.run(_take(rows, sample[order]), size)
            _require_finite(found, "graph")
            what = f"The graph differs from the network in a logit, in batches of {size},"
            _difference(what, found.logits, network.logits[sample[order]], limits.relative)
            of = f"differs between the row alone and in a batch of {size}"
            worst = max(worst, _apart(f"A row's {{}} {of}", found, alone, order, limits))
    return worst


def _check_padding(session: GraphSession, rows: Rows, whole: Outputs, rows_max: int, limits: Limits) -> float:
    """The same texts with words of others past their end: a module that masks by the lengths answers the same."""
    (given,) = rows
    words = np.random.default_rng(7).integers(1, max(2, int(given[:, 1:].max()) + 1), given[:, 1:].shape)
    past = np.arange(1, given.shape[1]) > given[:, :1]
    disturbed = given.copy()
    disturbed[:, 1:] = np.where(past, words, given[:, 1:])
    found = session.run((disturbed,), rows_max)
    what = "The answer to a text depends on what stands past its end: its {} differs"
    return _apart(what, found, whole, np.arange(len(given)), limits)


def _apart(what: str, found: Outputs, alone: Outputs, order: NDArray[np.int64], limits: Limits) -> float:
    """The largest difference in a logit; an embedding, by which the unknown are told, has to keep as still."""
    if found.embedding is not None and alone.embedding is not None:
        _difference(what.format("embedding"), found.embedding, alone.embedding[order], limits.together)
    return _difference(what.format("logit"), found.logits, alone.logits[order], limits.together)


def _take(rows: Rows, chosen: NDArray[np.int64]) -> Rows:
    return tuple(array[chosen] for array in rows)


def _difference(what: str, found: Floats, wanted: Floats, relative: float | None) -> float:
    """The largest difference; raises ParityError where one is over the limit for its row."""
    if found.shape != wanted.shape:
        raise ParityError(f"The graph's output has the shape {found.shape}, and the network's has {wanted.shape}.")
    difference = np.abs(np.asarray(found, np.float64) - wanted)
    if relative is not None:
        limit = relative * np.maximum(1, np.abs(wanted).max(axis=1, keepdims=True))
        row = int((difference / limit).max(axis=1).argmax())
        if not (difference <= limit).all():
            raise ParityError(
                f"{what} by {difference[row].max():.2e} on validation cases; {float(limit[row, 0]):.2e} is allowed."
            )
    return float(difference.max())


def _embeddings(found: Outputs, wanted: Outputs, relative: float | None) -> float:
    if found.embedding is None or wanted.embedding is None:
        if found.embedding is not wanted.embedding:
            raise ParityError("One of the network and the graph gives an embedding, and the other does not.")
        return 0.0
    return _difference("The graph differs from the network in an embedding", found.embedding, wanted.embedding, relative)


def _check_top(found: Floats, wanted: Floats, limits: Limits) -> tuple[int, float]:
    """How many rows have another top class within the network's own margin, and the share that agrees besides them."""
    two_best = np.sort(np.asarray(wanted, np.float64), axis=1)[:, -2:]
    close = two_best[:, 1] - two_best[:, 0] < limits.margin
    other = found.argmax(axis=1) != wanted.argmax(axis=1)
    wrong = int((other & ~close).sum())
    if wrong > (1 - limits.agreement) * len(found) + 1e-9:
        raise ParityError(
            f"The graph gives another top class than the network for {wrong} of {len(found)} validation cases; "
            f"{1 - limits.agreement:.1%} is allowed."
        )
    return int((other & close).sum()), 1 - wrong / len(found)


def _check_accuracy(found: Floats, wanted: Floats, labels: NDArray[np.int64], limits: Limits) -> tuple[float, float]:
    """How much less often the graph is right than the network: over all, and in the class that loses most.

    One case is always allowed: of few cases it is more than any share.
    """
    lost = (wanted.argmax(axis=1) == labels).astype(int) - (found.argmax(axis=1) == labels)
    worst = 0.0
    for which in (np.ones(len(labels), bool), *(labels == label for label in np.unique(labels))):
        share = limits.accuracy_drop if which.all() else limits.class_drop
        if lost[which].sum() > max(1, share * which.sum()):
            whose = "all" if which.all() else f"those of label {int(labels[which][0])}"
            raise ParityError(
                f"The graph is right {int(lost[which].sum())} times less often than the network among {whose}, "
                f"{int(which.sum())} validation cases; {share:.1%} is allowed."
            )
        worst = max(worst, float(lost[which].mean()))
    return float(lost.mean()), worst


def _require_finite(outputs: Outputs, whose: str) -> None:
    arrays: list[NDArray[np.float32]] = [a for a in (outputs.logits, outputs.embedding) if a is not None]
    bad = sum(int((~np.isfinite(array)).sum()) for array in arrays)
    if bad:
        raise ParityError(f"The {whose} gives {bad} values that are not finite numbers on the validation cases.")
