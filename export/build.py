"""The life of a model at the vendor's desk::

    recipe ─▶ convert ─▶ parity ─▶ calibrate ─▶ examine ─▶ seal
                         └ variant ─▶ parity             └ card, report, page

Each step refuses with a reason, and then there is no bundle. Everything after ``convert`` works on the graph that will
be served, not on torch.
"""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from appliance.bundle import chunks, opening
from appliance.bundle.manifest import E6, Golden, Manifest, ModelId, OutputSpec, Provenance, RuntimeSpec
from appliance.bundle.signature import SigningKey
from appliance.canonical import format_time
from appliance.model import unknown
from export import (
    adopt,
    calibrate,
    card,
    checkpoint,
    evidence,
    kinds,
    parity,
    probes,
    recipe,
    report,
    select,
    strange,
    validation,
    variant,
)
from export.calibrate import Calibration, Wishes
from export.convert import convert
from export.errors import ConversionError, RecipeError
from export.findings import Findings, Variant
from export.graph import OPSET, Graph
from export.kinds import EMBEDDING, LOGITS, ImageInput, TextInput
from export.options import desk_policy
from export.parity import ParityReport
from export.recipe import OnnxFile, Recipe
from export.seal import seal
from export.session import GraphSession, Outputs
from export.validation import Validation

NONE_OF_THESE, STRANGE_CASES, STRANGE_BYTES_MAX, STRANGE_SEED = "none of these", 500, 256 << 20, 7
STEPS = ("read", "convert", "parity", "calibrate", "examine", "seal")


@dataclass(frozen=True, slots=True)
class Built:
    """A bundle file's bytes; the 32-byte key of its contents; what was found, which has its digest."""

    bundle: bytes
    content_key: bytes
    findings: Findings

    @property
    def digest(self) -> str:
        return self.findings.digest or ""

    @property
    def report(self) -> dict[str, Any]:
        """A value for the report file."""
        return report.figures(self.findings)


def build(
    recipe_path: Path,
    data: Path | None,
    signers: Sequence[SigningKey],
    announce: Callable[[str], None] = lambda step: None,
) -> Built:
    """All steps; ``announce`` hears the name of each one of ``STEPS`` as it begins.

    Raises:
        RecipeError, ConversionError, ParityError, CalibrationError
    """
    seconds: dict[str, float] = {}

    @contextmanager
    def step(name: str) -> Iterator[None]:
        announce(name)
        started = time.monotonic()
        yield
        seconds[name] = time.monotonic() - started

    with step("read"):
        asked = recipe.load(recipe_path, data)
        cases = validation.load(asked)
        calibrate.require_enough(len(cases))  # before the long steps
        network = _answers(asked, cases)
        if asked.unknown and network.embedding is None:
            raise RecipeError("the network gives no embedding, so the recipe must say unknown=False")
    with step("convert"):
        graph = convert(recipe_path, data)
        session = GraphSession(graph)
    with step("parity"):
        graph, session, found, proven, variants = _proven(asked, cases, network, graph, session)
    with step("calibrate"):
        chosen = calibrate.calibrate(found, cases.labels, _wishes(asked), _strange(asked, cases, session))
        golden = select.golden(asked, cases, session)
    with step("examine"):
        pictures = isinstance(asked.input, ImageInput)
        names = [label.name for label in asked.labels]
        findings = Findings(
            manifest=_manifest(asked, session.has_embedding, chosen, proven, select.limit(asked, golden)),
            digest=None,
            cases=cases,
            outputs=found,
            parity=proven,
            calibration=chosen,
            evidence=evidence.examine(cases, validation.training(asked), names, images=pictures),
            probes=probes.probe(
                lambda images: session.run((images,), asked.rows_max).logits,
                cases.rows[0] if pictures else None,
                cases.labels,
                found.logits,
                chosen.rule.temperature_e6 / E6,
            ),
            variants=variants,
            seconds=seconds,
        )
    with step("seal"):
        plain = {
            "graph": graph.graph,
            "weights": graph.weights,
            "selftest": golden.encode(),
            "card": card.card(findings).encode(),
        }
        if chosen.detector is not None:
            plain["reference"] = unknown.encode(chosen.detector)
        content_key = os.urandom(chunks.KEY_BYTES)
        bundle = seal(findings.manifest, plain, content_key, signers)
        # Read back what was written, as a site would: the digest and the parts are those of the file itself.
        genuine = opening.parse(bundle).verify([desk_policy(key.public_key() for key in signers)])
        genuine.check_parts()
    return Built(bundle, content_key, replace(findings, manifest=genuine.manifest, digest=genuine.digest))


def _answers(asked: Recipe, cases: Validation) -> Outputs:
    """What the author's network itself says about the validation cases."""
    if isinstance(asked.network, OnnxFile):
        return adopt.reference(asked, cases.rows[0])
    return checkpoint.reference(checkpoint.load(asked), asked, cases.rows)


def _proven(
    asked: Recipe, cases: Validation, network: Outputs, graph: Graph, session: GraphSession
) -> tuple[Graph, GraphSession, Outputs, ParityReport, tuple[Variant, ...]]:
    """The graph that is served, proven; what it answers; and how good and fast it is beside the one it was made from.

    A variant is made from a graph that was proven itself: else nobody could tell whose fault a difference is.
    """
    text = isinstance(asked.input, TextInput)
    own = adopt.precision(asked.network) if isinstance(asked.network, OnnxFile) else "fp32"
    if (own, asked.precision) == ("fp16", "fp32"):
        raise RecipeError("the ONNX file computes in half precision; say precision='fp16'")
    rows, labels = cases.rows, cases.labels
    proven = parity.check(session, rows, network, labels, asked.rows_max, precision=own, text=text)
    sessions = {own: session}
    if asked.precision != own:
        names = tuple(spec.name for spec in asked.input.specs)
        graph = variant.make(asked.precision, graph, names, kinds.outputs(session.has_embedding), rows)
        session = sessions[asked.precision] = GraphSession(graph)
        proven = parity.check(session, rows, network, labels, asked.rows_max, precision=asked.precision, text=text)
    took = variant.speeds(sessions, rows, asked.rows_max)
    variants = []
    for name, each in sessions.items():
        found = each.run(rows, asked.rows_max)
        top = found.logits.argmax(axis=1)
        agreement, accuracy = float((top == network.logits.argmax(axis=1)).mean()), float((top == labels).mean())
        variants.append(Variant(name, took[name]["alone"], took[name]["batch"], agreement, accuracy))
    return graph, session, found, proven, tuple(variants)


def _wishes(asked: Recipe) -> Wishes:
    return Wishes(
        asked.error_among_accepted_max,
        asked.label_set_coverage,
        asked.unknown,
        asked.score,
        asked.label_set_method,
        asked.unknown_method,
    )


def _strange(asked: Recipe, cases: Validation, session: GraphSession) -> dict[str, Outputs]:
    """What the graph answers to inputs of another kind: those the recipe names, and made ones."""
    if not asked.unknown:
        return {}
    given = validation.strange(asked)
    sets = {} if given is None else {NONE_OF_THESE: given.rows}
    made = [
        strange.synthetic(spec, known, max(1, min(STRANGE_CASES, STRANGE_BYTES_MAX // spec.row_bytes)), STRANGE_SEED)
        for spec, known in zip(asked.input.specs, cases.rows, strict=True)
    ]
    sets |= {name: tuple(each[name] for each in made) for name in made[0]}
    found = {}
    for name, rows in sets.items():
        try:
            found[name] = session.run(rows, asked.rows_max)
        except ConversionError:
            if name == NONE_OF_THESE:
                raise
            # A graph may refuse made numbers that mean nothing to it, such as those of no word: then they tell nothing.
    return found


def _manifest(asked: Recipe, has_embedding: bool, chosen: Calibration, proven: ParityReport, golden: Golden) -> Manifest:
    versions = report.tools()
    return Manifest(
        bundle_id=os.urandom(16).hex(),
        model=ModelId(asked.id, asked.version, asked.min_supported_version),
        created=format_time(datetime.now(UTC)),
        change_class=asked.change_class,
        intended_use=asked.intended_use,
        inputs=asked.input.specs,
        outputs=OutputSpec(LOGITS, EMBEDDING if has_embedding else None),
        labels=asked.labels,
        decision=chosen.rule,
        runtime=RuntimeSpec(OPSET, versions["onnxruntime"], asked.precision, asked.providers, asked.rows_max),
        golden=golden,
        provenance=Provenance(checkpoint.digest(asked.network.file), versions, proven.figures()),
        parts=(),
    )
