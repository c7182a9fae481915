"""The life of a model at the vendor's desk: recipe ─▶ convert ─▶ parity ─▶ calibrate ─▶ golden cases ─▶ seal.

Each step refuses with a reason, and then there is no bundle. Everything after ``convert`` works on the graph that will
be served, not on torch.
"""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from appliance.bundle import chunks, opening
from appliance.bundle.manifest import Golden, Manifest, ModelId, OutputSpec, Provenance, RuntimeSpec
from appliance.bundle.signature import SigningKey
from appliance.canonical import format_time
from appliance.model import unknown
from appliance.model.decision import E6
from export import calibrate, checkpoint, parity, recipe, report, select, validation
from export.calibrate import Calibration
from export.convert import EMBEDDING, LOGITS, convert
from export.graph import OPSET
from export.options import desk_policy
from export.parity import ParityReport
from export.recipe import Recipe
from export.seal import seal
from export.session import GraphSession, Outputs
from export.validation import Validation

STEPS = ("read", "convert", "parity", "calibrate", "seal")


@dataclass(frozen=True, slots=True)
class Built:
    """A bundle file's bytes; the 32-byte key of its contents; the model digest; a value for the report file."""

    bundle: bytes
    content_key: bytes
    digest: str
    report: dict[str, Any]


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
        images = validation.load(asked)
        calibrate.require_enough(len(images.paths))  # before the long steps
        served = checkpoint.load(asked)
        wanted = _torch_outputs(served, images, asked.rows_max)
    with step("convert"):
        graph, weights = convert(recipe_path, data)
        session = GraphSession(graph, weights)
    with step("parity"):
        proven = parity.check(session, images.images, wanted, asked.rows_max)
    with step("calibrate"):
        found = session.run(images.images, asked.rows_max)
        chosen = calibrate.calibrate(
            found.logits,
            found.embedding,
            images.labels,
            asked.error_among_accepted_max,
            unknown=asked.unknown,
            coverage=asked.label_set_coverage,
        )
        cases = select.golden(asked, images, session)
    with step("seal"):
        plain = {"graph": graph, "weights": weights, "selftest": cases.encode(), "card": b"# Model card\n"}
        if chosen.reference is not None:
            plain["reference"] = unknown.encode(chosen.reference)
        content_key = os.urandom(chunks.KEY_BYTES)
        made = _manifest(asked, session.has_embedding, chosen, proven, len(cases.cases))
        bundle = seal(made, plain, content_key, signers)
        # Read back what was written, as a site would: the digest and the parts are those of the file itself.
        genuine = opening.parse(bundle).verify([desk_policy(key.public_key() for key in signers)])
        genuine.check_parts()
    told = report.report(genuine.manifest, genuine.digest, images, found, proven, chosen, seconds)
    return Built(bundle, content_key, genuine.digest, told)


def _torch_outputs(served: checkpoint.Served, images: Validation, rows: int) -> Outputs:
    batches = [checkpoint.outputs(served, batch) for batch in torch.split(torch.from_numpy(images.images), rows)]
    logits, *embedding = (torch.cat(tensors).numpy() for tensors in zip(*batches, strict=True))
    return Outputs(logits, embedding[0] if embedding else None)


def _manifest(asked: Recipe, has_embedding: bool, chosen: Calibration, proven: ParityReport, cases: int) -> Manifest:
    versions = report.tools()
    return Manifest(
        bundle_id=os.urandom(16).hex(),
        model=ModelId(asked.id, asked.version, asked.min_supported_version),
        created=format_time(datetime.now(UTC)),
        change_class=asked.change_class,
        intended_use=asked.intended_use,
        inputs=(asked.input,),
        outputs=OutputSpec(LOGITS, EMBEDDING if has_embedding else None),
        labels=asked.labels,
        decision=chosen.rule,
        runtime=RuntimeSpec(OPSET, versions["onnxruntime"], "fp32", asked.providers, asked.rows_max),
        golden=Golden(cases, round(asked.logit_tolerance * E6)),
        provenance=Provenance(checkpoint.digest(asked), versions, proven.figures()),
        parts=(),
    )
