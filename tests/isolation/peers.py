"""The same attacks on the appliance and on MLServer 1.7.1, side by side. Run by ``python -m tests.isolation.peers``.

Each attack has a fresh MLServer, since an earlier one may have left it hanging; the appliance takes them all in one life.
MLServer batches adaptively, as its documentation advises for throughput: 16 requests, 5 ms.
"""

import argparse
import json
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.isolation import mlserver
from tests.isolation.attacks import ATTACKS, Model, Server, Tally, besiege
from tests.isolation.besieged import ONE, OTHER, TWO, besieged

OUT = mlserver.ROOT / "build" / "isolation.json"
SEED = 7
VERDICTS = ("right", "wrong", "lost", "duplicated", "failed", "never")
THEIR_ONE, THEIR_OTHER = Model("forged", "", 1), Model("other", "", 10)


@dataclass(frozen=True, slots=True)
class Point:
    """One attack, and the models that the valid callers ask, ours and theirs; theirs may be none."""

    title: str
    attack: str
    ours: tuple[Model, ...] = (ONE,)
    theirs: tuple[Model, ...] = (THEIR_ONE,)


POINTS = [
    *(Point(name, name) for name in ATTACKS),
    Point("two models at once", "nobody hostile", (ONE, OTHER), (THEIR_ONE, THEIR_OTHER)),
    Point("two models, all at once", "all at once", (ONE, OTHER), (THEIR_ONE, THEIR_OTHER)),
    Point("two versions at once", "nobody hostile", (ONE, TWO), ()),
    Point("two versions, all at once", "all at once", (ONE, TWO), ()),
]


def cells(tally: Tally | None) -> list[str]:
    if tally is None:
        return ["–"] * (1 + len(VERDICTS))
    return [str(tally.sent), *(str(tally.verdicts[verdict] or "") for verdict in VERDICTS)]


def show(console: Console, found: dict[Point, tuple[Tally, Tally | None]]) -> None:
    table = Table(title="What became of valid callers: the appliance | MLServer 1.7.1")
    table.add_column("their neighbours")
    for server in ("ours", "theirs"):
        for column in ("sent", *VERDICTS):
            table.add_column(f"{column}\n{server}", justify="right")
    for point, (ours, theirs) in found.items():
        table.add_row(point.title, *cells(ours), *cells(theirs))
    totals = [total([ours for ours, _ in found.values()]), total([theirs for _, theirs in found.values() if theirs])]
    table.add_section()
    table.add_row("all of it", *(cell for tally in totals for cell in cells(tally)))
    console.print(table)


def total(tallies: list[Tally]) -> Tally:
    made = Tally()
    for tally in tallies:
        made.verdicts.update(tally.verdicts)
        made.hostile.update(tally.hostile)
    return made


def said(name: str, tally: Tally) -> str:
    """For one server: which rows were wrong, lost or given twice."""
    bad = ", ".join(f"{tally.verdicts[verdict]} {verdict}" for verdict in ("wrong", "lost", "duplicated"))
    silent = f"{tally.verdicts['failed']} failed, {tally.verdicts['never']} never answered"
    return f"{name}: of {tally.sent} valid calls {bad}; {silent}; {tally.hostile.total()} hostile calls beside them."


def as_json(tally: Tally | None) -> object:
    return tally and {"sent": tally.sent, **tally.verdicts, "hostile": dict(tally.hostile), "findings": tally.findings[:3]}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.isolation.peers", description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0, help="of one attack on one server (5), at most 20")
    parser.add_argument("--seed", type=int, default=SEED, help="of the interleavings, as far as a network has one (7)")
    parser.add_argument("--only", nargs="+", help="the titles of some attacks")
    parser.add_argument("--out", type=Path, default=OUT, help="the result, JSON (build/isolation.json)")
    asked = parser.parse_args()
    seconds, console = min(20.0, asked.seconds), Console(width=160, highlight=False)
    points = [point for point in POINTS if not asked.only or point.title in asked.only]
    python = mlserver.interpreter()
    if python is None:
        console.print("MLServer cannot be installed here: no package index within reach. Only our own column follows.")
    found: dict[Point, tuple[Tally, Tally | None]] = {}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        ours = stack.enter_context(besieged(folder))
        for number, point in enumerate(points):
            attack: Callable[[Server], Tally] = lambda server, name=point.attack: besiege(  # noqa: E731
                server, name, seconds=seconds, seed=asked.seed
            )
            our = attack(Server(f"127.0.0.1:{ours.plaintext_port}", point.ours))
            their = None
            if python is not None and point.theirs:
                (place := folder / f"mlserver-{number}").mkdir()
                with mlserver.serving(python, place, point.theirs) as server:
                    their = attack(server)
            found[point] = (our, their)
            for name, tally in (("appliance", our), ("MLServer", their)):
                if tally is not None:
                    console.print(f"{point.title:30} {said(name, tally)} {' '.join(tally.findings[:1])}", soft_wrap=True)
    show(console, found)
    console.print(said("The appliance", total([our for our, _ in found.values()])))
    if python is not None:
        console.print(said("MLServer 1.7.1", total([their for _, their in found.values() if their])))
    console.print("The appliance's audit log is whole, and it ended with exit code 0.")
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    table = {point.title: {"appliance": as_json(our), "mlserver": as_json(their)} for point, (our, their) in found.items()}
    asked.out.write_text(json.dumps(table, indent=1) + "\n")
    if total([our for our, _ in found.values()]).faults():
        raise SystemExit(1)


if __name__ == "__main__":
    main()
