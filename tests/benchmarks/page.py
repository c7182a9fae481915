"""The figures as a page: one file that needs nothing else, its plots inside as SVG."""

import io
from collections.abc import Sequence
from dataclasses import fields
from html import escape

from tests.benchmarks.points import Result

# The bars of a group, in this order; a peer neither keeps an audit log nor has TLS on.
SERIES = {
    ("raw", False, False): ("ONNX Runtime alone", "#7f7f7f"),
    ("appliance", True, True): ("appliance, audit and TLS", "#08519c"),
    ("appliance", False, True): ("appliance, TLS", "#3182bd"),
    ("appliance", True, False): ("appliance, audit", "#6baed6"),
    ("appliance", False, False): ("appliance, neither", "#bdd7e7"),
    ("mlserver", False, False): ("MLServer", "#e6550d"),
    ("kserve", False, False): ("KServe", "#31a354"),
    ("pytriton", False, False): ("pytriton", "#756bb1"),
}
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem }
svg { max-width: 100%; height: auto }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
td, th { padding: .15rem .7rem; text-align: right; border-bottom: 1px solid #ddd }
td:first-child, th:first-child, td:nth-child(2), th:nth-child(2) { text-align: left }
"""


def page(results: Sequence[Result], said: Sequence[str]) -> str:
    """``said`` are sentences about the run: where, how long, what was left out."""
    plots = [_plot(results, model, rows) for model, rows in dict.fromkeys((r.model, r.rows) for r in results)]
    names = [field.name for field in fields(Result)]
    lines = [[getattr(result, name) for name in names] for result in results]
    rows = ["<tr>" + "".join(f"<td>{_shown(value)}</td>" for value in line) + "</tr>" for line in lines]
    return "\n".join(
        [
            '<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>Benchmark</title>',
            f"<style>{_STYLE}</style>",
            "<h1>What is left of ONNX Runtime's speed once it serves</h1>",
            *(f"<p>{escape(sentence)}</p>" for sentence in said),
            *plots,
            f"<table><tr>{''.join(f'<th>{name}</th>' for name in names)}</tr>",
            *rows,
            "</table></html>\n",
        ]
    )


def _shown(value: object) -> str:
    return {True: "yes", False: "no", None: "–"}[value] if value is None or isinstance(value, bool) else escape(str(value))


def _plot(results: Sequence[Result], model: str, rows: int) -> str:
    """Rows a second and milliseconds, a group of bars for each concurrency; a thin line reaches the 99th percentile."""
    import matplotlib as mpl  # slow to import, and only wanted here
    from matplotlib.figure import Figure

    shown = [result for result in results if (result.model, result.rows) == (model, rows)]
    groups = sorted({result.concurrency for result in shown})
    series = [key for key in SERIES if any((r.server, r.audit, r.tls) == key for r in shown)]
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    speed, latency = figure.subplots(1, 2)
    width = 0.8 / len(series)
    for i, key in enumerate(series):
        mine = [result for result in shown if (result.server, result.audit, result.tls) == key]
        places = [groups.index(result.concurrency) - 0.4 + (i + 0.5) * width for result in mine]
        label, color = SERIES[key]
        speed.bar(places, [result.ips for result in mine], width, color=color, label=label)
        reach = [[0.0] * len(mine), [max(0.0, result.p99_ms - result.p50_ms) for result in mine]]
        latency.bar(places, [result.p50_ms for result in mine], width, color=color, yerr=reach, ecolor="#444")
    for axes, what in ((speed, "rows a second"), (latency, "ms: median, 99th percentile")):
        axes.set_xticks(range(len(groups)), [str(group) for group in groups])
        axes.set_xlabel("requests at once")
        axes.set_ylabel(what)
        axes.spines[["top", "right"]].set_visible(False)
    latency.set_yscale("log")
    figure.suptitle(f"{model}, {rows} {'row' if rows == 1 else 'rows'} a request")
    figure.legend(*speed.get_legend_handles_labels(), loc="outside right center", frameon=False)
    drawn = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": f"{model}{rows}"}):
        figure.savefig(drawn, format="svg", metadata={"Date": None, "Creator": None})
    svg = drawn.getvalue()
    return svg[svg.index("<svg") :]
