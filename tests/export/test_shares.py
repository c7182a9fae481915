"""Shares never read as better than they are, nor as more than was promised."""

from dataclasses import replace

import pytest

from export import charts, grades, words
from export.card import card
from export.page import page
from export.shares import at_least, at_most, promised
from tests.export import found


@pytest.mark.parametrize(
    ("share", "told"), [(0.995, "99.5%"), (0.975, "97.5%"), (0.9, "90%"), (0.999999, "99.9999%"), (0.57, "57%")]
)
def test_what_is_promised_is_not_rounded(share: float, told: str) -> None:
    assert promised(share) == told


def test_what_is_good_is_rounded_down_and_what_is_bad_up() -> None:
    assert [at_least(2999 / 3000), at_least(1.0), at_least(0.57, 0), at_least(0.0)] == ["99.9%", "100.0%", "57%", "0.0%"]
    assert [at_most(1 / 3000), at_most(0.0), at_most(0.57, 0), at_most(1 / 30_000, 2)] == ["0.1%", "0.0%", "57%", "0.01%"]


def test_all_that_is_hardly_missed_is_told_as_missed() -> None:
    """Coverage of 99.5 %, one error in thousands, and 0.4 % of strangers who pass: nowhere 100 %, nor 0 %."""
    made = found.findings()
    assert made.manifest.decision.label_set is not None
    rule = replace(made.calibration.rule, label_set=replace(made.manifest.decision.label_set, coverage_e6=995_000))
    point = replace(made.calibration.point, accepted=3000, errors=1)
    strangers = tuple(replace(each, fpr95=0.0004) for each in made.calibration.unknown)
    chosen = replace(made.calibration, rule=rule, point=point, unknown=strangers)
    made = replace(made, calibration=chosen, manifest=replace(made.manifest, decision=rule))
    text, drawn = page(made), charts.coverage(made)
    assert drawn is not None
    assert "Promised over all: 99.5%." in drawn.text
    assert "99.5% is promised; with" in text
    assert "100% is promised" not in text
    assert '<p class="number">99.9%</p>\n<p><b>of accepted answers are right.' in text
    assert any("in 99.5% of cases like these" in rule for rule in words.rules(made))
    assert "(99.5% is promised)" in grades.of_model(chosen, made.by_label, made.manifest.labels)[4].sentence
    assert "0.1% still pass" in card(made)


def test_networks_that_differ_once_do_not_agree_in_all() -> None:
    told = dict(words.parity({"agreement_e6": 999_999, "accuracy_drop_e6": 1}))
    assert list(told.values()) == ["99.99%", "0.01%"]
