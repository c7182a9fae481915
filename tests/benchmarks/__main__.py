"""``make bench``: the appliance against raw ONNX Runtime, in one run, interleaved; medians of the rounds.

Raw is the better of two ways to use the same session in a process of its own: as many threads as there are callers, one row
each; or one thread with all their rows in one batch, up to the model's largest. The appliance answers over gRPC, with its
audit log on, over mutual TLS and over the loopback listener without TLS.
"""

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from tests.benchmarks import networks
from tests.forge import Forge
from tests.running import Running, running

MODELS = ("small", "resnet18")
CONCURRENCIES = (1, 8, 32)
OUT = Path("build/bench.json")
SETTINGS = """
[[access]]
caller = "DNS:bench"
roles = ["predict"]

[server.plaintext]
address = "127.0.0.1:0"
roles = ["predict"]
"""


@dataclass(frozen=True)
class Point:
    server: str
    model: str
    rows: int
    concurrency: int
    ips: float
    p50_ms: float
    p99_ms: float
    ratio_to_raw: float
    audit: bool
    tls: bool


@click.command()
@click.option("--seconds", default=3.0, show_default=True, help="How long each point is measured in a round.")
@click.option("--rounds", default=3, show_default=True)
def main(seconds: float, rounds: int) -> None:
    """Measure the appliance against raw ONNX Runtime on this machine."""
    console = Console()
    made = Forge()
    cases = [(model, concurrency) for model in MODELS for concurrency in CONCURRENCIES]
    found: dict[tuple[str, str, int], list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        console.print("Sealing two bundles and starting an appliance.")
        bundles = [networks.bundle(model, made.content_key, made.exporter) for model in MODELS]
        with running(made.site(Path(folder), bundles, SETTINGS)) as appliance:
            for turn in range(rounds):
                for model, concurrency in cases:
                    for server, asked in _ways(appliance, model, concurrency, seconds):
                        result = _measure(asked)
                        found.setdefault((server, model, concurrency), []).append(result)
                        shown = f"{server:16} {model:9} concurrency {concurrency:2}: {result['ips']:7.1f} rows/s"
                        console.print(f"round {turn + 1} of {rounds}  {shown}", highlight=False)
    points = [point for model, concurrency in cases for point in _points(found, model, concurrency)]
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps([asdict(point) for point in points], indent=2) + "\n")
    console.print(_table(points))
    console.print(f"Written to {OUT}.")


def _ways(appliance: Running, model: str, concurrency: int, seconds: float) -> list[tuple[str, dict[str, Any]]]:
    raw = {"kind": "raw", "model": model, "seconds": seconds, "threads": os.cpu_count()}
    load = {"kind": "load", "model": model, "seconds": seconds, "concurrency": concurrency}
    ways = [("raw threads", raw | {"concurrency": concurrency, "rows": 1})]
    if concurrency > 1:
        ways.append(("raw batches", raw | {"concurrency": 1, "rows": min(concurrency, networks.ROWS_MAX)}))
    client = str(appliance.site.client("bench"))
    plain = f"127.0.0.1:{appliance.plaintext_port}"
    return [
        *ways,
        ("appliance", load | {"address": appliance.address, "client": client}),
        ("appliance no TLS", load | {"address": plain, "client": None}),
    ]


def _measure(asked: dict[str, Any]) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.benchmarks.workers", json.dumps(asked)]
    result: dict[str, Any] = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return result


def _points(found: dict[tuple[str, str, int], list[dict[str, Any]]], model: str, concurrency: int) -> list[Point]:
    speeds = {
        server: median(result["ips"] for result in results)
        for (server, m, c), results in found.items()
        if (m, c) == (model, concurrency)
    }
    best = max((server for server in speeds if server.startswith("raw")), key=speeds.__getitem__)

    def point(server: str, name: str, *, served: bool, tls: bool) -> Point:
        results = found[server, model, concurrency]
        middle = median(median(result["ms"]) for result in results)
        slow = median(quantiles(result["ms"], n=100)[98] for result in results)
        rows = networks.ROWS_MAX if server == "raw batches" else 1
        ratio = speeds[server] / speeds[best]
        rows = min(rows, concurrency)
        return Point(name, model, rows, concurrency, speeds[server], middle, slow, ratio, served, tls)

    return [
        point(best, "raw", served=False, tls=False),
        point("appliance", "appliance", served=True, tls=True),
        point("appliance no TLS", "appliance", served=True, tls=False),
    ]


def _table(points: list[Point]) -> Table:
    table = Table("server", "TLS", "model", "concurrency", "rows/s", "p50 ms", "p99 ms", "ratio to raw")
    for p in points:
        name = f"raw, {p.rows} rows a run" if p.server == "raw" else p.server
        numbers = (f"{p.ips:.1f}", f"{p.p50_ms:.2f}", f"{p.p99_ms:.2f}", f"{p.ratio_to_raw:.2f}")
        table.add_row(name, "yes" if p.tls else "", p.model, str(p.concurrency), *numbers)
    return table


if __name__ == "__main__":
    main()
