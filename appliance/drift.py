"""Whether a model decides as often as in its validation: a window of its last rows, compared with what the vendor signed.

Two shares are watched, that of rows it abstains on and that of rows it takes for unknown, for more and for less than
expected: fewer abstentions than plausible are a change of the inputs too. No clock, no thread: rows are counted as they are
decided, and whoever asks (``look``) gets what is on.

The rules:

- **The test.** Newcombe's hybrid score interval of the difference between two proportions, those of validation and of the
  window (Statistics in Medicine 17, 1998, p. 873, method 10), so that a small validation is believed as little as it tells.
  The rows of one call are images of one patient more often than not, so the window counts for as many rows as its calls
  differ like (Rao and Scott, Biometrics 48, 1992, p. 577). Where fewer than expected were seen there is little to tell that
  from, and the rows of a call are taken for one and the same.
- **The chance of a false alarm.** An alarm begins when the interval at ``BEGINS_Z`` standard errors leaves out no
  difference: for one look at each share, 6 in 100,000. It ends when the one at ``ENDS_Z`` has it again, so that a share that
  stands at the edge does not flap.
- **Silence.** Nothing is said before there are ``ROWS_MIN`` rows of ``CALLS_MIN`` calls. Each version begins anew.

Weak spots, to be known when an alarm is read. Calls that come one after another from one patient or ward are still counted
as strangers to each other. A threshold that was chosen on the very cases that ``expected`` counts makes them look a little
better than new ones. And a change that leaves both shares where they were is not seen at all.
"""

from collections import deque
from dataclasses import dataclass
from math import hypot, sqrt

from appliance.bundle.manifest import Expected

WINDOW_ROWS = 1000
ROWS_MIN, CALLS_MIN = 200, 100
BEGINS_Z, ENDS_Z = 4.0, 2.0


@dataclass(frozen=True, slots=True)
class Share:
    """How often one kind of decision was made: in validation, and in the window's ``rows``."""

    expected: float
    seen: float
    rows: int


class Drift:
    """The last rows of one version, and which of its two alarms are on. Use from one event loop."""

    def __init__(self, expected: Expected) -> None:
        self._expected = expected
        self._calls: deque[tuple[int, int, int]] = deque()  # rows, abstained, unknown
        self._rows = self._abstained = self._unknown = 0  # of all calls in the window
        self._on = (False, False)

    def count(self, rows: int, abstained: int, unknown: int) -> None:
        """One call was decided. Whole calls leave the window, as long as it keeps enough rows and calls without them."""
        calls = self._calls
        calls.append((rows, abstained, unknown))
        self._rows += rows
        self._abstained += abstained
        self._unknown += unknown
        while len(calls) > CALLS_MIN and self._rows - calls[0][0] >= WINDOW_ROWS:
            rows, abstained, unknown = calls.popleft()
            self._rows -= rows
            self._abstained -= abstained
            self._unknown -= unknown

    @property
    def abstained(self) -> Share:
        return self._share(self._expected.abstained, self._abstained)

    @property
    def unknown(self) -> Share:
        return self._share(self._expected.unknown, self._unknown)

    def look(self) -> tuple[bool, bool]:
        """Whether the share of abstentions, and that of unknown inputs, is other than validation makes plausible."""
        if self._rows < ROWS_MIN or len(self._calls) < CALLS_MIN:
            return False, False
        abstains, knows_not = self._on
        self._on = (self._is_off(1, self.abstained, abstains), self._is_off(2, self.unknown, knows_not))
        return self._on

    def _share(self, expected: int, seen: int) -> Share:
        return Share(expected / self._expected.cases, seen / self._rows if self._rows else 0.0, self._rows)

    def _is_off(self, column: int, share: Share, was: bool) -> bool:
        size = share.rows / self._design_effect(column, share)
        low, high = interval(share.seen, size, share.expected, self._expected.cases, ENDS_Z if was else BEGINS_Z)
        return not low <= 0 <= high

    def _design_effect(self, column: int, share: Share) -> float:
        """By how much more the calls differ than those of single strangers would (Rao and Scott, section 2); 1 or more."""
        calls, seen = len(self._calls), share.seen
        if seen <= share.expected or seen == 1:
            return sum(call[0] ** 2 for call in self._calls) / self._rows
        spread = sum((call[column] - seen * call[0]) ** 2 for call in self._calls) * calls / (calls - 1)
        return max(1.0, spread / (self._rows * seen * (1 - seen)))


def interval(one: float, one_size: float, other: float, other_size: float, z: float) -> tuple[float, float]:
    """Newcombe's interval of the difference of two proportions, each of a sample of its own."""
    (one_low, one_high), (other_low, other_high) = score_interval(one, one_size, z), score_interval(other, other_size, z)
    return one - other - hypot(one - one_low, other_high - other), one - other + hypot(one_high - one, other - other_low)


def score_interval(share: float, size: float, z: float) -> tuple[float, float]:
    """Wilson's interval of a proportion (Journal of the American Statistical Association 22, 1927, p. 209)."""
    middle, weight = share + z * z / (2 * size), 1 + z * z / size
    half = z * sqrt(share * (1 - share) / size + z * z / (4 * size * size))
    return max(0.0, (middle - half) / weight), min(1.0, (middle + half) / weight)
