"""The benchmark: ONNX Runtime alone against the appliance, in one run, in turns; writes build/bench.json."""

import argparse
import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.benchmarks import models
from tests.benchmarks.rounds import Round, Worker, middle, worker
from tests.forge import Forge
from tests.running import Running, running

OUT = Path(__file__).resolve().parents[2] / "build" / "bench.json"
CONCURRENCY = (1, 8, 32)
PLAINTEXT = '[server.plaintext]\naddress = "127.0.0.1:0"\nroles = ["predict"]\n'


@dataclass(frozen=True, slots=True)
class Point:
    """What is measured, ``rows`` to a request, ``callers`` of them at once, for ``concurrency`` rows that want an answer."""

    server: str
    model: str
    rows: int
    callers: int
    concurrency: int
    tls: bool


def points(concurrency: Sequence[int]) -> Iterator[Point]:
    """Everything to compare, neighbours in time where they are compared."""
    for network in models.NETWORKS:
        for wanted in concurrency:
            yield Point("raw", network.name, 1, wanted, wanted, False)
            if (rows := min(wanted, network.rows_max)) > 1:
                yield Point("raw", network.name, rows, 1, wanted, False)
            yield Point("appliance", network.name, 1, wanted, wanted, True)
            yield Point("appliance", network.name, 1, wanted, wanted, False)


def measure(point: Point, raw: Worker, load: Worker, appliance: Running, warm_s: float, seconds: float) -> Round:
    common = {"model": point.model, "callers": point.callers, "warm_s": warm_s, "seconds": seconds}
    if point.server == "raw":
        return raw.ask(rows=point.rows, **common)
    return load.ask(port=appliance.port if point.tls else appliance.plaintext_port, tls=point.tls, **common)


def results(found: dict[Point, list[Round]]) -> list[dict[str, object]]:
    """The medians; of the ways to use ONNX Runtime alone only the best, which every ratio is to."""
    medians = {point: middle(rounds) for point, rounds in found.items()}
    best: dict[tuple[str, int], Point] = {}
    for point in (point for point in medians if point.server == "raw"):
        key = (point.model, point.concurrency)
        if key not in best or medians[point].ips > medians[best[key]].ips:
            best[key] = point
    return [
        {
            "server": point.server,
            "model": point.model,
            "rows": point.rows,
            "concurrency": point.concurrency,
            "ips": round(figures.ips, 1),
            "p50_ms": round(figures.p50_ms, 2),
            "p99_ms": round(figures.p99_ms, 2),
            "ratio_to_raw": round(figures.ips / medians[best[point.model, point.concurrency]].ips, 3),
            "audit": point.server == "appliance",
            "tls": point.tls,
        }
        for point, figures in medians.items()
        if point.server != "raw" or point in best.values()
    ]


def show(console: Console, found: list[dict[str, object]]) -> None:
    table = Table(title="Rows a second, closed loop, medians")
    for name in found[0]:
        table.add_column(name, justify="left" if name in ("server", "model") else "right")
    for row in found:
        table.add_row(*(str(value) for value in row.values()))
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0, help="of one measurement (3)")
    parser.add_argument("--rounds", type=int, default=3, help="through everything; medians are kept (3)")
    parser.add_argument("--concurrency", type=int, nargs="+", default=CONCURRENCY, help="rows that want an answer (1 8 32)")
    parser.add_argument(
        "--quick", action="store_true", help="one short round, to see that it works; its figures mean little"
    )
    parser.add_argument("--settings", default="", help="more of the site's configuration, as TOML")
    parser.add_argument("--out", type=Path, default=OUT, help="the result, JSON (build/bench.json)")
    asked = parser.parse_args()
    seconds, rounds = (0.5, 1) if asked.quick else (asked.seconds, asked.rounds)
    console = Console(width=120)
    found: dict[Point, list[Round]] = {point: [] for point in points(asked.concurrency)}
    console.print(f"{len(found)} points, {rounds} rounds of {seconds:g} s each; first the bundles are made and opened")
    forge = Forge()
    with tempfile.TemporaryDirectory() as folder:
        site = forge.site(
            Path(folder), [models.make(network).bundle(forge) for network in models.NETWORKS], PLAINTEXT + asked.settings
        )
        with (
            running(site) as appliance,
            worker("tests.benchmarks.raw") as raw,
            worker("tests.benchmarks.load", str(site.client("admin"))) as load,
        ):
            for number in range(1, rounds + 1):
                for point in found:
                    figures = measure(point, raw, load, appliance, min(1.0, seconds / 3), seconds)
                    found[point].append(figures)
                    console.print(
                        f"round {number}  {point.server:9}  {point.model:8}  {point.callers:2} × {point.rows:2} rows"
                        f"  {'TLS' if point.tls else '   '}  {figures.ips:7.1f} rows/s  p50 {figures.p50_ms:6.2f} ms"
                        f"  p99 {figures.p99_ms:6.2f} ms",
                        highlight=False,
                    )
    table = results(found)
    show(console, table)
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    asked.out.write_text(json.dumps(table, indent=1) + "\n")
    console.print(f"Wrote {asked.out}")


if __name__ == "__main__":
    main()
