"""ONNX Runtime alone, in a process of its own: nothing in front of it, and the best way to use it counts."""

from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import chain
from time import perf_counter

import onnxruntime as ort

from tests.benchmarks import models
from tests.benchmarks.models import INPUT, OUTPUT, Made
from tests.benchmarks.points import Way
from tests.benchmarks.rounds import LOOPS_MIN, Round, answer_each


def measure(model: str, way: dict[str, int], warm_s: float, seconds: float) -> Round:
    """Every caller runs its rows again and again."""
    used = Way(**way)  # type: ignore[arg-type]  # as JSON has it
    rows = _made(model).rows(used.rows)
    sessions = [_session(model, used.threads, used.spinning, number) for number in range(used.sessions)]
    for session in sessions:
        session.run([OUTPUT], {INPUT: rows})  # the first one takes longer
    began = perf_counter()
    sessions[0].run([OUTPUT], {INPUT: rows})
    seconds = max(seconds, LOOPS_MIN * used.callers / used.sessions * (perf_counter() - began))
    begin = perf_counter() + warm_s
    end = begin + seconds

    def loop(caller: int) -> list[tuple[float, float]]:
        session = sessions[caller % used.sessions]
        requests, now = [], perf_counter()
        while now < end:
            before = now
            session.run([OUTPUT], {INPUT: rows})
            now = perf_counter()
            requests.append((before, now))
        return requests

    with ThreadPoolExecutor(used.callers) as pool:
        return Round.of(list(chain(*pool.map(loop, range(used.callers)))), used.rows, (begin, end))


@cache
def _made(model: str) -> Made:
    return models.make(models.NETWORKS[model])


@cache
def _session(model: str, threads: int, spinning: bool, number: int) -> ort.InferenceSession:
    return _made(model).session(threads, spinning)


if __name__ == "__main__":
    answer_each(measure)
