"""The figures of a build: complete, exact, and for machines."""

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import beta

from appliance.bundle.manifest import Expected, Label
from export import report
from export.binomial import CONFIDENCE
from export.evidence import Counts, Finding
from export.findings import Findings, OfLabel
from export.grades import of_model
from export.shares import interval
from tests.export import found

KEYS = {
    "model": {"id", "version", "min_supported_version", "bundle_id", "created", "change_class", "intended_use", "digest"},
    "validation": {"cases", "groups", "right", "accuracy", "accuracy_interval", "by_label"},
    "calibration": {
        *(
            "temperature",
            "expected_calibration_error",
            "reliability",
            "score",
            "accept_at_least",
            "operating_point",
            "scores",
        ),
        *("risk_curve", "unknown", "unknown_tried", "label_set", "label_sets_tried", "label_set_sizes", "expected"),
    },
    "evidence": {"validation", "training", "within", "across", "groups_on_both_sides"},
}
OTHERS = {"checkpoint_sha256", "inputs", "labels", "parity", "decisions", "border", "findings", "variants", "parts", "tools"}


@pytest.fixture(scope="module")
def findings() -> Findings:
    return found.findings()


def test_figures_are_json_with_the_stated_keys(findings: Findings) -> None:
    figures = json.loads(json.dumps(report.figures(findings), allow_nan=False))
    assert set(figures) == {*KEYS, *OTHERS, "seconds"}
    assert {key: set(figures[key]) for key in KEYS} == KEYS
    assert figures["model"]["digest"] == found.DIGEST
    assert figures["parts"] == {"graph": {"bytes": 4900, "sha256": "d2" * 32}}
    assert figures["parity"] == findings.parity.figures()


def test_counts_agree_with_each_other(findings: Findings) -> None:
    figures = report.figures(findings)
    told, labels = figures["validation"], figures["validation"]["by_label"]
    assert sum(figures["decisions"].values()) == told["cases"] == 1297
    assert [sum(label[key] for label in labels) for key in ("cases", "right")] == [told["cases"], told["right"]]
    assert sum(label["accepted"] for label in labels) == figures["decisions"]["ACCEPT"]
    assert sum(label["accepted_wrong"] for label in labels) == figures["calibration"]["operating_point"]["errors"]
    assert (
        told["accuracy"]
        == told["right"] / told["cases"]
        == sum(n for (i, j), n in findings.confusion.items() if i == j) / told["cases"]
    )
    assert sum(figures["calibration"]["label_set_sizes"]) == told["cases"]


def test_no_patient_and_no_file_stands_in_the_figures(findings: Findings) -> None:
    text = json.dumps(report.figures(findings))
    assert "patient 1" not in text
    assert "patient 32" not in text
    twins = {name for pair in findings.evidence.within.examples for name in (pair.name, pair.twin)}
    assert [name for name in findings.cases.names if name in text and name not in twins] == []


@pytest.mark.parametrize(("successes", "trials"), [(0, 1), (1, 1), (0, 30), (7, 30), (483, 497), (500, 500)])
def test_interval_is_that_of_clopper_and_pearson(successes: int, trials: int) -> None:
    """Whose ends are quantiles of the beta distribution."""
    low = beta.ppf(0.025, successes, trials - successes + 1) if successes else 0.0
    high = beta.ppf(0.975, successes + 1, trials - successes) if successes < trials else 1.0
    assert interval(successes, trials) == pytest.approx((low, high), abs=1e-9)


def test_findings_stand_worst_first(findings: Findings) -> None:
    grades = [finding.grade for finding in findings.findings]
    assert grades == sorted(grades, key=["red", "amber", "ok"].index)
    assert {finding.about for finding in findings.evidence.findings} < {finding.about for finding in findings.findings}


def graded(findings: Findings, about: str, by_label: tuple[OfLabel, ...] | None = None, **expected: int) -> str:
    found = findings.calibration
    if expected:
        found = replace(found, rule=replace(found.rule, expected=Expected(**expected)))
    told = of_model(found, by_label or findings.by_label, findings.manifest.labels)
    return next(finding.grade for finding in told if finding.about == about)


def test_a_label_whose_accepted_answers_are_often_wrong_is_red(findings: Findings) -> None:
    """The bound on errors is over all labels; the label that pays for the others must not be hidden by it."""
    good = tuple(OfLabel(130, 128, interval(128, 130), 100, 0) for _ in range(10))
    assert graded(findings, "Accepted, by label", good) == "ok"
    assert graded(findings, "Accepted, by label", (replace(good[0], accepted_wrong=20), *good[1:])) == "red"
    # One of one says nothing yet.
    assert graded(findings, "Accepted, by label", (replace(good[0], accepted=1, accepted_wrong=1), *good[1:])) == "ok"


def test_of_many_labels_none_is_red_by_chance(findings: Findings) -> None:
    """Of forty labels whose answers are as often wrong as the bound says, one stands out by chance in most draws."""
    bound, random = findings.calibration.point.bound, np.random.default_rng(0)
    labels = tuple(Label(f"label {i}", None) for i in range(40))
    red = 0
    for _ in range(60):
        wrong = random.binomial(100, bound, 40).tolist()
        by_label = tuple(OfLabel(120, 110, interval(110, 120), 100, n) for n in wrong)
        told = of_model(findings.calibration, by_label, labels)
        red += next(each.grade for each in told if each.about == "Accepted, by label") == "red"
    assert red <= 6


def test_one_wrong_answer_of_one_is_no_pattern(findings: Findings) -> None:
    low = replace(
        findings, calibration=replace(findings.calibration, point=replace(findings.calibration.point, bound=0.001))
    )
    good = tuple(OfLabel(130, 128, interval(128, 130), 1000, 0) for _ in range(10))
    assert graded(low, "Accepted, by label", (replace(good[0], accepted=1, accepted_wrong=1), *good[1:])) == "ok"


def test_ways_to_tell_the_unknown_that_could_not_be_tried_are_told(findings: Findings) -> None:
    without = replace(findings.calibration, unknown_unfitted=("relative_mahalanobis", "vim"))
    for made, named in ((findings.calibration, False), (without, True)):
        told = of_model(made, findings.by_label, findings.manifest.labels)[-1].sentence
        assert told.endswith(" Could not be fitted here, so not tried: relative_mahalanobis, vim.") == named


def test_a_label_that_is_never_accepted_is_told(findings: Findings) -> None:
    good = tuple(OfLabel(130, 128, interval(128, 130), 100, 0) for _ in range(10))
    told = of_model(findings.calibration, (replace(good[0], accepted=0), *good[1:]), findings.manifest.labels)[3]
    assert told.grade == "amber"
    assert "none of the 9 labels with accepted cases" in told.sentence
    assert told.sentence.endswith("No case of label digit 0 is accepted.")
    unseen = of_model(findings.calibration, (OfLabel(0, 0, None, 0, 0), *good[1:]), findings.manifest.labels)[3]
    assert unseen.grade == "ok"


def test_a_label_with_few_cases_does_not_hide_the_weak_one(findings: Findings) -> None:
    good = tuple(OfLabel(130, 125, interval(125, 130), 100, 0) for _ in range(10))
    hidden = (OfLabel(1, 0, interval(0, 1), 0, 0), OfLabel(130, 59, interval(59, 130), 10, 0), *good[2:])
    assert graded(findings, "Weakest label", hidden) == "amber"


def test_of_many_labels_the_weakest_is_not_amber_by_chance(findings: Findings) -> None:
    """Seven of ten is far behind, but among a thousand labels somebody has to be."""
    good = [OfLabel(10, 10, interval(10, 10), 10, 0)] * 999
    labels = tuple(Label(f"label {i}", None) for i in range(1000))
    some = (OfLabel(10, 6, interval(6, 10), 6, 0), *good)
    accurate = replace(findings.calibration, accuracy=0.9)
    assert interval(6, 10)[1] < accurate.accuracy
    assert of_model(accurate, some, labels)[2].grade == "ok"


def test_label_sets_of_few_cases_are_not_below_their_promise_by_chance(findings: Findings) -> None:
    """Two of three is less than 90 %, and says nothing; 70 of 100 is less for certain."""
    assert findings.calibration.rule.label_set is not None

    def told(cases: int, share: float) -> Finding:
        results = tuple(
            replace(each, coverage_by_class=(share, *(0.95,) * 8, None)) for each in findings.calibration.label_sets
        )
        by_label = (OfLabel(cases, cases, interval(cases, cases), cases, 0), *findings.by_label[1:])
        made = replace(findings.calibration, label_sets=results)
        return of_model(made, by_label, findings.manifest.labels)[4]

    assert told(3, 2 / 3).grade == "ok"
    assert "for none of the 9 labels with cases clearly less often" in told(3, 2 / 3).sentence
    assert told(100, 0.7).grade == "amber"
    assert "clearly less often for label digit 0, of 9 labels with cases" in told(100, 0.7).sentence


def test_a_label_far_behind_the_others_is_amber(findings: Findings) -> None:
    good = tuple(OfLabel(130, 110, interval(110, 130), 100, 0) for _ in range(10))
    assert graded(findings, "Weakest label", good) == "ok"
    assert graded(findings, "Weakest label", (OfLabel(130, 59, interval(59, 130), 10, 0), *good[1:])) == "amber"
    # A label with few cases may look bad by chance.
    assert graded(findings, "Weakest label", (OfLabel(3, 2, interval(2, 3), 2, 0), *good[1:])) == "ok"


def test_a_model_that_seldom_answers_is_amber(findings: Findings) -> None:
    assert graded(findings, "Answers given", cases=300, abstained=100, unknown=100) == "amber"
    assert graded(findings, "Answers given", cases=500, abstained=100, unknown=100) == "ok"


def test_probabilities_no_worse_than_chance_are_ok(findings: Findings) -> None:
    off = replace(findings.calibration, ece_after=0.2, ece_by_chance=0.05)
    assert graded(findings, "Honest probabilities") == "ok"
    assert graded(replace(findings, calibration=off), "Honest probabilities") == "amber"


def test_strangers_that_pass_are_amber_and_nothing_is_promised(findings: Findings) -> None:
    passing = tuple(replace(each, fpr95=0.9) for each in findings.calibration.unknown)
    assert graded(findings, "Inputs of another kind") == "ok"
    assert (
        graded(replace(findings, calibration=replace(findings.calibration, unknown=passing)), "Inputs of another kind")
        == "amber"
    )
    told = next(each.sentence for each in findings.findings if each.about == "Inputs of another kind")
    assert "Nothing is promised" in told


def test_texts_without_a_check_for_the_unknown_have_figures_too() -> None:
    figures = json.loads(json.dumps(report.figures(found.words()), allow_nan=False))
    assert figures["border"] is None
    assert figures["calibration"]["unknown"] is None
    assert figures["evidence"]["training"] is None
    assert len(figures["calibration"]["risk_curve"]) <= report.CURVE_POINTS_MAX


def test_confidence_is_the_same_everywhere() -> None:
    """Sentences say 95%."""
    assert CONFIDENCE == 0.95


def test_groups_are_only_counted(findings: Findings) -> None:
    assert findings.evidence.validation == Counts(1297, findings.evidence.validation.by_label, 325)
