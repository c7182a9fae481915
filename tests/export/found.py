"""What a build finds, made in memory in a second: digits, a network of scikit-learn, and everything after it real."""

import warnings
from functools import cache

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier

from appliance.bundle.manifest import (
    Code,
    Golden,
    ImageSpec,
    InputSpec,
    Label,
    Manifest,
    ModelId,
    OutputSpec,
    Part,
    Provenance,
    RuntimeSpec,
)
from appliance.model.inputs import Images
from export import calibrate, evidence, probes
from export.calibrate import Wishes
from export.findings import Findings, Variant
from export.parity import ParityReport
from export.session import Outputs
from tests.export.cases import Kept, digits

NAMES = tuple(f"digit {i}" for i in range(10))
DIGEST = "a0" * 32
TRAINING = 500


class Network:
    """Trained on the first 500 digits: good enough to be believed, bad enough to be wrong now and then."""

    def __init__(self) -> None:
        seen = digits().where(slice(0, TRAINING))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # it is to be stopped early
            self._fitted = MLPClassifier((32,), max_iter=60, random_state=0).fit(self._pixels(seen.rows[0]), seen.labels)

    def outputs(self, images: Images) -> Outputs:
        hidden = np.maximum(0, self._pixels(images) @ self._fitted.coefs_[0] + self._fitted.intercepts_[0])
        logits = hidden @ self._fitted.coefs_[1] + self._fitted.intercepts_[1]
        return Outputs(logits.astype(np.float32), hidden.astype(np.float32))

    @staticmethod
    def _pixels(images: Images) -> NDArray[np.float64]:
        return images.reshape(len(images), -1) / 255.0


@cache
def network() -> Network:
    return Network()


def findings(names: tuple[str, ...] = NAMES, *, groups: bool = True, unknown: bool = True, sealed: bool = True) -> Findings:
    """Of 1,297 digits. A patient has four, so that one is on both sides."""
    whole = digits()
    belong = tuple(f"patient {i // 4}" for i in range(2, len(whole.names) + 2)) if groups else None
    whole = Kept(whole.names, whole.rows, whole.labels, belong)
    training, cases = whole.where(slice(0, TRAINING)), whole.where(slice(TRAINING, None))
    images = cases.rows[0]
    found = network().outputs(images)
    random = np.random.default_rng(0)
    strange = {
        "noise": network().outputs(random.integers(0, 256, (300, 8, 8, 1), dtype=np.uint8)),
        "upside down": network().outputs(255 - images[:300]),
    }
    chosen = calibrate.calibrate(found, cases.labels, Wishes(0.03, 0.9, unknown), strange if unknown else {})
    temperature = chosen.rule.temperature_e6 / 1e6
    proven = ParityReport(1297, 21_000, 1_100, 3_400, 800, 0, 0, 1_000_000, 0, 0)
    tools = {"onnxruntime": "1.31.1", "numpy": "2.4.6", "python": "3.11.9"}
    manifest = Manifest(
        bundle_id="0b" * 16,
        model=ModelId("digits", 3, 2),
        created="2026-01-02T03:04:05Z",
        change_class="minor",
        intended_use="Reads one handwritten digit. A demonstration; not for any other use.",
        inputs=(InputSpec("image", "UINT8", (8, 8, 1), ImageSpec("stretch", "full", 40_000_000, 20 << 20)),),
        outputs=OutputSpec("logits", "embedding"),
        labels=tuple(Label(name, Code("http://snomed.info/sct", str(i)) if i < 2 else None) for i, name in enumerate(names)),
        decision=chosen.rule,
        runtime=RuntimeSpec(20, "1.31.1", "int8", ("CPUExecutionProvider",), 32),
        golden=Golden(12, 1000),
        provenance=Provenance("c4" * 32, tools, proven.figures()),
        parts=(Part("graph", "graph", 5000, "d1" * 32, 4900, "d2" * 32),) if sealed else (),
    )
    return Findings(
        manifest=manifest,
        digest=DIGEST if sealed else None,
        cases=cases,
        outputs=found,
        parity=proven,
        calibration=chosen,
        evidence=evidence.examine(cases, training, names, images=True),
        probes=probes.probe(lambda some: network().outputs(some).logits, images, cases.labels, found.logits, temperature),
        variants=(Variant("fp32", 0.42, 0.031, 1.0, 0.951), Variant("int8", 0.21, 0.017, 0.993, 0.949)),
        seconds={"read": 0.5, "convert": 2.25},
    )


def words(count: int = 30, *, unseen: int = 0) -> Findings:
    """The same of texts and ``count`` labels, without a check for the unknown: what is not there must not be missed.

    The last ``unseen`` labels have no case.
    """
    made = findings(unknown=False)
    random = np.random.default_rng(1)
    labels = np.arange(1500) % (count - unseen)
    logits = (random.normal(0, 1, (1500, count)) + 6 * np.eye(count)[labels]).astype(np.float32)
    names = tuple(f"answer {i}" for i in range(count))
    cases = Kept(tuple(f"line {i}" for i in range(1500)), (random.integers(0, 99, (1500, 9)),), labels)
    chosen = calibrate.calibrate(Outputs(logits, None), labels, Wishes(0.05, 0.9, unknown=False))
    fields = {name: getattr(made.manifest, name) for name in Manifest.__dataclass_fields__}
    fields |= {"labels": tuple(Label(name, None) for name in names), "decision": chosen.rule}
    fields |= {"inputs": (InputSpec("text", "INT64", (9,)),)}
    return Findings(
        manifest=Manifest(**fields),
        digest=made.digest,
        cases=cases,
        outputs=Outputs(logits, None),
        parity=made.parity,
        calibration=chosen,
        evidence=evidence.examine(cases, None, names, images=False),
        probes=probes.probe(_nothing_to_run, None, labels, logits, 1.0),
        variants=(),
        seconds={},
    )


def _nothing_to_run(images: Images) -> NDArray[np.float32]:
    raise AssertionError("texts are not occluded")
