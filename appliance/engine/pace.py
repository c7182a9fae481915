"""How long a batch takes here: measured when the model was loaded, and corrected by every batch that is run.

A request whose deadline cannot be met is refused before it waits. What is expected is rather too short than too long: a
request that might still be answered is let in.
"""

from collections.abc import Mapping

CORRECTION = 0.1  # the weight of the newest batch


def bucket(rows: int, rows_max: int) -> int:
    """The batch size that ``rows`` count as, and are padded to on CUDA: the next power of two, at most ``rows_max``."""
    return min(1 << (rows - 1).bit_length(), rows_max)


def buckets(rows_max: int) -> list[int]:
    """Every such size, ascending."""
    return sorted({bucket(rows, rows_max) for rows in (*(1 << i for i in range(rows_max.bit_length())), rows_max)})


class Pace:
    """Seconds for each bucket, of ``workers`` batches at once. ``seconds`` may be empty: then nothing is refused for it."""

    def __init__(self, seconds: Mapping[int, float], rows_max: int, workers: int) -> None:
        self._seconds, self._rows_max, self._workers = dict(seconds), rows_max, max(1, workers)

    def observe(self, rows: int, seconds: float) -> None:
        """Corrects the expectation by a batch that was run."""
        size = bucket(rows, self._rows_max)
        known = self._seconds.get(size, seconds)
        self._seconds[size] = known + CORRECTION * (seconds - known)

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
