"""What the figures of a model come to: a grade and a plain sentence for each question that a reader would ask.

A grade says where to look, not whether to release: that is for people. Red is what makes other figures doubtful; amber is a
weakness that a user has to know of, or a question nobody could look at.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from appliance.bundle.manifest import E6, Label
from export.calibrate import Calibration
from export.evidence import Finding, Grade
from export.shares import at_least, at_most, interval, promised

if TYPE_CHECKING:
    from export.findings import OfLabel

ORDER: tuple[Grade, ...] = ("red", "amber", "ok")
ECE_TIMES_MAX = 2.0  # of what a model would show by chance whose every probability is right
ACCEPTED_MIN = 0.5
CLASS_GAP_MAX = 0.1  # between a label's accuracy and that of all
PASSING_MAX = 0.5  # of strangers, where 95% of known inputs pass
WRONG_MIN = 2
NAMES_MAX = 3


def of_model(found: Calibration, by_label: "Sequence[OfLabel]", labels: Sequence[Label]) -> tuple[Finding, ...]:
    """In the order in which they are read."""
    return (
        _probabilities(found),
        _answered(found),
        _weakest(found, by_label, labels),
        _accepted(found, by_label, labels),
        _sets(found, by_label, labels),
        _unknown(found),
    )


def _probabilities(found: Calibration) -> Finding:
    off = found.ece_after > ECE_TIMES_MAX * found.ece_by_chance
    return Finding(
        "amber" if off else "ok",
        "Honest probabilities",
        f"Stated probabilities are off by {found.ece_after:.1%} on average, {found.ece_before:.1%} before calibration; "
        f"{found.ece_by_chance:.1%} would be chance.",
    )


def _answered(found: Calibration) -> Finding:
    """Of the cases that the check for the unknown was not fitted on: of the others it flags fewer than a site will see."""
    seen = found.rule.expected
    accepted = seen.cases - seen.abstained - seen.unknown
    share = accepted / seen.cases
    of = "validation cases" if found.detector is None else "validation cases that no check was fitted on"
    return Finding(
        "ok" if share >= ACCEPTED_MIN else "amber",
        "Answers given",
        f"{accepted:,} of {seen.cases:,} {of} ({at_least(share)}) get an answer; the others are left to people.",
    )


def _weakest(found: Calibration, by_label: "Sequence[OfLabel]", labels: Sequence[Label]) -> Finding:
    """The label least often answered rightly; amber where it is far behind all of them, and not by chance.

    One that may be so by chance, having few cases, does not hide one that is not.
    """
    about = "Weakest label"
    seen = [(of.right / of.cases, i) for i, of in enumerate(by_label) if of.cases]
    weak = [
        (share, i)
        for share, i in seen
        if share < found.accuracy - CLASS_GAP_MAX
        and interval(by_label[i].right, by_label[i].cases, len(seen))[1] < found.accuracy
    ]
    share, i = min(weak or seen)
    of = by_label[i]
    told = (
        f"Of label {labels[i].name}, {of.right:,} of {of.cases:,} cases are answered rightly ({at_least(share)}); "
        f"of all, {at_least(found.accuracy)}."
    )
    return Finding("amber" if weak else "ok", about, told)


def _accepted(found: Calibration, by_label: "Sequence[OfLabel]", labels: Sequence[Label]) -> Finding:
    """The bound on errors among accepted answers is over all labels together; one of them may pay for the others.

    One wrong answer is no pattern, however few there are.
    """
    about, bound = "Accepted, by label", found.point.bound
    some = [i for i, of in enumerate(by_label) if of.accepted]
    never = [labels[i].name for i, of in enumerate(by_label) if of.cases and not of.accepted]
    over = [
        (of.accepted_wrong / of.accepted, i)
        for i, of in ((i, by_label[i]) for i in some)
        if of.accepted_wrong >= WRONG_MIN and interval(of.accepted_wrong, of.accepted, len(some))[0] > bound
    ]
    silent = f" No case of {_names(never)} is accepted." if never else ""
    if not over:
        return Finding(
            "amber" if never else "ok",
            about,
            f"For none of the {len(some):,} labels with accepted cases is the error among them clearly over "
            f"{at_most(bound, 2)}, the bound of all.{silent}",
        )
    _, i = max(over)
    of = by_label[i]
    return Finding(
        "red",
        about,
        f"For {len(over):,} of {len(some):,} labels with accepted cases the error among them is clearly over "
        f"{at_most(bound, 2)}, the bound of all. Of label {labels[i].name}, {of.accepted_wrong:,} of {of.accepted:,} are "
        f"wrong: whoever has it is not served as promised.{silent}",
    )


def _names(names: Sequence[str]) -> str:
    """``label a``, ``labels a, b``, or ``1,000 labels (a, b, c and others)``."""
    if len(names) > NAMES_MAX:
        return f"{len(names):,} labels ({', '.join(names[:NAMES_MAX])} and others)"
    return f"label{'s' if len(names) > 1 else ''} {', '.join(names)}"


def _sets(found: Calibration, by_label: "Sequence[OfLabel]", labels: Sequence[Label]) -> Finding:
    """A label is below the promise where even the upper end of its interval is."""
    about, rule = "Label sets", found.rule.label_set
    chosen = found.label_set
    if rule is None or chosen is None:
        return Finding("amber", about, "The model gives no label sets.")
    aim = rule.coverage_e6 / E6
    seen = [(i, share) for i, share in enumerate(chosen.coverage_by_class) if share is not None]
    below = [
        labels[i].name
        for i, share in seen
        if interval(round(share * by_label[i].cases), by_label[i].cases, len(seen))[1] < aim
    ]
    told = f"They held the true label in {at_least(chosen.coverage)} of held-out cases ({promised(aim)} is promised)"
    if below:
        return Finding(
            "amber", about, f"{told}, but clearly less often for {_names(below)}, of {len(seen):,} labels with cases."
        )
    return Finding(
        "ok",
        about,
        f"{told}, with {chosen.labels_mean:.2f} labels on average, and for none of the {len(seen):,} labels with cases "
        "clearly less often.",
    )


def _unknown(found: Calibration) -> Finding:
    about = "Inputs of another kind"
    tried = [result for result in found.unknown if result.chosen]
    if found.rule.unknown is None:
        return Finding("amber", about, "The model does not look whether an input is of the kind it was made for.")
    if not tried:
        return Finding("amber", about, "Its check for inputs of another kind was tried on none.")
    worst = max(tried, key=lambda result: result.fpr95)
    unfitted = ""
    if found.unknown_unfitted:
        unfitted = f" Could not be fitted here, so not tried: {', '.join(found.unknown_unfitted)}."
    return Finding(
        "amber" if worst.fpr95 > PASSING_MAX else "ok",
        about,
        f"Of those tried, {at_most(worst.fpr95)} still pass in the hardest set ({worst.name}, {worst.n:,} cases), where 95% "
        f"of known inputs pass. Nothing is promised of others.{unfitted}",
    )
