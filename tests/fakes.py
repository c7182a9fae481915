"""Fakes that can be read, on strings that the test pulls: a runner, a disk's sync, and a clock."""

import asyncio
import threading
import time

import numpy as np

from appliance.engine.batcher import Outputs
from appliance.model.inputs import Images, Rows
from tests import forge

STRING_S_MAX = 20  # a test that hangs fails instead


class Gate:
    """Where a thread waits until the test lets it through."""

    def __init__(self) -> None:
        self._entered, self._free = threading.Semaphore(0), threading.Semaphore(0)
        self._held = True

    def hold(self) -> None:
        """Called by the thread."""
        self._entered.release()
        if self._held:
            assert self._free.acquire(timeout=STRING_S_MAX), "the test never pulled the string"

    async def entered(self) -> None:
        """Returns when one more thread has come to the gate."""
        assert await asyncio.to_thread(self._entered.acquire, timeout=STRING_S_MAX), "nobody came to the gate"

    def pull(self) -> None:
        """Lets one thread through."""
        self._free.release()

    def open(self) -> None:
        """Lets everyone through, from now on and for good."""
        self._held = False
        self._free.release(1000)


class PuppetRunner:
    """The forged model, computed when the test pulls the string. ``batches`` are what it was given, in order."""

    def __init__(self, *, held: bool = True) -> None:
        self.gate, self.batches = Gate(), list[Images]()
        self.error: Exception | None = None
        self.crashed, self.dead, self.rows_lost = list[Images](), False, 0
        if not held:
            self.gate.open()

    def run(self, rows: Rows) -> Outputs:
        images = rows[0].copy()
        self.batches.append(images)
        self.gate.hold()
        if self.error is not None:
            error, self.error = self.error, None
            self.crashed.append(images)
            raise error
        return Outputs(forge.logits(images), None).rows(0, len(images) - self.rows_lost)

    def probe(self) -> None:
        if self.dead:
            raise RuntimeError("nothing works any more")


class PuppetSync:
    """``fdatasync`` that ends when the test pulls the string, and fails where the test says so."""

    def __init__(self, *, held: bool = True) -> None:
        self.gate, self.calls = Gate(), 0
        self.error: OSError | None = None
        if not held:
            self.gate.open()

    def __call__(self, fd: int) -> None:
        self.calls += 1
        self.gate.hold()
        if self.error is not None:
            raise self.error


_skew_s = [0.0]


def clock() -> float:
    """A clock that the test can put forward."""
    return time.monotonic() + _skew_s[0]


def put_forward(seconds: float) -> None:
    """Lets time pass at once."""
    _skew_s[0] += seconds


async def turn(times: int = 1) -> None:
    """Gives every task that can run its turn."""
    for _ in range(times):
        await asyncio.sleep(0)


def numbered(number: int, rows: int) -> Images:
    """Rows that no other number has; ``number_of`` reads it back."""
    images = np.random.default_rng(number).integers(0, 256, (rows, forge.SIDE, forge.SIDE, 1), np.uint8)
    images[:, 0, :4, 0] = np.frombuffer(number.to_bytes(4, "big"), np.uint8)
    return images


def number_of(row: Images) -> int:
    return int.from_bytes(row[0, :4, 0].tobytes(), "big")
