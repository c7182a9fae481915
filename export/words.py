"""What the manifest's names mean, in words that a clinical engineer reads without a textbook.

What is in a table ends a sentence that says "Certainty is …", "Strangeness is …" or "a set of …". The page and the card say
the same, so it is said here once.
"""

from typing import TYPE_CHECKING

from appliance.bundle.manifest import E6
from export.shares import at_least, at_most, promised

if TYPE_CHECKING:
    from export.findings import Findings

SCORES = {
    "max_probability": "the probability of the top label",
    "margin": "how far the probability of the top label is ahead of the second",
    "entropy": "how much the probabilities are gathered on few labels (their entropy, negated)",
    "top_two": "the probabilities of the two top labels together",
    "max_logit": "the largest logit",
    "energy": "the logarithm of the summed exponentials of all logits (energy)",
    "gen": "how near to 0 or 1 the largest probabilities are (generalised entropy)",
}
UNKNOWN_METHODS = {
    "mahalanobis": "the distance of an input's embedding to the nearest label's mean (Mahalanobis)",
    "relative_mahalanobis": "that distance, less the one to all labels taken together (relative Mahalanobis)",
    "vim": "what of an embedding lies outside the space that known inputs span, against its logits (virtual-logit matching)",
    "nearest": "the distance to the nearest of the embeddings of known cases",
}
LABEL_SETS = {
    "lac": "all labels whose probability is over one threshold (least ambiguous sets)",
    "lac_by_class": "all labels whose probability is over a threshold of their own (class by class)",
    "raps": "the top labels until enough probability is gathered (regularised adaptive sets)",
}
PARITY = {
    "cases": "validation cases compared",
    "logit_difference_e9": "largest difference in a logit",
    "probability_difference_e9": "largest difference in a probability",
    "embedding_difference_e9": "largest difference in an embedding",
    "composition_difference_e9": "largest difference in a logit between a row alone and in company",
    "padding_difference_e9": "largest difference in a logit when what stands past a text's end changes",
    "close_calls": "cases whose top label differs, within the network's own margin",
    "agreement_e6": "cases with the same top label, or too close to call",
    "accuracy_drop_e6": "accuracy lost against the network",
    "worst_class_drop_e6": "accuracy lost by the label that loses most",
}


def parity(figures: dict[str, int]) -> list[tuple[str, str]]:
    """What was compared, and the figure as it is read. A key without words is shown by its own name."""
    return [(PARITY.get(name, name), _figure(name, value)) for name, value in figures.items()]


def _figure(name: str, value: int) -> str:
    if name.endswith("_e9"):
        return f"{value / 1e9:.1e}" if value else "0"
    if name.endswith("_e6"):
        return at_least(value / E6, 2) if name == "agreement_e6" else at_most(value / E6, 2)
    return f"{value:,}"


def rules(findings: "Findings") -> list[str]:
    """When an input gets an answer, when it does not, and what goes with it: a sentence or three for each rule."""
    found = findings.calibration
    rule, point, expected = found.rule, found.point, found.rule.expected
    told = []
    if rule.unknown is not None:
        told.append(
            f"First, an input whose strangeness is over {_number(rule.unknown.reject_above_e6)} is taken for one of "
            f"another kind and gets no answer. Strangeness is {UNKNOWN_METHODS[rule.unknown.method]}. Of "
            f"{expected.cases:,} validation cases that the check was not fitted on, {expected.unknown:,} "
            f"({expected.unknown / expected.cases:.1%}) were taken so."
        )
    told.append(
        f"An answer is accepted where its certainty is at least {_number(rule.accept.at_least_e6)}. Certainty is "
        f"{SCORES[rule.accept.score]}, after calibration with a temperature of {_number(rule.temperature_e6)}. Of "
        f"{point.accepted:,} validation cases accepted, {point.errors:,} were answered wrongly "
        f"({at_most(point.errors / point.accepted, 2)}); with 95% confidence the rate is at most {at_most(point.bound, 2)}."
    )
    told.append(
        f"Otherwise the model abstains, and a person has to look: so in {expected.abstained:,} of {expected.cases:,} "
        f"validation cases ({at_most(expected.abstained / expected.cases)})."
    )
    chosen = found.label_set
    if rule.label_set is not None and chosen is not None:
        told.append(
            f"With each answer goes the set of labels that are not ruled out: {LABEL_SETS[rule.label_set.method]}, and "
            f"the top one. The set is made to hold the true label in {promised(rule.label_set.coverage_e6 / E6)} of "
            f"cases like these, and with 95% confidence does so in at least {at_least(chosen.interval[0])}. Sets hold "
            f"{chosen.labels_mean:.2f} labels on average."
        )
    return told


def labels_left_out(findings: "Findings", told: int) -> str:
    """Which labels a table of ``told`` labels is of; nothing where it is of all."""
    count, seen = len(findings.by_label), sum(of.cases > 0 for of in findings.by_label)
    if told == count:
        return ""
    if told == seen:
        return f"Of {count:,} labels {seen:,} {'has' if seen == 1 else 'have'} cases; the others are left out here."
    whose = f"{count:,}" if seen == count else f"{seen:,} with cases; the model has {count:,}"
    return f"The {told:,} labels answered least well, of {whose}."


def limits(findings: "Findings") -> list[str]:
    """What nobody may read into the figures."""
    cases = len(findings.cases.labels)
    label_set = findings.calibration.rule.label_set
    by_class = label_set is not None and label_set.method == "lac_by_class"
    whose = "the cases of each label together, not for" if by_class else "all cases together, not for each label or"
    told = [
        f"All figures are of the {cases:,} validation cases that the vendor chose. Other devices, other patients and other "
        "times may do worse; the rates of abstaining and of unknown inputs at the site are the first sign of it.",
        "The rules were chosen on the same validation cases that the figures are of, wherever nothing else is said. A "
        "threshold picked among many makes its 95% nominal.",
        "Intervals take cases for independent. Several of one patient make them narrower than they should be.",
        f"Label sets keep their promise over {whose} each patient.",
        "This is no clinical evaluation: nothing here says what an answer is worth to a patient.",
    ]
    if findings.calibration.rule.unknown is None:
        told.append("Whatever it is given, the model takes it for an input of the kind it was made for.")
    else:
        told.append(NO_PROMISE)
    return told


NO_PROMISE = (
    "That inputs of another kind are detected is not promised. The check was tried on the sets named, and some inputs of "
    "another kind pass it; nobody can say how many of those that were not tried."
)


def _number(millionths: int) -> str:
    return f"{millionths / E6:.4g}"
