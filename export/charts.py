"""The report's charts. Each comes with its ``text``: what there is to see, for who does not see it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from appliance.bundle.manifest import E6
from export.findings import Findings
from export.report import curve
from export.shares import at_least, at_most, interval, promised
from export.svg import INK, svg
from export.temperature import Reliability

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SETS_MAX, BINS = 4, 40
LABELS_MAX = 40
_SETS = (("c2", "--"), ("c3", ":"), ("c4", "-."), ("muted", "-"))


@dataclass(frozen=True, slots=True)
class Chart:
    """``svg`` is markup that may stand in a page as it is: matplotlib has escaped what it was given to write."""

    svg: str
    text: str


def reliability(findings: Findings) -> Chart:
    """How often answers of some probability were right, before and after calibration."""
    found = findings.calibration
    before, after = found.reliability_before, found.reliability_after

    def draw(axes: "Axes") -> None:
        axes.plot([0, 1], [0, 1], color=INK["muted"], linewidth=1, linestyle="--", label="ideal")
        spans = [(place, *interval(round(share * n), n)) for n, place, share in zip(*_bins(after), strict=True)]
        places, lows, highs = zip(*spans, strict=True)
        axes.vlines(places, lows, highs, color=INK["c1"], linewidth=1.2, alpha=0.55, label="95% interval")
        for bins, color, marker, label in (
            (before, INK["c2"], "s", "before calibration"),
            (after, INK["c1"], "o", "as stated"),
        ):
            count, at, shares = _bins(bins)
            sizes = 14 + 110 * np.sqrt(np.array(count) / sum(count))
            axes.scatter(at, shares, sizes, color, marker=marker, label=label, linewidths=0)
        axes.set(xlim=(0, 1.02), ylim=(0, 1.02), xlabel="stated probability", ylabel="share that was right")
        _percent(axes.xaxis, axes.yaxis)
        axes.legend(frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, markerscale=0.7)

    return Chart(
        svg("reliability", draw, 3.9),
        "Stated probabilities differ from the share that was right by "
        f"{found.ece_after:.1%} on average; before calibration by {found.ece_before:.1%}. Larger marks are of more answers.",
    )


def risk(findings: Findings) -> Chart:
    """The error among the accepted, for each share that could be accepted, and where the rule stands."""
    found, points = findings.calibration.point, curve(findings)
    coverage, errors = found.accepted / found.images, found.errors / found.accepted

    def draw(axes: "Axes") -> None:
        axes.plot(*zip(*points, strict=True), color=INK["c1"], linewidth=1.8, drawstyle="steps-post", label="error")
        axes.plot([coverage] * 2, [errors, found.bound], color=INK["c2"], linewidth=2, label="up to its bound")
        axes.scatter([coverage], [errors], 46, INK["c2"], zorder=3, label="operating point", linewidths=0)
        top = max(found.bound, max(error for _, error in points[len(points) // 20 :])) * 1.15
        axes.set(xlim=(0, 1.02), ylim=(0, min(1.0, top) or 1.0), xlabel="share accepted, surest first", ylabel="share wrong")
        _percent(axes.xaxis, axes.yaxis)
        axes.legend(frameon=False, loc="upper left")

    return Chart(
        svg("risk", draw),
        f"At the operating point {at_least(coverage)} of the cases taken for known are accepted, {at_most(errors, 2)} "
        f"of those wrongly, at most {at_most(found.bound, 2)} with 95% confidence. If all cases were answered, "
        f"{at_most(points[-1][1])} would be wrong.",
    )


def coverage(findings: Findings) -> Chart | None:
    """How often label sets held the true label, label by label; None without label sets or for too many labels."""
    rule = findings.calibration.rule.label_set
    chosen = findings.calibration.label_set
    labels = findings.manifest.labels
    if rule is None or chosen is None or len(labels) > LABELS_MAX:
        return None
    rows = [(label.name, share) for label, share in zip(labels, chosen.coverage_by_class, strict=True) if share is not None]
    aim = rule.coverage_e6 / E6

    def draw(axes: "Axes") -> None:
        places, shares = range(len(rows)), [share for _, share in rows]
        axes.axvline(aim, color=INK["c2"], linewidth=1.2, linestyle="--", label="promised over all")
        axes.hlines(places, aim, shares, color=INK["c1"], linewidth=2)
        axes.scatter(shares, places, 34, INK["c1"], zorder=3, linewidths=0, label="measured on held-out folds")
        axes.set_yticks(places, [_short(name) for name, _ in rows])
        axes.set(
            xlim=(min(0.8, *shares) - 0.03, 1.005), ylim=(len(rows) - 0.5, -0.5), xlabel="sets that hold the true label"
        )
        _percent(axes.xaxis)
        axes.legend(frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)

    low, high = min(rows, key=lambda row: row[1]), max(rows, key=lambda row: row[1])
    return Chart(
        svg("coverage", draw, 1.2 + 0.24 * len(rows)),
        f"Promised over all: {promised(aim)}. Lowest: {low[0]}, {at_least(low[1])}; "
        f"highest: {high[0]}, {at_least(high[1])}.",
    )


def set_sizes(findings: Findings) -> Chart | None:
    """How many labels the sets of the validation cases hold; None without label sets."""
    sizes = findings.set_sizes
    if sizes is None:
        return None
    total = sum(sizes)
    shown = [*sizes[:9], sum(sizes[9:])] if len(sizes) > 10 else list(sizes)
    names = [str(i + 1) for i in range(len(shown))]
    if len(sizes) > 10:
        names[-1] += "+"

    def draw(axes: "Axes") -> None:
        bars = axes.bar(names, [count / total for count in shown], 0.7, color=INK["c1"])
        axes.bar_label(bars, [f"{count / total:.0%}" for count in shown], padding=2, color=INK["ink"], fontsize=9)
        axes.set(
            xlim=(-0.6, max(len(shown), 4) - 0.4),
            ylim=(0, min(1.12, max(shown) / total * 1.18)),
            xlabel="labels in the set",
            ylabel="validation cases",
        )
        _percent(axes.yaxis)

    told = ", ".join(f"{count:,} have {name}" for name, count in zip(names, shown, strict=True))
    return Chart(svg("sizes", draw), f"Labels in the sets of {total:,} validation cases: {told}.")


def distances(findings: Findings) -> Chart | None:
    """How far known inputs and strangers are, and from where on an input counts as unknown; None without that check."""
    found, rule = findings.calibration, findings.calibration.rule.unknown
    known = found.known_distances[np.isfinite(found.known_distances)]
    if rule is None or not len(known):
        return None
    limit = rule.reject_above_e6 / E6
    sets = [(name, far) for name, far in found.strange_distances.items() if len(far)][:SETS_MAX]
    # Strangers may be a hundred times as far; what matters is on which side of the limit they are.
    low, far = float(known.min()), max(float(np.quantile(known, 0.999)), limit)
    high = far + 0.6 * (far - low)
    edges = np.linspace(min([low, *(float(far.min()) for _, far in sets)]), high, BINS + 1)

    def draw(axes: "Axes") -> None:
        shares = np.histogram(np.minimum(known, high), edges)[0] / len(known)
        axes.stairs(shares, edges, fill=True, color=INK["c1"], alpha=0.35, label="known, held out")
        for (name, far), (color, style) in zip(sets, _SETS, strict=False):
            shares = np.histogram(np.minimum(far, high), edges)[0] / len(far)
            axes.stairs(shares, edges, color=INK[color], linewidth=1.8, linestyle=style, label=_short(name, 34))
        axes.axvline(limit, color=INK["ink"], linewidth=1.4, label="limit")
        axes.set(xlim=(edges[0], high), xlabel="strangeness; the last bar holds all beyond", ylabel="share of the set")
        _percent(axes.yaxis)
        axes.legend(frameon=False)

    beyond = [f"{name}: {at_least(float((far > limit).mean()))}" for name, far in sets]
    return Chart(
        svg("distances", draw),
        f"Over the limit are {float((known > limit).mean()):.1%} of the known; of strangers "
        f"{'; '.join(beyond) or 'none, for none were tried'}.",
    )


def _bins(found: Reliability) -> tuple[list[int], list[float], list[float]]:
    """Cases, mean probability, and share that was right, of each bin that has a case."""
    there = found.count > 0
    return found.count[there].tolist(), found.confidence[there].tolist(), found.accuracy[there].tolist()


def _percent(*which: object) -> None:
    from matplotlib.axis import Axis
    from matplotlib.ticker import PercentFormatter

    for axis in which:
        if isinstance(axis, Axis):
            axis.set_major_formatter(PercentFormatter(1.0, None))


def _short(name: str, most: int = 24) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"


def drawn(findings: Findings) -> dict[str, Chart]:
    """All that there is something to see in, by name."""
    makers: Sequence[Callable[[Findings], Chart | None]] = (reliability, risk, coverage, set_sizes, distances)
    found = {maker.__name__: maker(findings) for maker in makers}
    return {name: chart for name, chart in found.items() if chart is not None}
