"""ONNX Runtime alone, the appliance, and other servers, measured in turns; writes build/bench.json, and build/bench.html to
read."""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.benchmarks import h2load, models, points, servers
from tests.benchmarks.h2load import Door, Unmeasurable
from tests.benchmarks.models import NETWORKS, Made
from tests.benchmarks.page import page
from tests.benchmarks.points import CONCURRENCY, SERVERS, Point, Result, Way, Work
from tests.benchmarks.rounds import Round, Worker, middle, worker

WARM_S_MAX = 1.0
QUICK_S = 0.5
CORES = os.cpu_count() or 1


@dataclass
class Bench:
    """Everything that is up, and everything that was found. The doors of the appliances are by audit log, then by TLS."""

    console: Console
    made: Mapping[str, Made]
    seconds: float
    raw: Worker | None = None
    appliances: dict[bool, dict[bool, Door]] = field(default_factory=dict)
    peers: dict[str, Door] = field(default_factory=dict)
    alone: dict[Work, dict[Way, list[Round]]] = field(default_factory=dict)
    served: dict[Point, list[Round]] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)

    def say(self, sentence: str) -> None:
        """To who watches, and to who reads the page."""
        if sentence not in self.said:
            self.said.append(sentence)
            self._print(sentence)

    def start(self, stack: ExitStack, only: Sequence[str], settings: str) -> None:
        """Starts what is to be measured; a peer that does not start is left out."""
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        made = list(self.made.values())
        if "raw" in only:
            self.raw = stack.enter_context(worker("tests.benchmarks.raw"))
        if "appliance" in only:
            for audited in (True, False):
                place = folder / ("audited" if audited else "unaudited")
                self.appliances[audited] = stack.enter_context(servers.appliance(place, made, settings, audited=audited))
        for one in made:
            one.save(folder / "networks" / one.network.name)
        for name in (name for name in servers.PINS if name in only):
            self._print(f"{name} is started; the first time it is also installed, which takes minutes")
            try:
                self.peers[name] = stack.enter_context(servers.peer(name, folder / "networks", made))
            except Unmeasurable as sentence:
                self.say(str(sentence))

    def plan(self, works: Sequence[Work], *, with_tls: bool) -> None:
        up = [*(["appliance"] if self.appliances else []), *self.peers]
        for work in works:
            if self.raw is not None:
                self.alone[work] = {way: [] for way in points.ways(work, NETWORKS[work.model].rows_max, CORES)}
            for server in up:
                self.served |= {point: [] for point in points.points(server, work, with_tls=with_tls)}

    def round(self, number: int, works: Sequence[Work]) -> None:
        """Everything once, what is compared close together in time."""
        for work in works:
            for way in points.still_tried(self.alone.get(work, {})):
                what = f"raw {way.callers} × {way.rows}, {way.sessions} × {way.threads} threads{' spinning' * way.spinning}"
                self._measured(number, work, what, self.alone[work][way], partial(self._alone, work, way))
            for point, rounds in self.served.items():
                if point.work == work:
                    what = point.server + " audit" * point.audit + " TLS" * point.tls
                    self._measured(number, work, what, rounds, partial(self._served, point))

    def results(self) -> list[Result]:
        """Of all ways to use ONNX Runtime alone only the best is in it."""
        medians: dict[Point, Round] = {}
        for work, ways in self.alone.items():
            if any(ways.values()):
                medians[Point("raw", work)] = points.best(ways)
        medians |= {point: middle(rounds) for point, rounds in self.served.items() if rounds}
        return points.results(medians)

    @property
    def complete(self) -> bool:
        """Whether there is a figure for everything of our own; a peer may fail."""
        return all(rounds for point, rounds in self.served.items() if point.server == "appliance")

    def _alone(self, work: Work, way: Way) -> Round:
        assert self.raw is not None
        return self.raw.ask(model=work.model, way=asdict(way), warm_s=self._warm_s, seconds=self.seconds)

    def _served(self, point: Point) -> Round:
        door = self.appliances[point.audit][point.tls] if point.server == "appliance" else self.peers[point.server]
        work = point.work
        return h2load.measure(door, self.made[work.model], work.rows, work.concurrency, self._warm_s, self.seconds)

    @property
    def _warm_s(self) -> float:
        return min(WARM_S_MAX, self.seconds / 3)

    def _measured(self, number: int, work: Work, what: str, rounds: list[Round], measure: Callable[[], Round]) -> None:
        label = f"{number}  {work.model:8} {work.concurrency:2} × {work.rows:2} rows  {what:36}"
        try:
            figures = measure()
        except Unmeasurable as sentence:
            self.say(f"{what}, {work.model}, {work.concurrency} × {work.rows} rows: {sentence}")
            return
        rounds.append(figures)
        self._print(
            f"{label} {figures.ips:9.1f} rows/s  p50 {figures.p50_ms:8.3f} ms  p99 {figures.p99_ms:8.3f} ms",
        )

    def _print(self, text: str) -> None:
        self.console.print(text, highlight=False, soft_wrap=True, markup=False)


def show(console: Console, found: Sequence[Result]) -> None:
    table = Table(title="Rows a second, closed loop, medians")
    for name in Result.__slots__:
        table.add_column(name, justify="left" if name in ("server", "model") else "right")
    for result in found:
        table.add_row(*(str(value) for value in asdict(result).values()))
    console.print(table)


def main() -> int:
    asked = _arguments()
    needs_callers = any(server != "raw" for server in asked.only)
    if needs_callers and shutil.which("h2load") is None:
        sys.stderr.write(f"The callers are h2load, which is not installed: apt-get install {h2load.PACKAGE}\n")
        return 2
    seconds, rounds = (QUICK_S, 1) if asked.quick else (asked.seconds, asked.rounds)
    console = Console(width=140)
    works = list(points.works(asked.models, asked.concurrency))
    bench = Bench(console, {name: models.make(NETWORKS[name]) for name in asked.models}, seconds)
    bench.say(
        f"{datetime.now(UTC):%Y-%m-%d}, {CORES} cores ({platform.machine()}) shared by server and callers; medians of"
        f" {rounds} rounds of {seconds:g} s; ONNX Runtime {version('onnxruntime')}."
    )
    with_tls = "appliance" in asked.only and _can_tls(bench)
    with ExitStack() as stack:
        bench.start(stack, asked.only, asked.settings)
        bench.plan(works, with_tls=with_tls)
        for number in range(1, rounds + 1):
            bench.round(number, works)
    found = bench.results()
    show(console, found)
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    asked.out.write_text(json.dumps([asdict(result) for result in found], indent=1) + "\n")
    asked.out.with_suffix(".html").write_text(page(found, bench.said))
    console.print(f"Wrote {asked.out} and {asked.out.with_suffix('.html').name}", soft_wrap=True)
    return 0 if bench.complete else 1


def _can_tls(bench: Bench) -> bool:
    try:
        h2load.library()
    except (OSError, subprocess.CalledProcessError):
        bench.say("TLS is not measured, for there is no C compiler (cc), with which h2load gets a client certificate.")
        return False
    return True


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    add = parser.add_argument
    add("--seconds", type=float, default=3.0, help="of one measurement, at least (3)")
    add("--rounds", type=int, default=3, help="through everything; medians are kept (3)")
    add("--concurrency", type=int, nargs="+", default=CONCURRENCY, help="requests of one row at once (1 8 32)")
    add("--only", type=_names(SERVERS), default=SERVERS, help=f"some of {','.join(SERVERS)}")
    add("--models", type=_names(tuple(NETWORKS)), default=tuple(NETWORKS), help=f"some of {','.join(NETWORKS)}")
    add("--quick", action="store_true", help="one short round, to see that it works; its figures mean little")
    add("--settings", default="", help="more of the appliance's configuration, as TOML")
    add(
        "--out", type=Path, default=servers.BUILD / "bench.json", help="the result (build/bench.json); a page goes beside it"
    )
    return parser.parse_args()


def _names(known: Sequence[str]) -> Callable[[str], list[str]]:
    def names(text: str) -> list[str]:
        wanted = text.split(",")
        if unknown := set(wanted) - set(known):
            raise argparse.ArgumentTypeError(f"{', '.join(sorted(unknown))} is not among {', '.join(known)}")
        return [name for name in known if name in wanted]

    return names


if __name__ == "__main__":
    sys.exit(main())
