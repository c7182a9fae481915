"""The model card: what travels in the bundle for who runs the model, as Markdown (Mitchell et al. 2019, Model Cards for
Model Reporting).

It is written before the bundle is sealed and signed with it. It holds figures alone: no image, no name of a case, nothing of
a patient. Whatever the recipe says is escaped, so that a label's name cannot break out of its place.
"""

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from appliance.bundle.manifest import InputSpec, Label
from export import words
from export.findings import Findings, OfLabel, least_well
from export.page import environment

if TYPE_CHECKING:
    from jinja2 import Environment

LABELS_MAX = 100
SETS_MAX = 20
_SPECIAL = re.compile(r"([\\`*_{}\[\]<>|#!~&])")


@dataclass(frozen=True, slots=True)
class Row:
    """A label, its validation cases, how many it has in training, and how often its label sets held it."""

    label: Label
    of: OfLabel
    training: int | None
    coverage: float | None


def card(findings: Findings) -> str:
    """Markdown. ``findings`` may be of a bundle that is not sealed yet."""
    made = findings.manifest
    template = _environment().get_template("card.md.j2")
    rows = _rows(findings)
    text = template.render(
        f=findings,
        made=made,
        found=findings.calibration,
        rows=rows,
        labels_left_out=words.labels_left_out(findings, len(rows)),
        rules=words.rules(findings),
        limits=words.limits(findings),
        unknown=[each for each in findings.calibration.unknown if each.chosen][:SETS_MAX],
    )
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def _environment() -> "Environment":
    """As the page's, but what is shown is escaped for Markdown: everything that is not the template's own."""
    made = environment()
    made.autoescape = False  # this is no HTML; what is shown goes through ``finalize``
    made.finalize = escaped
    made.filters["takes"] = takes
    return made


def escaped(value: object) -> str:
    """On one line, with nothing in it that Markdown reads as its own."""
    return _SPECIAL.sub(r"\\\1", " ".join(str(value).split()))


def takes(spec: InputSpec) -> str:
    """What one input is, in words."""
    sides = " × ".join(map(str, spec.shape))
    if spec.image is not None:
        height, width, channels = spec.shape
        way = "cropped" if spec.image.resize == "crop" else "stretched"
        return f"a {'grey' if channels == 1 else 'colour'} image, PNG or JPEG, {way} to {width} × {height} pixels"
    if spec.text is not None:
        return f"a text of 1 to {spec.shape[0] - 1:,} words and marks; {len(spec.text.words):,} words are known"
    return f"a tensor, {spec.datatype} [{sides}]" if sides else f"a number, {spec.datatype}"


def _rows(findings: Findings) -> list[Row]:
    training = findings.evidence.training
    chosen = findings.calibration.label_set
    return [
        Row(
            findings.manifest.labels[i],
            findings.by_label[i],
            training.by_label[i] if training else None,
            chosen.coverage_by_class[i] if chosen else None,
        )
        for i in least_well(findings, LABELS_MAX)
    ]
