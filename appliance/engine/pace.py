"""How long a batch takes here: measured when the model was loaded, and corrected by every batch that is run.

A request whose deadline cannot be met is refused before it waits. Under load those that are let in are the ones that can
just be answered, so what is expected must be what really passes, with all that keeps the machine busy beside the batches:
a little too short, and everybody's answer comes a little too late.
"""

from collections.abc import Mapping

CORRECTION = 0.1  # the weight of the newest batch
DOUBT = 0.02  # what a refusal on an idle machine takes off: else one bad moment could refuse everybody for ever


def bucket(rows: int, rows_max: int) -> int:
    """The batch size that ``rows`` count as, and are padded to on CUDA: the next power of two, at most ``rows_max``."""
    return min(1 << (rows - 1).bit_length(), rows_max)


def buckets(rows_max: int) -> list[int]:
    """Every such size, ascending."""
    return sorted({bucket(rows, rows_max) for rows in (*(1 << i for i in range(rows_max.bit_length())), rows_max)})


class Pace:
    """Seconds for each bucket, of ``workers`` batches at once. ``seconds`` may be empty: then nothing is refused for it.

    ``rest_s`` are the seconds from the end of a batch until its answers leave.
    """

    def __init__(self, seconds: Mapping[int, float], rows_max: int, workers: int) -> None:
        self._seconds, self._rows_max, self._workers = dict(seconds), rows_max, max(1, workers)
        self.rest_s = 0.0

    def observe(self, rows: int, seconds: float) -> None:
        """Corrects the expectation by a batch that was run, and its seconds since it could have begun."""
        size = bucket(rows, self._rows_max)
        known = self._seconds.get(size, seconds)
        self._seconds[size] = known + CORRECTION * (seconds - known)

    def observe_rest(self, seconds: float) -> None:
        """Corrects the expectation by an answer that leaves."""
        self.rest_s += CORRECTION * (seconds - self.rest_s)

    def doubt(self) -> None:
        """Hears that a request was refused for what is expected, though nothing was ahead of it."""
        self.rest_s *= 1 - DOUBT
        for size in self._seconds:
            self._seconds[size] *= 1 - DOUBT

    def run_s(self, rows: int) -> float:
        """The expected seconds of one batch, of at most ``rows_max`` rows."""
        return self._seconds.get(bucket(min(rows, self._rows_max), self._rows_max), 0.0)

    def until_run_s(self, rows: int) -> float:
        """The expected seconds until so many rows that wait have been run, the batches full but for the last."""
        full, rest = divmod(rows, self._rows_max)
        rounds, beside = divmod(full, self._workers)
        busy = rounds * self.run_s(self._rows_max)
        last = max(self.run_s(self._rows_max) if beside else 0.0, self.run_s(rest) if rest else 0.0)
        return busy + last
