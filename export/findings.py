"""Everything that a build found, raw, and what follows from it: the material of ``export.report``, ``page`` and ``card``.

Intervals are those of Clopper and Pearson 1934 at 95 %, two-sided. They take cases for independent: where several are of one
patient, they are narrower than they should be.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from appliance.bundle.manifest import Manifest
from appliance.model.decision import Decision, Judge, Judgement
from export import grades, probes
from export.calibrate import Calibration
from export.evidence import Cases, Evidence, Finding
from export.parity import ParityReport
from export.probes import Probes
from export.session import Outputs
from export.shares import interval


@dataclass(frozen=True, slots=True)
class Variant:
    """How fast a precision of the model is on the desk's processor: milliseconds a row, alone and in batches of
    ``rows_max``. ``agreement`` with the author's network and ``accuracy`` are shares, None where not measured.
    """

    precision: str
    milliseconds_alone: float
    milliseconds_in_batch: float
    agreement: float | None = None
    accuracy: float | None = None


@dataclass(frozen=True, slots=True)
class OfLabel:
    """One label's validation cases: how many, how many answered rightly, how many accepted, how many of those wrongly.

    ``interval`` is that of the share answered rightly, None where there are no cases.
    """

    cases: int
    right: int
    interval: tuple[float, float] | None
    accepted: int
    accepted_wrong: int


@dataclass(frozen=True, eq=False)
class Findings:
    """Everything that a build found. ``outputs`` are the served graph's, for the validation ``cases``, in their order.

    ``digest`` is None, and ``manifest`` without parts, as long as nothing is sealed: the card is written then.
    """

    manifest: Manifest
    digest: str | None
    cases: Cases
    outputs: Outputs
    parity: ParityReport
    calibration: Calibration
    evidence: Evidence
    probes: Probes
    variants: tuple[Variant, ...]
    seconds: Mapping[str, float]

    @cached_property
    def judged(self) -> Judgement:
        """How the product decides on the validation cases."""
        return Judge(self.calibration.rule, self.calibration.detector).judge(self.outputs.logits, self.outputs.embedding)

    @cached_property
    def right(self) -> NDArray[np.bool_]:
        """Whether the top label is the true one, ``[N]``."""
        return np.asarray(self.judged.top == self.cases.labels)

    @cached_property
    def accepted(self) -> NDArray[np.bool_]:
        return np.array([decision is Decision.ACCEPT for decision in self.judged.decisions], bool)

    @cached_property
    def decisions(self) -> dict[str, int]:
        return {str(decision): self.judged.decisions.count(decision) for decision in Decision}

    @cached_property
    def accuracy_interval(self) -> tuple[float, float]:
        return interval(int(self.right.sum()), len(self.right))

    @cached_property
    def confusion(self) -> dict[tuple[int, int], int]:
        """How many cases have this true label and that top one; of twenty thousand labels a table would be 3 GB."""
        return dict(Counter(zip(self.cases.labels.tolist(), self.judged.top.tolist(), strict=True)))

    @cached_property
    def by_label(self) -> tuple[OfLabel, ...]:
        size = len(self.manifest.labels)
        counts = [
            np.bincount(self.cases.labels[which], minlength=size).tolist()
            for which in (slice(None), self.right, self.accepted, self.accepted & ~self.right)
        ]
        return tuple(
            OfLabel(n, right, interval(right, n) if n else None, accepted, wrong)
            for n, right, accepted, wrong in zip(*counts, strict=True)
        )

    @cached_property
    def set_sizes(self) -> tuple[int, ...] | None:
        """How many validation cases have a label set of one label, of two, and so on; None without label sets."""
        sets = self.judged.label_sets
        return None if sets is None else tuple(np.bincount(sets.sum(axis=1))[1:].tolist())

    @cached_property
    def findings(self) -> tuple[Finding, ...]:
        """The worst first; within a grade, of the model before of the data."""
        found = (*grades.of_model(self.calibration, self.by_label, self.manifest.labels), *self.of_data)
        return tuple(sorted(found, key=lambda finding: grades.ORDER.index(finding.grade)))

    @property
    def of_data(self) -> tuple[Finding, ...]:
        border = self.probes.border
        return self.evidence.findings if border is None else (probes.finding(border), *self.evidence.findings)


def least_well(findings: Findings, most: int) -> list[int]:
    """Places of the labels to be told, in the model's order; where there are more than ``most``, of those with cases the
    ones answered least well, the worst first.
    """
    by_label = findings.by_label
    if len(by_label) <= most:
        return list(range(len(by_label)))
    seen = [i for i, of in enumerate(by_label) if of.cases]
    return sorted(seen, key=lambda i: by_label[i].right / by_label[i].cases)[:most]
