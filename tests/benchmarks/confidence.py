"""What confidence is worth on real pictures: chest X-rays, and food and digits that are no X-rays.

    python -m tests.benchmarks.confidence

Trains the network of ``tests.journeys.pneumonia`` (a minute on one core) and prints, twice:

(a) calibrated on the validation part and tried on the test part, as it was published. The two differ: the test part has
    more healthy lungs and is known to be harder. That is what a site meets whose patients are not the vendor's.
(b) the test part halved at random, a hundred times: calibrated on one half, tried on the other, and the other way round.
    That is what a site gets that calibrates on its own images, and what conformal prediction promises something about.

The calibration error is the plain one of 15 bins, first. On few images it is never 0, even where every probability is right,
so what it would then be on average stands beside it ("by chance"). The food and the digits are never seen while a way to
tell them is chosen: synthetic inputs alone are.
"""

import argparse
import io
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_digits

from appliance.bundle.manifest import E6, ImageSpec, InputSpec
from appliance.model import inputs
from appliance.model.confidence import probabilities
from appliance.model.decision import Decision, Judge, label_sets
from export import conformal, detectors, scores, strange, temperature, unknown
from export.binomial import interval_of_test_set
from export.calibrate import Calibration, Wishes, calibrate
from export.detectors import Rows
from export.session import Outputs
from tests.journeys import pneumonia
from tests.journeys.pneumonia import Lungs

Pixels = NDArray[np.uint8]
Labels = NDArray[np.int64]

SPEC = InputSpec("image", "UINT8", (28, 28, 1), ImageSpec("stretch", "full", 40_000_000, 20 << 20))
GROCERY = pneumonia.ARRAYS.parents[2] / "grocery"
ERROR_MAX, COVERAGES = 0.05, (0.9, 0.97)
SYNTHETIC, REPEATS, SEED = 200, 100, 0


@dataclass(frozen=True, slots=True)
class Line:
    """One figure; ``beside`` is what to read it against."""

    what: str
    value: float
    beside: str = ""

    def __str__(self) -> str:
        return f"  {self.what:62} {self.value:9.4f}  {self.beside}"


def main() -> None:
    if not pneumonia.ARRAYS.is_file() or not GROCERY.is_dir():
        sys.exit("The real data beside the project (shared/data) is absent; there is nothing to measure.")
    parser = argparse.ArgumentParser(description="Measure confidence on chest X-rays.")
    parser.add_argument("--seed", type=int, default=pneumonia.SEED, help="of the training")
    torch.set_num_threads(1)
    for title, lines in figures(parser.parse_args().seed).items():
        print(f"\n{title}")
        for line in lines:
            print(line)


def figures(seed: int = pneumonia.SEED) -> dict[str, list[Line]]:
    """Everything, by section."""
    started = time.process_time()
    module = pneumonia.train(pneumonia.part("train"), seed)
    spent = time.process_time() - started
    val, test = pneumonia.part("val"), pneumonia.part("test")
    seen, tested = answered(module, val.images), answered(module, test.images)
    synthetic = {name: answered(module, rows) for name, rows in strange.synthetic(SPEC, val.images, SYNTHETIC, SEED).items()}
    made = calibrate(seen, val.labels, Wishes(ERROR_MAX, COVERAGES[0], unknown=True), synthetic)
    found = (("validation", seen, val.labels), ("test", tested, test.labels))
    network = [
        Line("seconds of one core to train", spent),
        *(
            Line(f"accuracy, {name}", float((o.logits.argmax(axis=1) == y).mean()), f"{len(y)} images")
            for name, o, y in found
        ),
    ]
    return {
        "The network": network,
        "Chosen on the validation part": _chosen(made),
        "(a) Calibrated on validation, tried on the shifted test part": shifted(made, seen, val.labels, tested, test.labels),
        f"(b) The test part halved {REPEATS} times, each half tried with the other's calibration": halved(
            tested, test.labels
        ),
        f"Strangers, by {made.rule.unknown.method if made.rule.unknown else None}": told_apart(
            made, tested, {name: answered(module, rows) for name, rows in strangers().items()}
        ),
    }


def answered(module: Lungs, images: Pixels) -> Outputs:
    return Outputs(*pneumonia.outputs(module, images))


def strangers() -> dict[str, Pixels]:
    """Photographs of food and handwritten digits, uint8 ``[N, 28, 28, 1]``, decoded as the product decodes them."""
    photographs = [path.read_bytes() for path in sorted(GROCERY.glob("*/*/*")) if path.suffix.lower() in (".jpg", ".png")]
    return {"food": inputs.decode(SPEC, photographs), "digits": inputs.decode(SPEC, [*map(_png, load_digits().images)])}


def shifted(made: Calibration, seen: Outputs, known: Labels, tested: Outputs, labels: Labels) -> list[Line]:
    t = made.rule.temperature_e6 / E6
    right = tested.logits.argmax(axis=1) == labels
    before, calibrated = probabilities(tested.logits, 1.0), probabilities(tested.logits, t)
    certain = scores.certainties(tested.logits, calibrated, t)[made.rule.accept.score]
    counts = scores.Ranked(certain, ~right).counts()
    judged = Judge(made.rule, made.detector).judge(tested.logits, tested.embedding)
    accepted = np.array([decision is Decision.ACCEPT for decision in judged.decisions])
    lines = [
        Line("ECE before", temperature.reliability(before.max(axis=1), right).error),
        Line(
            "ECE after",
            temperature.reliability(calibrated.max(axis=1), right).error,
            f"by chance {temperature.by_chance(calibrated.max(axis=1)):.4f}",
        ),
        Line("AURC", scores.aurc(*counts), made.rule.accept.score),
        Line("AUGRC", scores.augrc(*counts)),
        *(Line(f"accuracy at {c:.0%} coverage", scores.accuracy_at(*counts, c)) for c in scores.COVERAGES),
        Line("accepted", float(accepted.mean()), f"promised error {ERROR_MAX}"),
        Line("error among accepted", float((~right)[accepted].mean()), f"bound on validation {made.point.bound:.4f}"),
        Line("abstained", judged.decisions.count(Decision.ABSTAIN) / len(labels)),
        Line("taken for unknown", judged.decisions.count(Decision.OUT_OF_DISTRIBUTION) / len(labels), "0.05 expected"),
    ]
    for coverage in COVERAGES:
        source = probabilities(seen.logits, t)
        for method, groups in (("lac", [len(known)]), ("lac_by_class", np.bincount(known).tolist())):
            tries = [len(labels)] if method == "lac" else np.bincount(labels).tolist()
            low, high = interval_of_test_set(coverage, groups, tries)
            alone, served, size = covered(conformal.fit(method, source, known, coverage), calibrated, labels)
            lines += [
                Line(f"{coverage:.0%} sets, {method}: coverage by threshold", alone, f"{low:.4f} to {high:.4f} in 9 of 10"),
                Line(f"{coverage:.0%} sets, {method}: coverage as served", served, f"{size:.3f} labels on average"),
            ]
    return lines


def halved(tested: Outputs, labels: Labels) -> list[Line]:
    """Means over repeats; of each repeat the figures of both halves, and ECE once more of both together."""
    random, found = np.random.default_rng(SEED), []
    right = tested.logits.argmax(axis=1) == labels
    half, whole = len(labels) // 2, len(labels)
    intervals = {coverage: interval_of_test_set(coverage, [half], [half]) for coverage in COVERAGES}
    for _ in range(REPEATS):
        order, both = random.permutation(whole), np.empty(whole)
        for fitted, tried in ((order[:half], order[half:]), (order[half:], order[:half])):
            t = temperature.fit(tested.logits[fitted], labels[fitted])
            source, calibrated = (probabilities(tested.logits[rows], t) for rows in (fitted, tried))
            both[tried] = calibrated.max(axis=1)
            row = {
                "ECE before, of a half": _error(probabilities(tested.logits[tried], 1.0).max(axis=1), right[tried]),
                "ECE after, of a half": _error(calibrated.max(axis=1), right[tried]),
                "ECE by chance, of a half": temperature.by_chance(calibrated.max(axis=1)),
            }
            counts = scores.Ranked(calibrated.max(axis=1), ~right[tried]).counts()
            row |= {"AURC": scores.aurc(*counts), "AUGRC": scores.augrc(*counts)}
            for coverage, (low, high) in intervals.items():
                alone, served, size = covered(
                    conformal.fit("lac", source, labels[fitted], coverage), calibrated, labels[tried]
                )
                row |= {
                    f"{coverage:.0%} sets: coverage by threshold": alone,
                    f"{coverage:.0%} sets: share of halves inside {low:.4f} to {high:.4f}": float(low <= alone <= high),
                    f"{coverage:.0%} sets: coverage as served": served,
                    f"{coverage:.0%} sets: labels on average": size,
                }
            found.append(row)
        found[-1] |= {
            "ECE after, of both halves together": _error(both, right),
            "ECE by chance, of both halves together": temperature.by_chance(both),
        }
    names = list(found[-1])
    return [Line(name, float(np.mean([row[name] for row in found if name in row]))) for name in names]


def told_apart(made: Calibration, tested: Outputs, sets: Mapping[str, Outputs]) -> list[Line]:
    """Against validation images that the detector was not fitted on, and against the test part, which is shifted."""
    assert made.detector is not None
    assert made.rule.unknown is not None
    reject = made.rule.unknown.reject_above_e6 / E6
    here = detectors.distance(made.detector, _rows(tested))
    lines = []
    for name, outputs in sets.items():
        far = detectors.distance(made.detector, _rows(outputs))
        lines += [
            Line(f"{name}: AUROC against validation", unknown.auroc(made.known_distances, far), f"{len(far)} pictures"),
            Line(f"{name}: AUROC against the test part", unknown.auroc(here, far)),
            Line(f"{name}: FPR95, those that pass", float((far <= reject).mean())),
        ]
    return lines


def covered(rule: conformal.LabelSetRule, calibrated: NDArray[np.float64], labels: Labels) -> tuple[float, float, float]:
    """How often the true label is within its threshold, which is what the intervals are of; how often it is in the set that
    is served, which always has the top label; and the mean size of that.
    """
    rows, thresholds = np.arange(len(labels)), np.array(rule.thresholds_e6) / E6
    alone = calibrated[rows, labels] >= (thresholds[labels] if len(thresholds) > 1 else thresholds)
    sets = label_sets(rule, calibrated)
    return float(alone.mean()), float(sets[rows, labels].mean()), float(sets.sum(axis=1).mean())


def _chosen(made: Calibration) -> list[Line]:
    lines = [
        Line("temperature", made.rule.temperature_e6 / E6),
        Line("ECE before", made.ece_before),
        Line("ECE after", made.ece_after, f"by chance {made.ece_by_chance:.4f}"),
    ]
    for score in made.scores:
        beside = f"{score.behind:.4f} behind, standard error {score.standard_error:.4f}"
        lines.append(Line(f"AURC, {score.score}", score.aurc, beside + (", chosen" if score.chosen else "")))
    for sets in made.label_sets:
        beside = f"true coverage {sets.interval[0]:.4f} to {sets.interval[1]:.4f}, {sets.labels_mean:.3f} labels"
        name = f"90% sets, {sets.method}: coverage on held-out folds"
        lines.append(Line(name, sets.coverage, beside + (", chosen" if sets.chosen else "")))
    for one in made.unknown:
        beside = f"{one.n} inputs, FPR95 {one.fpr95:.3f}" + (", chosen" if one.chosen else "")
        lines.append(Line(f"AUROC, {one.method}, {one.name.split(' (')[0]}", one.auroc, beside))
    return lines


def _error(confidence: NDArray[np.float64], right: NDArray[np.bool_]) -> float:
    return temperature.reliability(confidence, right).error


def _rows(outputs: Outputs) -> Rows:
    assert outputs.embedding is not None
    return Rows(outputs.embedding, outputs.logits, np.zeros(len(outputs.logits), np.int64))


def _png(image: NDArray[np.float64]) -> bytes:
    """A digit of 8 × 8, 0 to 16, as a file."""
    buffer = io.BytesIO()
    Image.fromarray(np.round(image * 255 / 16).astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


if __name__ == "__main__":
    main()
