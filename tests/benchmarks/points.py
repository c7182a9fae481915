"""What is compared, and what becomes of the figures. No I/O."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

from tests.benchmarks.rounds import Round, middle

SERVERS = ("raw", "appliance", "mlserver", "kserve", "pytriton")
CONCURRENCY = (1, 8, 32)
BATCH_ROWS, BATCHES_AT_ONCE = 32, 4
FREE_AT_ONCE = 8
NEAR_BEST = 0.9  # a way to use ONNX Runtime that does worse than this part of the best is not tried again


@dataclass(frozen=True, slots=True)
class Work:
    """What callers want of a server: ``concurrency`` requests at once of ``rows`` rows each."""

    model: str
    rows: int
    concurrency: int


@dataclass(frozen=True, slots=True)
class Point:
    """A server at work. ``audit`` and ``tls`` are what it does besides; of the servers here only the appliance can."""

    server: str
    work: Work
    audit: bool = False
    tls: bool = False


@dataclass(frozen=True, slots=True)
class Way:
    """A way to use ONNX Runtime alone: ``callers`` threads, each with ``rows`` rows, spread over so many sessions."""

    sessions: int
    threads: int
    spinning: bool
    callers: int
    rows: int


@dataclass(frozen=True, slots=True)
class Result:
    """A line of ``bench.json``. ``concurrency`` counts requests; ``ips`` are rows a second."""

    server: str
    model: str
    rows: int
    concurrency: int
    ips: float
    p50_ms: float
    p99_ms: float
    ratio_to_raw: float | None
    audit: bool
    tls: bool


def works(models: Sequence[str], concurrency: Sequence[int]) -> Iterator[Work]:
    for model in models:
        if model.startswith("free"):
            yield Work(model, 1, FREE_AT_ONCE)
            continue
        for at_once in concurrency:
            yield Work(model, 1, at_once)
        if model == "resnet18":
            yield Work(model, BATCH_ROWS, BATCHES_AT_ONCE)


def points(server: str, work: Work, *, with_tls: bool) -> list[Point]:
    if server != "appliance":
        return [Point(server, work)]
    return [Point(server, work, audit, tls) for tls in (True, False)[not with_tls :] for audit in (True, False)]


def ways(work: Work, rows_max: int, cores: int) -> list[Way]:
    """How somebody who knows ONNX Runtime would serve as many outstanding rows without any server."""
    found = []
    for sessions, threads, spinning in ((1, cores, False), (1, cores, True), (cores, 1, False)):
        batch = min(rows_max, -(-work.rows * work.concurrency // sessions))
        if not spinning:  # as the requests come
            found.append(Way(sessions, threads, spinning, work.concurrency, work.rows))
        if batch > work.rows or spinning:  # joined to as large a batch for each session as there can be
            found.append(Way(sessions, threads, spinning, sessions, batch))
    return list(dict.fromkeys(found))


def still_tried(rounds: Mapping[Way, Sequence[Round]]) -> list[Way]:
    """The ways that may still turn out to be the best. Whoever has not been tried may."""
    best = max((middle(done).ips for done in rounds.values() if done), default=0.0)
    return [way for way, done in rounds.items() if not done or middle(done).ips >= NEAR_BEST * best]


def best(rounds: Mapping[Way, Sequence[Round]]) -> Round:
    return max((middle(done) for done in rounds.values() if done), key=lambda figures: figures.ips)


def results(medians: Mapping[Point, Round]) -> list[Result]:
    raw = {point.work: figures.ips for point, figures in medians.items() if point.server == "raw"}
    return [
        Result(
            server=point.server,
            **asdict(point.work),
            ips=round(figures.ips, 1),
            p50_ms=round(figures.p50_ms, 3),
            p99_ms=round(figures.p99_ms, 3),
            ratio_to_raw=round(figures.ips / raw[point.work], 4) if point.work in raw else None,
            audit=point.audit,
            tls=point.tls,
        )
        for point, figures in medians.items()
    ]
