"""The report as a page: one file that needs nothing else, for a clinical engineer to read, print and keep.

It refers to nothing outside itself and has no script; its head forbids both to the browser. What the recipe says is escaped
by the template. ``export/templates/report.html.j2`` is the page; here is what it shows.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from appliance.model.decision import Decision
from export import charts, words
from export.findings import Findings, OfLabel, least_well
from export.pictures import heat, thumbnail
from export.probes import Worst
from export.shares import at_least, at_most, promised

if TYPE_CHECKING:
    from jinja2 import Environment

MATRIX_MAX = 20  # labels; of more, the commonest confusions are listed
LABELS_MAX = 40
CONFUSIONS_MAX = 15
METHOD_SETS_MAX = 60
DECISIONS = {
    Decision.ACCEPT: "accepted",
    Decision.ABSTAIN: "abstained",
    Decision.OUT_OF_DISTRIBUTION: "taken for another kind",
}


@dataclass(frozen=True, slots=True)
class Shown:
    """One of the worst cases. ``image`` and ``map`` are data URIs, and ``name`` the case's, None where left out."""

    case: Worst
    label: str
    answer: str
    decision: str
    name: str | None
    image: str | None
    map: str | None
    hung_on: str


def page(findings: Findings, *, pictures: bool = True) -> str:
    """The whole file, UTF-8. Without ``pictures`` it shows no validation image and names no case."""
    made, found, labels = findings.manifest, findings.calibration, _labels(findings)
    return (
        environment()
        .get_template("report.html.j2")
        .render(
            f=findings,
            made=made,
            found=found,
            rules=words.rules(findings),
            limits=words.limits(findings),
            no_promise=words.NO_PROMISE,
            parity=words.parity(findings.parity.figures()),
            scores=words.SCORES,
            unknown_methods=words.UNKNOWN_METHODS,
            label_set_methods=words.LABEL_SETS,
            charts=charts.drawn(findings),
            labels=labels,
            labels_count=len(made.labels),
            labels_left_out=words.labels_left_out(findings, len(labels)),
            matrix=_matrix(findings),
            confusions=_confusions(findings),
            unknown=found.unknown[:METHOD_SETS_MAX],
            worst=[_shown(findings, case, pictures) for case in findings.probes.worst],
            pictures=pictures,
            right=int(findings.right.sum()),
            right_accepted=int((findings.right & findings.accepted).sum()),
        )
    )


def environment() -> "Environment":
    """Where the templates are, and how they write numbers. Everything is escaped that is not markup of our own."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined  # of the desk; the product does without

    made = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "pct": percent,
        "at_least": _at_least,
        "at_most": at_most,
        "promised": promised,
        "whole": lambda value: f"{value:,}",
        "short": lambda value: f"{value:.3g}",
    }
    return made


def percent(share: float | None, digits: int = 1) -> str:
    return "–" if share is None else f"{share:.{digits}%}"


def _at_least(share: float | None, digits: int = 1) -> str:
    return "–" if share is None else at_least(share, digits)


def _labels(findings: Findings) -> list[tuple[str, OfLabel, float | None]]:
    """Each label's name, its counts, and its label-set coverage."""
    chosen = findings.calibration.label_set
    return [
        (findings.manifest.labels[i].name, findings.by_label[i], chosen.coverage_by_class[i] if chosen else None)
        for i in least_well(findings, LABELS_MAX)
    ]


def _matrix(findings: Findings) -> list[tuple[str, list[tuple[int, float]]]] | None:
    """For each true label, how often each label was answered: the count, and its share of the row. None for many labels."""
    labels = findings.manifest.labels
    if len(labels) > MATRIX_MAX:
        return None
    counts = [[findings.confusion.get((i, j), 0) for j in range(len(labels))] for i in range(len(labels))]
    return [
        (label.name, [(count, count / max(1, sum(row))) for count in row]) for label, row in zip(labels, counts, strict=True)
    ]


def _confusions(findings: Findings) -> list[tuple[str, str, int]]:
    """True label, answer, cases: the commonest."""
    names = [label.name for label in findings.manifest.labels]
    pairs = sorted((-count, i, j) for (i, j), count in findings.confusion.items() if i != j)
    return [(names[i], names[j], -count) for count, i, j in pairs[:CONFUSIONS_MAX]]


def _shown(findings: Findings, case: Worst, with_pictures: bool) -> Shown:
    names, made = [label.name for label in findings.manifest.labels], findings.manifest
    image = mapped = None
    if with_pictures and made.image is not None:
        pixels = findings.cases.rows[0][case.place]
        image = thumbnail(pixels)
        mapped = None if case.drop is None else heat(pixels, case.drop)
    hung_on = ""
    if case.drop is not None:
        row, column = divmod(int(case.drop.argmax()), case.drop.shape[1])
        rows, columns = case.drop.shape
        hung_on = (
            f"With the field in row {row + 1} of {rows}, column {column + 1} of {columns} covered, it is "
            f"{percent(case.probability - float(case.drop.max()))}."
        )
    return Shown(
        case=case,
        label=names[case.label],
        answer=names[case.answer],
        decision=DECISIONS[findings.judged.decisions[case.place]],
        name=findings.cases.names[case.place] if with_pictures else None,
        image=image,
        map=mapped,
        hung_on=hung_on,
    )
