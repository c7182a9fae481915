"""The report of a build: what was proven and chosen, with the figures, for the vendor's technical file.

::

    {"model": {"id": "digits", "version": 1, "digest": "<hex>", …}, "labels": […], "inputs": […],
     "validation": {"cases": 497, "accuracy": 0.97, "accuracy_interval": [0.95, 0.98], "by_label": […], …},
     "parity": {…}, "calibration": {"temperature": 1.2, "operating_point": {…}, "scores": […], "label_sets": […], …},
     "decisions": {"ACCEPT": 470, …}, "evidence": {…}, "border": {…}, "findings": […], "variants": […],
     "checkpoint_sha256": "<hex>", "parts": {…}, "tools": {…}, "seconds": {…}}

``export.page`` tells the same to people, and ``export.card`` travels in the bundle. The figures hold no image, no path and
no key; of the cases at most the names of those that are there twice.
"""

import importlib.metadata
import platform
from dataclasses import asdict
from typing import Any

import numpy as np

from appliance.bundle.manifest import E6
from export.findings import Findings
from export.temperature import Reliability

TOOLS = ("torch", "onnx", "onnxscript", "onnxruntime", "numpy", "pillow", "safetensors", "cryptography")
CURVE_POINTS_MAX = 200


def tools() -> dict[str, str]:
    """The versions of what made the bundle."""
    return {name: importlib.metadata.version(name) for name in TOOLS} | {"python": platform.python_version()}


def figures(findings: Findings) -> dict[str, Any]:
    """A value for ``json.dumps``: strings, whole numbers, finite floats, None."""
    made, evidence = findings.manifest, findings.evidence
    return {
        "model": asdict(made.model)
        | {name: getattr(made, name) for name in ("bundle_id", "created", "change_class", "intended_use")}
        | {"digest": findings.digest},
        "checkpoint_sha256": made.provenance.checkpoint_sha256,
        "inputs": [{"name": spec.name, "datatype": spec.datatype, "shape": list(spec.shape)} for spec in made.inputs],
        "labels": [asdict(label) for label in made.labels],
        "validation": {
            "cases": len(findings.right),
            "groups": evidence.validation.groups,
            "right": int(findings.right.sum()),
            "accuracy": findings.calibration.accuracy,
            "accuracy_interval": list(findings.accuracy_interval),
            "by_label": [
                {"label": label.name, **asdict(of)} for label, of in zip(made.labels, findings.by_label, strict=True)
            ],
        },
        "parity": findings.parity.figures(),
        "calibration": _calibration(findings),
        "decisions": {name: count for name, count in findings.decisions.items() if count},
        "evidence": {key: value for key, value in asdict(evidence).items() if key != "findings"},
        "border": None
        if findings.probes.border is None
        else asdict(findings.probes.border) | {"share": findings.probes.border.share},
        "findings": [asdict(finding) for finding in findings.findings],
        "variants": [asdict(variant) for variant in findings.variants],
        "parts": {part.name: {"bytes": part.plain_size, "sha256": part.plain_sha256} for part in made.parts},
        "tools": made.provenance.tools,
        "seconds": {step: round(value, 3) for step, value in findings.seconds.items()},
    }


def _calibration(findings: Findings) -> dict[str, Any]:
    found = findings.calibration
    rule = found.rule
    return {
        "temperature": rule.temperature_e6 / E6,
        "expected_calibration_error": {
            "before": found.ece_before,
            "after": found.ece_after,
            "by_chance": found.ece_by_chance,
        },
        "reliability": {"before": _bins(found.reliability_before), "after": _bins(found.reliability_after)},
        "score": rule.accept.score,
        "accept_at_least": rule.accept.at_least_e6 / E6,
        "operating_point": asdict(found.point),
        "scores": [
            asdict(score) | {"accuracy_at": {f"{coverage:.0%}": share for coverage, share in score.accuracy_at.items()}}
            for score in found.scores
        ],
        "risk_curve": [list(point) for point in curve(findings)],
        "unknown": None if rule.unknown is None else asdict(rule.unknown),
        "unknown_tried": [asdict(result) for result in found.unknown],
        "label_set": None if rule.label_set is None else asdict(rule.label_set),
        "label_sets_tried": [asdict(result) for result in found.label_sets],
        "label_set_sizes": findings.set_sizes,
        "expected": asdict(rule.expected),
    }


def _bins(found: Reliability) -> list[dict[str, float]]:
    return [
        {"cases": int(count), "confidence": float(confidence), "accuracy": float(accuracy)}
        for count, confidence, accuracy in zip(found.count, found.confidence, found.accuracy, strict=True)
        if count
    ]


def curve(findings: Findings) -> list[tuple[float, float]]:
    """Coverage and the error among the accepted: at most 200 points of the risk curve, both ends among them."""
    found = findings.calibration.risk_curve
    chosen = np.unique(np.linspace(0, len(found.coverage) - 1, CURVE_POINTS_MAX).round().astype(int))
    return list(zip(found.coverage[chosen].tolist(), found.risk[chosen].tolist(), strict=True))
