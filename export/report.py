"""The report of a build: what was proven and chosen, with the figures, for the vendor's technical file.

::

    {"model": {"id": "digits", "version": 1, "digest": "<hex>"}, "validation": {…}, "parity": {…}, "calibration": {…},
     "decisions": {"ACCEPT": 470, …}, "parts": {…}, "tools": {…}, "seconds": {…}}

It holds figures alone: no image, no path, no key.
"""

import importlib.metadata
import platform
from collections import Counter
from dataclasses import asdict
from typing import Any

from appliance.bundle.manifest import Manifest
from appliance.model.decision import E6, Judge, Judgement
from export.calibrate import Calibration
from export.parity import ParityReport
from export.session import Outputs
from export.validation import Validation

TOOLS = ("torch", "onnx", "onnxscript", "onnxruntime", "numpy", "pillow", "safetensors", "cryptography")


def tools() -> dict[str, str]:
    """The versions of what made the bundle."""
    return {name: importlib.metadata.version(name) for name in TOOLS} | {"python": platform.python_version()}


def report(
    sealed: Manifest,
    digest: str,
    validation: Validation,
    found: Outputs,
    parity: ParityReport,
    calibration: Calibration,
    seconds: dict[str, float],
) -> dict[str, Any]:
    """A value for ``json.dumps``. ``found`` are the graph's outputs for the validation images."""
    rule, point = calibration.rule, calibration.point
    judged = Judge(rule, calibration.detector).judge(found.logits, found.embedding)
    counts = Counter(validation.labels.tolist())
    return {
        "model": asdict(sealed.model) | {"digest": digest, "bundle_id": sealed.bundle_id, "created": sealed.created},
        "checkpoint_sha256": sealed.provenance.checkpoint_sha256,
        "validation": {
            "images": len(validation),
            "images_by_label": {label.name: counts[i] for i, label in enumerate(sealed.labels)},
            "accuracy": calibration.accuracy,
        },
        "parity": parity.figures(),
        "calibration": {
            "temperature": rule.temperature_e6 / E6,
            "expected_calibration_error": {"before": calibration.ece_before, "after": calibration.ece_after},
            "accept_at_least": rule.accept.at_least_e6 / E6,
            "operating_point": asdict(point),
            "unknown": None if rule.unknown is None else asdict(rule.unknown),
            "label_set": None if rule.label_set is None else asdict(rule.label_set) | _coverage(judged, validation),
            "error_at_coverage": {
                f"{coverage:.0%}": 1 - accuracy
                for score in calibration.scores
                if score.chosen
                for coverage, accuracy in score.accuracy_at.items()
            },
        },
        "decisions": {str(decision): count for decision, count in sorted(Counter(judged.decisions).items())},
        "parts": {part.name: {"bytes": part.plain_size, "sha256": part.plain_sha256} for part in sealed.parts},
        "tools": sealed.provenance.tools,
        "seconds": {step: round(value, 3) for step, value in seconds.items()},
    }


def _coverage(judged: Judgement, validation: Validation) -> dict[str, float]:
    """How often the true label was among those kept, and how many were, on the images that the rule was chosen on."""
    assert judged.label_sets is not None  # noqa: S101  the caller has looked
    kept = judged.label_sets[range(len(validation.labels)), validation.labels]
    return {"coverage_here": float(kept.mean()), "labels_mean": float(judged.label_sets.sum(axis=1).mean())}
