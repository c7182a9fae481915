"""The model card: what a bundle says about its model to who runs it."""

from dataclasses import replace

import pytest

from appliance.bundle.manifest import CARD_BYTES_MAX, InputSpec, TextSpec
from export.card import card, takes
from export.findings import Findings
from export.shares import at_least
from tests.export import found
from tests.export.test_page import HOSTILE


@pytest.fixture(scope="module")
def findings() -> Findings:
    """As they are when the card is written: nothing is sealed."""
    return found.findings(sealed=False)


def test_card_tells_the_use_the_figures_and_the_limits(findings: Findings) -> None:
    text, low, high = card(findings), *findings.accuracy_interval
    assert text.startswith("# digits, version 3\n\nReads one handwritten digit.")
    heads = [line for line in text.splitlines() if line.startswith("## ")]
    assert heads == [f"## {name}" for name in (
        "Inputs", "Data", "Performance", "Labels", "When it answers", "Findings", "Limits", "Origin",
    )]  # fmt: skip
    assert f"{at_least(findings.calibration.accuracy)} (95% interval {low:.1%} to {high:.1%})" in text
    assert "stretched to 8 × 8 pixels" in text
    assert "http://snomed.info/sct 0" in text
    assert "is not promised" in text
    assert "| Validation | 1,297 | 325 |" in text
    assert all(finding.sentence.split(" ")[0] in text for finding in findings.findings)


def test_nothing_of_a_case_stands_in_the_card(findings: Findings) -> None:
    text = card(findings)
    assert [name for name in findings.cases.names if name in text] == []
    assert ".png" not in text
    assert "patient " not in text.replace("new patient ", "").replace("a patient", "").replace("each patient", "").replace(
        "one patient", ""
    )


def test_hostile_names_stay_in_their_place() -> None:
    made = found.findings(HOSTILE, sealed=False)
    made = replace(made, manifest=replace(made.manifest, intended_use="# Heading\n\n[x](http://example.org) <b>|"))
    text = card(made)
    lines = text.splitlines()
    assert r"\# Heading \[x\](http://example.org) \<b\>\|" in lines
    table = [line for line in lines if line.startswith("| ") and ("alert" in line or "xxxx" in line)]
    assert len(table) == 4
    assert {line.replace(r"\|", "").count("|") for line in table} == {8}
    assert "<script" not in text.replace(r"\<", "")


def test_card_stays_small_with_a_thousand_labels() -> None:
    text = card(found.words(1000))
    assert len(text.encode()) < 64 << 10 < CARD_BYTES_MAX
    assert "The 100 labels answered least well, of 1,000. The manifest has all." in text


def test_every_kind_of_input_is_described() -> None:
    words = TextSpec("folded", 1000, ("yes", "no"))
    assert takes(InputSpec("text", "INT64", (65,), text=words)) == "a text of 1 to 64 words and marks; 2 words are known"
    assert takes(InputSpec("age", "FP32", (4, 2))) == "a tensor, FP32 [4 × 2]"
    assert takes(InputSpec("age", "FP32", ())) == "a number, FP32"
