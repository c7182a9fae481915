"""How much one caller may ask for: a token bucket of rows, and the rows they have under way. Pure: time is an argument.

The bucket is the generic cell rate algorithm (ITU-T I.371, Annex A): one number, the time at which it would be full again.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic

from appliance.errors import CallerTooFast, CallerTooMany


@dataclass(frozen=True, slots=True)
class Allowance:
    """What a caller may ask for: ``rows_per_s_max`` on the whole, and ``rows_at_once_max`` at once or in one burst."""

    rows_per_s_max: int
    rows_at_once_max: int


class Admission:
    """Use from one event loop. Callers are those of the configuration's rules, so there are never many."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._full_at: dict[str, float] = {}
        self._under_way: Counter[str] = Counter()

    def admit(self, caller: str, allowance: Allowance, rows: int) -> "_Admitted":
        """Counts some rows as under way, until the end of a ``with`` block.

        Raises:
            CallerTooMany: with these, too many would be. Nothing is taken from the bucket.
            CallerTooFast: the bucket does not hold as many now.
        """
        if self._under_way[caller] + rows > allowance.rows_at_once_max:
            raise CallerTooMany(f"You have more than {allowance.rows_at_once_max} rows under way; wait for some of them.")
        now, cost = self._clock(), rows / allowance.rows_per_s_max
        full_at = max(now, self._full_at.get(caller, 0.0)) + cost
        wait_s = full_at - now - allowance.rows_at_once_max / allowance.rows_per_s_max
        if wait_s > 1e-9:
            raise CallerTooFast(f"You may ask for {allowance.rows_per_s_max} rows a second; slow down.", wait_s)
        self._full_at[caller] = full_at
        self._under_way[caller] += rows
        return _Admitted(self._under_way, caller, rows)


@dataclass(frozen=True, eq=False, slots=True)
class _Admitted:
    under_way: Counter[str]
    caller: str
    rows: int

    def __enter__(self) -> None:
        pass

    def __exit__(self, *error: object) -> None:
        self.under_way[self.caller] -= self.rows
