"""The parity gate: the graph answers as the torch module does, on real images, in any batch.

Two questions, one tolerance. Does the graph agree with torch? And does a row's answer depend on the rows beside it:
alone, in company, in another order? Limits are those for float32; half precision and integers will need their own.
"""

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from appliance.model.confidence import Floats, probabilities
from appliance.model.inputs import Images
from export.errors import ParityError
from export.session import GraphSession, Outputs

IMAGES_MIN = 64
SAMPLE_IMAGES = 64
RELATIVE_MAX = 1e-4  # of a row's largest |logit|, or of 1 where that is less; 2e-5 has been seen
PROBABILITY_MAX = 1e-5
MARGIN_MIN = 2e-4  # where torch's own two best logits are nearer than this, either may win
BATCHES = (1, 2, 3, 7)
E9 = 1_000_000_000


@dataclass(frozen=True, slots=True)
class ParityReport:
    """Largest differences found, in units of 1e-9. ``close_calls``: rows where another class won within the margin."""

    images: int
    logit_difference_e9: int
    probability_difference_e9: int
    embedding_difference_e9: int
    composition_difference_e9: int
    close_calls: int

    def figures(self) -> dict[str, int]:
        """As the manifest's ``provenance.parity`` holds them."""
        return asdict(self)


def check(session: GraphSession, images: Images, torch_outputs: Outputs, rows_max: int) -> ParityReport:
    """Compares the graph with torch's outputs for the same images, uint8 ``[N, height, width, channels]``.

    Raises:
        ParityError: fewer than 64 images, an output that is not a number, or a difference over its limit.
    """
    if len(images) < IMAGES_MIN:
        raise ParityError(f"Parity needs at least {IMAGES_MIN} real images, and there are {len(images)}.")
    whole = session.run(images, rows_max)
    _require_finite(torch_outputs, "torch module")
    _require_finite(whole, "graph")
    logit = _compare("The graph differs from torch in a logit", whole.logits, torch_outputs.logits)
    embedding = _compare_embeddings(whole, torch_outputs)
    wanted, got = (probabilities(logits, 1.0) for logits in (torch_outputs.logits, whole.logits))
    probability = float(np.abs(wanted - got).max())
    if not probability <= PROBABILITY_MAX:
        raise ParityError(
            f"The graph differs from torch by {probability:.2e} in a probability on validation images; "
            f"{PROBABILITY_MAX:.2e} is allowed."
        )
    close_calls = _check_top(whole.logits, torch_outputs.logits)
    composition = _check_composition(session, images, torch_outputs, rows_max)
    return ParityReport(
        images=len(images),
        logit_difference_e9=round(logit * E9),
        probability_difference_e9=round(probability * E9),
        embedding_difference_e9=round(embedding * E9),
        composition_difference_e9=round(composition * E9),
        close_calls=close_calls,
    )


def _check_composition(session: GraphSession, images: Images, torch_outputs: Outputs, rows_max: int) -> float:
    """The sample of evenly spread images, in batches of each size, in order and shuffled."""
    sample = np.unique(np.linspace(0, len(images) - 1, SAMPLE_IMAGES).astype(int))
    alone = session.run(images[sample], 1)
    worst = 0.0
    for rows in sorted({min(size, rows_max) for size in (*BATCHES, rows_max)}):
        for order in (np.arange(len(sample)), np.random.default_rng(rows).permutation(len(sample))):
            # Going round again fills the last batch, so that every batch has exactly this size.
            order = np.resize(order, -(-len(order) // rows) * rows)
            found = session.run(images[sample[order]], rows)
            _require_finite(found, "graph")
            expected = torch_outputs.logits[sample[order]]
            _compare(f"The graph differs from torch in a logit, in batches of {rows},", found.logits, expected)
            _check_top(found.logits, expected)
            what = f"A row's logit differs between the row alone and in a batch of {rows}"
            worst = max(worst, _compare(what, found.logits, alone.logits[order]))
    return worst


def _compare(what: str, found: Floats, wanted: Floats) -> float:
    """The largest difference; raises ParityError where one is over the limit for its row."""
    if found.shape != wanted.shape:
        raise ParityError(f"The graph's output has the shape {found.shape}, and torch's has {wanted.shape}.")
    difference = np.abs(np.asarray(found, np.float64) - wanted)
    limit = RELATIVE_MAX * np.maximum(1, np.abs(wanted).max(axis=1, keepdims=True))
    row = int((difference / limit).max(axis=1).argmax())
    if not (difference <= limit).all():
        raise ParityError(
            f"{what} by {difference[row].max():.2e} on validation images; {float(limit[row, 0]):.2e} is allowed."
        )
    return float(difference.max())


def _compare_embeddings(found: Outputs, wanted: Outputs) -> float:
    if found.embedding is None or wanted.embedding is None:
        if found.embedding is not wanted.embedding:
            raise ParityError("One of torch and the graph gives an embedding, and the other does not.")
        return 0.0
    return _compare("The graph differs from torch in an embedding", found.embedding, wanted.embedding)


def _check_top(found: Floats, wanted: Floats) -> int:
    """How many rows have another top class, all within torch's own margin; raises ParityError where one is not."""
    two_best = np.sort(np.asarray(wanted, np.float64), axis=1)[:, -2:]
    other = found.argmax(axis=1) != wanted.argmax(axis=1)
    wrong = other & (two_best[:, 1] - two_best[:, 0] >= MARGIN_MIN)
    if wrong.any():
        raise ParityError(
            f"The graph gives another top class than torch for {int(wrong.sum())} of {len(found)} validation images."
        )
    return int(other.sum())


def _require_finite(outputs: Outputs, whose: str) -> None:
    arrays: list[NDArray[np.float32]] = [a for a in (outputs.logits, outputs.embedding) if a is not None]
    bad = sum(int((~np.isfinite(array)).sum()) for array in arrays)
    if bad:
        raise ParityError(f"The {whose} gives {bad} values that are not finite numbers on the validation images.")
