"""One round of a closed loop: how many rows a second, and how long a request took."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

LOOPS_MIN = 4  # every outstanding request is asked again so many times, however long that takes


@dataclass(frozen=True, slots=True)
class Round:
    ips: float
    p50_ms: float
    p99_ms: float

    @classmethod
    def of(cls, requests: Sequence[tuple[float, float]], rows: int, window: tuple[float, float]) -> "Round":
        """From when each request was asked and answered, in seconds, by callers who asked before, throughout and after.

        A request that an edge of the window cuts counts for the part of it that lies inside: whole batches end at once,
        and counting whole answers would make a short window a lottery.
        """
        begin, end = window
        inside = sum(
            (min(after, end) - max(before, begin)) / (after - before)
            for before, after in requests
            if begin < after and before < end
        )
        took = sorted(after - before for before, after in requests if begin < after <= end) or [end - begin]
        return cls(inside * rows / (end - begin), took[len(took) // 2] * 1e3, took[len(took) * 99 // 100] * 1e3)


def middle(rounds: Sequence[Round]) -> Round:
    """The median of each figure."""
    return Round(*(median(getattr(each, name) for each in rounds) for name in Round.__slots__))


@dataclass(frozen=True)
class Worker:
    """A process that measures what it is told to: one JSON line asks, one JSON line answers."""

    process: "subprocess.Popen[str]"

    def ask(self, **what: Any) -> Round:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(what) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise RuntimeError(f"{self.process.args!r} ended with {self.process.wait()}")
        return Round(**json.loads(answer))


@contextmanager
def worker(module: str, *arguments: str) -> Iterator[Worker]:
    """Starts a measuring process; it ends with the block."""
    command = [sys.executable, "-m", module, *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Worker(process)
        finally:
            process.terminate()


def answer_each(measure: Callable[..., Round]) -> None:
    """The other side of ``Worker.ask``: answers until stdin ends."""
    for line in sys.stdin:
        sys.stdout.write(json.dumps(asdict(measure(**json.loads(line)))) + "\n")
        sys.stdout.flush()
