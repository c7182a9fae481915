"""What the data themselves say before any model is judged by them: how many there are, what is there twice, who is on both
sides of the split.

A figure is worth what the cases behind it are worth. A case that the model was trained on, or a patient whose other images
it was trained on, makes accuracy look better than any new patient will find it. Each question ends in one ``Finding``: a
grade and a plain sentence. What could not be looked at is graded amber, not ok.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from appliance.model.inputs import Rows
from export import twins

Grade: TypeAlias = Literal["ok", "amber", "red"]

EXAMPLES_MAX = 20
CASES_OF_A_LABEL_MIN = 30  # without one error among 30, one in ten may still be wrong (95%)
REPEATED_MAX = 0.05
SHARED_MAX = 0.01
CONFLICTS_MAX = 0.01


class Cases(Protocol):
    """``rows`` is one array ``[N, ...]`` for each input; ``labels`` int64 ``[N]``; a group is a patient or a study."""

    @property
    def names(self) -> tuple[str, ...]: ...
    @property
    def rows(self) -> Rows: ...
    @property
    def labels(self) -> NDArray[np.int64]: ...
    @property
    def groups(self) -> tuple[str, ...] | None: ...


@dataclass(frozen=True, slots=True)
class Finding:
    """``about`` is two or three words; ``sentence`` stands for itself."""

    grade: Grade
    about: str
    sentence: str


@dataclass(frozen=True, slots=True)
class Pair:
    """The name of a case and that of its twin."""

    name: str
    twin: str
    exact: bool
    other_label: bool


@dataclass(frozen=True, slots=True)
class Repeats:
    """How many cases have a twin: ``exact`` byte for byte, ``near`` by looks (None where cases are no images); and how many
    have one of another label. At most 20 pairs.
    """

    exact: int
    near: int | None
    other_label: int
    examples: tuple[Pair, ...]

    @property
    def cases(self) -> int:
        return self.exact + (self.near or 0)


@dataclass(frozen=True, slots=True)
class Counts:
    """Of one set: its cases by label, in the model's order, and its groups, where they are known."""

    cases: int
    by_label: tuple[int, ...]
    groups: int | None


@dataclass(frozen=True, slots=True)
class Evidence:
    """``within`` counts validation cases that repeat an earlier one; ``across`` those with a twin in training."""

    validation: Counts
    training: Counts | None
    within: Repeats
    across: Repeats | None
    groups_on_both_sides: int | None
    findings: tuple[Finding, ...]


def examine(validation: Cases, training: Cases | None, labels: Sequence[str], *, images: bool) -> Evidence:
    """``labels`` are the names of the model's labels; ``images`` says whether the one input is pixels, uint8
    ``[N, height, width, channels]``.
    """
    given = [validation] if training is None else [validation, training]
    compared = twins.sets([each.rows for each in given], [each.labels for each in given], images=images)
    counts = [_counts(each, len(labels)) for each in given]
    within = _repeats(twins.within(compared[0]), validation, validation, images)
    across = None if training is None else _repeats(twins.across(*compared), validation, training, images)
    both = None
    if training is not None and validation.groups is not None and training.groups is not None:
        both = len(set(validation.groups) & set(training.groups))
    findings = (
        _enough(counts[0], labels),
        _independent(counts[0]),
        _repeated(within, counts[0].cases, images),
        _shared(across, counts[0].cases, images),
        _split(both, counts),
        _conflicts(within, across, counts[0].cases),
    )
    return Evidence(counts[0], counts[1] if training is not None else None, within, across, both, findings)


def _counts(cases: Cases, labels: int) -> Counts:
    by_label = tuple(np.bincount(cases.labels, minlength=labels).tolist())
    return Counts(len(cases.labels), by_label, None if cases.groups is None else len(set(cases.groups)))


def _repeats(found: twins.Twins, cases: Cases, others: Cases, images: bool) -> Repeats:
    near = (found.other >= 0) & ~found.exact
    # Those of another label first: they are what somebody has to look at.
    order = np.lexsort((~found.exact, ~found.conflict))
    shown = [i for i in order.tolist() if found.other[i] >= 0][:EXAMPLES_MAX]
    return Repeats(
        exact=int(found.exact.sum()),
        near=int(near.sum()) if images else None,
        other_label=int(found.conflict.sum()),
        examples=tuple(
            Pair(cases.names[i], others.names[found.other[i]], bool(found.exact[i]), bool(found.conflict[i])) for i in shown
        ),
    )


def _enough(counts: Counts, labels: Sequence[str]) -> Finding:
    least = min(counts.by_label)
    few = sum(count < CASES_OF_A_LABEL_MIN for count in counts.by_label)
    rarest = labels[counts.by_label.index(least)]
    if least == 0:
        none = sum(count == 0 for count in counts.by_label)
        sentence = f"There is no validation case of {none} of {len(labels)} labels, {rarest} among them."
        return Finding("red", "Enough cases", sentence)
    if few:
        return Finding(
            "amber",
            "Enough cases",
            f"There are fewer than {CASES_OF_A_LABEL_MIN} validation cases of {few} of {len(labels)} labels (the fewest, "
            f"{least}, of {rarest}): what is said of such a label alone is little more than an anecdote.",
        )
    return Finding("ok", "Enough cases", f"Every label has at least {least:,} validation cases, {counts.cases:,} in all.")


def _independent(counts: Counts) -> Finding:
    if counts.groups is None:
        return Finding(
            "amber",
            "Independent cases",
            "The recipe does not say which cases belong together; intervals take all for independent.",
        )
    if counts.groups < counts.cases:
        return Finding(
            "amber",
            "Independent cases",
            f"{counts.cases:,} validation cases come from {counts.groups:,} groups (patients or studies). Intervals take "
            "cases for independent, so they are narrower than they should be.",
        )
    return Finding("ok", "Independent cases", f"Each of the {counts.cases:,} validation cases is of a group of its own.")


def _repeated(within: Repeats, cases: int, images: bool) -> Finding:
    looked = "byte for byte or by looks" if images else "byte for byte"
    if not within.cases:
        return Finding("ok", "Repeated cases", f"No validation case is there twice ({looked}).")
    near = f", {within.near:,} by looks" if images else ""
    return Finding(
        "red" if within.cases > REPEATED_MAX * cases else "amber",
        "Repeated cases",
        f"{_of(within.cases, cases)} validation cases repeat another ({within.exact:,} byte for byte{near}): each counts "
        "as if it were new.",
    )


def _shared(across: Repeats | None, cases: int, images: bool) -> Finding:
    about = "Training and validation"
    if across is None:
        return Finding("amber", about, "No training set was given, so whether the model has seen these cases is not known.")
    if not across.cases:
        return Finding("ok", about, "No validation case is in the training set too.")
    near = f", {across.near:,} by looks" if images else ""
    return Finding(
        "red" if across.cases > SHARED_MAX * cases else "amber",
        about,
        f"{_of(across.cases, cases)} validation cases are in the training set too ({across.exact:,} byte for byte{near}): "
        "the model was trained on what it is judged by.",
    )


def _split(both: int | None, counts: list[Counts]) -> Finding:
    about = "Patients on both sides"
    if both is None:
        missing = "training set" if len(counts) == 1 else "patients or studies"
        return Finding("amber", about, f"Not looked at: the recipe names no {missing}.")
    if both:
        return Finding(
            "red",
            about,
            f"{_of(both, counts[0].groups or both)} groups (patients or studies) of validation are in training too: "
            "a new patient will be answered less well than the figures here say.",
        )
    return Finding("ok", about, "No group (patient or study) is on both sides of the split.")


def _conflicts(within: Repeats, across: Repeats | None, cases: int) -> Finding:
    found = max(within.other_label, across.other_label if across else 0)
    if not found:
        return Finding("ok", "Labels in conflict", "No two cases alike have different labels.")
    both = [f"{within.other_label:,} within validation"] + ([f"{across.other_label:,} against training"] if across else [])
    return Finding(
        "red" if found > CONFLICTS_MAX * cases else "amber",
        "Labels in conflict",
        f"Cases alike have different labels: {' and '.join(both)}. At least one of each two labels is wrong.",
    )


def _of(part: int, whole: int) -> str:
    return f"{part:,} of {whole:,} ({part / whole:.1%})"
