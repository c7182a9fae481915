"""``appliance top``: what the appliance is doing now, from its own metrics."""

import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import click
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from appliance import config
from appliance.cli.options import SITE
from appliance.errors import ConfigError

METRICS_BYTES_MAX, METRICS_S_MAX = 8 << 20, 5
_DECISIONS = ("accept", "abstain", "out_of_distribution")
Labels = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Reading:
    """The metrics at one time: ``values`` by name and labels; ``at_s`` is a time of a steady clock."""

    at_s: float
    values: Mapping[tuple[str, Labels], float] = field(default_factory=dict)

    def by(self, name: str, *labels: str) -> dict[tuple[str, ...], float]:
        """The sums of a metric's values for each combination of some of its labels."""
        sums: dict[tuple[str, ...], float] = defaultdict(float)
        for (found, given), value in self.values.items():
            if found == name:
                known = dict(given)
                sums[tuple(known.get(label, "") for label in labels)] += value
        return sums


@click.command("top")
@click.option("--site", type=SITE, default=".", show_default=True, help="The site directory of a running appliance.")
@click.option("--every", "interval_s", type=click.FloatRange(0.2, 60), default=1.0, show_default=True, help="Seconds.")
@click.option("--once", is_flag=True, help="Show one interval and end.")
def command(site: Path, interval_s: float, once: bool) -> None:
    """Show models, rates, latency, queues and decisions while the appliance serves. Ends with Ctrl-C."""
    host, port = config.read(site / "appliance.toml", to_serve=False).metrics_address
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}/metrics"
    before, console = read(url), Console()
    if once:
        time.sleep(interval_s)
        console.print(view(before, read(url)))
        return
    with Live(view(before, before), console=console, auto_refresh=False, screen=console.is_terminal) as live:
        while True:
            time.sleep(interval_s)
            now = read(url)
            live.update(view(before, now), refresh=True)
            before = now


def read(url: str) -> Reading:
    """Raises ConfigError where nobody answers."""
    from prometheus_client.parser import text_string_to_metric_families

    try:
        with urlopen(url, timeout=METRICS_S_MAX) as page:  # noqa: S310  http, to the address in the configuration
            text = page.read(METRICS_BYTES_MAX).decode()
    except (URLError, OSError):
        raise ConfigError("no appliance answers at metrics.address: is it running?") from None
    samples = (sample for family in text_string_to_metric_families(text) for sample in family.samples)
    return Reading(time.monotonic(), {(s.name, tuple(sorted(s.labels.items()))): s.value for s in samples})


def view(before: Reading, now: Reading) -> Group:
    """What changed between two readings, and what is."""
    seconds = max(now.at_s - before.at_s, 1e-9)

    def rate(name: str, *labels: str) -> dict[tuple[str, ...], float]:
        then = before.by(name, *labels)
        return {key: (value - then.get(key, 0.0)) / seconds for key, value in now.by(name, *labels).items()}

    return Group(
        _models(now, rate("appliance_rows_total", "model", "decision"), _means(before, now)),
        _drift(now),
        _calls(rate("appliance_calls_total", "outcome", "error")),
        _state(now, rate("appliance_audit_records_total").get((), 0.0)),
    )


def _means(before: Reading, now: Reading) -> dict[tuple[str, ...], float]:
    """The mean milliseconds of each model's stages in between."""
    means = {}
    for key, count in now.by("appliance_stage_seconds_count", "model", "stage").items():
        calls = count - before.by("appliance_stage_seconds_count", "model", "stage").get(key, 0.0)
        name = "appliance_stage_seconds_sum"
        spent = now.by(name, "model", "stage")[key] - before.by(name, "model", "stage").get(key, 0.0)
        means[key] = 1000 * spent / calls if calls else 0.0
    return means


def _models(now: Reading, rows: Mapping[tuple[str, ...], float], means: Mapping[tuple[str, ...], float]) -> Table:
    table = Table(title="models", title_justify="left", expand=True)
    for column in ("model", "version", "on", "rows/s", "accept", "abstain", "unknown", "decode ms", "queue ms", "run ms"):
        table.add_column(column, justify="left" if column in ("model", "on") else "right")
    table.add_column("waiting", justify="right")
    for model, version, provider in sorted(now.by("appliance_model_info", "model", "version", "provider")):
        decided = [rows.get((model, decision), 0.0) for decision in _DECISIONS]
        waiting = now.by("appliance_queue_rows", "model", "version").get((model, version), 0.0)
        stages = [f"{means.get((model, stage), 0.0):.1f}" for stage in ("decode", "queue", "run")]
        shares = [f"{share / sum(decided):.0%}" if sum(decided) else "–" for share in decided]
        on = provider.removesuffix("ExecutionProvider")
        table.add_row(model, version, on, f"{sum(decided):.1f}", *shares, *stages, f"{waiting:.0f}")
    return table


def _drift(now: Reading) -> Table:
    """How often the signed rule abstained on the last rows or took them for unknown, and how often in validation."""
    table = Table("model", "version", title="the last rows, and in validation", title_justify="left")
    for column in ("abstain", "validation", "unknown", "validation"):
        table.add_column(column, justify="right")
    which = ("model", "version", "decision")
    seen, expected = now.by("appliance_share", *which), now.by("appliance_share_expected", *which)
    for model, version in sorted({key[:2] for key in seen}):
        keys = [(model, version, decision) for decision in _DECISIONS[1:]]
        table.add_row(model, version, *(f"{share.get(key, 0.0):.1%}" for key in keys for share in (seen, expected)))
    return table


def _calls(calls: Mapping[tuple[str, ...], float]) -> Table:
    table = Table("outcome", "why", title="calls a second", title_justify="left")
    table.add_column("calls/s", justify="right")
    for (outcome, why), per_s in sorted(calls.items(), key=lambda item: -item[1]):
        table.add_row(outcome, why or "–", f"{per_s:.1f}")
    return table


def _state(now: Reading, records_per_s: float) -> Text:
    writable = now.by("appliance_audit_writable").get((), 0.0)
    alarms: Iterable[tuple[str, ...]] = sorted(now.by("appliance_alarm", "kind", "subject"))
    text = Text.assemble(
        ("audit log ", "bold"), "written" if writable else ("NOT WRITABLE", "red"), f", {records_per_s:.1f} records/s\n"
    )
    for kind, subject in alarms:
        text.append(f"alarm {kind}: {subject}\n", "yellow")
    return text
