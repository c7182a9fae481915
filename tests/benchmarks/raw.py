"""ONNX Runtime alone: the same graph, opened by the same code, with nothing in front of it."""

from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from time import perf_counter

import numpy as np

from tests.benchmarks import models
from tests.benchmarks.models import Made
from tests.benchmarks.rounds import Round, answer_each


class Raw:
    """Two ways to use a session for N callers; the caller of this process keeps the better one."""

    def __init__(self) -> None:
        self._made = {network.name: models.make(network) for network in models.NETWORKS}
        self._sessions = {name: made.session() for name, made in self._made.items()}

    def measure(self, model: str, callers: int, rows: int, warm_s: float, seconds: float) -> Round:
        """``callers`` threads, each running ``rows`` rows again and again."""
        session, images = self._sessions[model], _rows(self._made[model], rows)

        begin = perf_counter() + warm_s
        end = begin + seconds

        def loop(_: int) -> list[tuple[float, float]]:
            requests, now = [], perf_counter()
            while now < end:
                before = now
                session.run((images,))
                now = perf_counter()
                requests.append((before, now))
            return requests

        with ThreadPoolExecutor(callers) as pool:
            return Round.of(list(chain(*pool.map(loop, range(callers)))), rows, (begin, end))


def _rows(made: Made, rows: int) -> np.ndarray:
    return np.ascontiguousarray(np.resize(made.images, (rows, *made.images.shape[1:])))


if __name__ == "__main__":
    answer_each(Raw().measure)
