"""Runs what waits, together: threads around the queue, callers in an event loop in front of it.

Work-conserving and without a timer: a batch is what has queued when a worker becomes free. A worker takes its next batch
itself, so a session never waits for the event loop. Each caller's rows come back by their slot in the batch, into a job
that only this caller holds, so a neighbour who gives up touches nobody.

A model so quick that handing it to a thread takes longer than running it has no worker and runs in the event loop. There a
call is cheap, and a batch with the commit of its records is not; so a batch waits while other calls are under way that may
join it, up to ``COMPANY_S``. A lone caller never waits.
"""

import asyncio
import logging
import os
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from appliance.engine.pace import Pace
from appliance.engine.queue import Piece, Priority, Queue, Ticket
from appliance.errors import DeadlinePassed, InferenceFailed, NotReady
from appliance.model.inputs import Rows

COMPANY_S = 0.001
# Where cores are scarce the event loop goes first: it refuses what is too much, and answers what has been run.
WORKER_NICENESS = 5

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False, slots=True)
class Outputs:
    """What a graph said of N rows: logits float32 ``[N, classes]``, embedding float32 ``[N, width]`` where it has one."""

    logits: NDArray[np.float32]
    embedding: NDArray[np.float32] | None

    def rows(self, start: int, stop: int) -> "Outputs":
        embedding = None if self.embedding is None else self.embedding[start:stop]
        return Outputs(self.logits[start:stop], embedding)

    @classmethod
    def join(cls, pieces: Sequence["Outputs"]) -> "Outputs":
        if len(pieces) == 1:
            return pieces[0]
        embeddings = [piece.embedding for piece in pieces if piece.embedding is not None]
        return cls(np.concatenate([piece.logits for piece in pieces]), np.concatenate(embeddings) if embeddings else None)


class Runner(Protocol):
    """A graph that can be run from a thread, perhaps from several at once. Both methods block."""

    def run(self, rows: Rows) -> Outputs:
        """Runs 1 to ``rows_max`` rows."""

    def probe(self) -> None:
        """Runs something that is known to work. Raises where nothing works any more."""


@dataclass(frozen=True, eq=False, slots=True)
class Ran:
    """A caller's own rows, the seconds they waited and ran, and when that ended."""

    outputs: Outputs
    queue_s: float
    run_s: float
    ended: float


@dataclass(frozen=True, eq=False, slots=True)
class _Done:
    """One piece of a job that was run: its place, its rows and when."""

    start: int
    outputs: Outputs
    started: float
    ended: float


@dataclass(eq=False, slots=True)
class _Job:
    rows: Rows
    future: "asyncio.Future[Ran]"
    arrived: float
    done: list[_Done] = field(default_factory=list)

    def settle(self, result: _Done | Exception) -> None:
        """Takes what became of a piece. Called in the event loop alone: two workers may run two pieces at once."""
        if self.future.done():  # its caller gave up, or another piece failed
            return
        if isinstance(result, Exception):
            self.future.set_exception(result)
            return
        self.done.append(result)
        if sum(len(piece.outputs.logits) for piece in self.done) < len(self.rows[0]):
            return
        self.done.sort(key=lambda piece: piece.start)
        started, ended = min(piece.started for piece in self.done), max(piece.ended for piece in self.done)
        outputs = Outputs.join([piece.outputs for piece in self.done])
        self.future.set_result(Ran(outputs, started - self.arrived, ended - started, ended))


@dataclass(eq=False, slots=True)
class Tally:
    """What was run, for a protocol that asks: batches of each size, and the nanoseconds they took."""

    batches: dict[int, int] = field(default_factory=dict)
    nanoseconds: dict[int, int] = field(default_factory=dict)

    def count(self, rows: int, seconds: float) -> None:
        self.batches[rows] = self.batches.get(rows, 0) + 1
        self.nanoseconds[rows] = self.nanoseconds.get(rows, 0) + round(seconds * 1e9)


class Batcher:
    """The batches of one model. Start it inside a running event loop.

    ``slots`` makes one worker's buffers, an array for each input, a batch long; ``workers`` 0 means the event loop itself.
    ``on_batch`` hears of each batch's rows, and ``on_broken`` when the runner fails at what it is known to do: after certain
    errors of a GPU nothing works in this process. Both are called where the batch was run. ``calls`` are the model's calls
    under way, on their way here or already answered and waiting for their record; whoever serves them counts them.
    """

    def __init__(
        self,
        runner: Runner,
        queue: "Queue[_Job]",
        pace: Pace,
        slots: Callable[[], Rows],
        *,
        workers: int,
        name: str = "model",
        clock: Callable[[], float] = monotonic,
        on_batch: Callable[[int], None] = lambda rows: None,
        on_broken: Callable[[], None] = lambda: None,
    ) -> None:
        self._runner, self._queue, self._pace, self._clock = runner, queue, pace, clock
        self._on_batch, self._on_broken, self._loop = on_batch, on_broken, asyncio.get_running_loop()
        self._wake = threading.Condition()
        self._closed, self.broken, self.calls = False, False, 0
        self._slots = () if workers else slots()  # the event loop's
        self._gathering, self._gather_until = False, 0.0
        self.tally = Tally()
        self._threads = [
            threading.Thread(target=self._work, args=(slots(),), name=f"run-{name}-{i}", daemon=True) for i in range(workers)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def queue_rows(self) -> int:
        return self._queue.rows

    @property
    def queue_bytes(self) -> int:
        return self._queue.bytes

    def require_room(self, rows: int, deadline: float | None, priority: Priority) -> None:
        """Refuses at the door what ``submit`` would refuse, before any work has gone into it. Raises what it does."""
        with self._wake:
            self._require_open()
            self._queue.require_room(rows, 0, deadline, priority, self._clock())

    async def submit(self, rows: Rows, deadline: float | None, priority: Priority = Priority.ROUTINE) -> Ran:
        """Runs some rows; more than a batch holds are run in several. ``deadline`` is a time of the batcher's clock.

        Raises:
            QueueFull, DeadlinePassed, DeadlineUnreachable, InferenceFailed, NotReady
        """
        now = self._clock()
        job = _Job(rows, self._loop.create_future(), now)
        ticket = Ticket(len(rows[0]), sum([array.nbytes for array in rows]), deadline, job, priority)
        with self._wake:
            self._require_open()
            self._queue.admit(ticket, now)
            self._wake.notify()
        if not self._threads and not self._gathering:
            self._gather_company()
        try:
            return await job.future
        except BaseException:  # its caller gave up, or a piece of it failed: what still waits leaves
            with self._wake:
                self._queue.cancel(ticket)
            raise

    def _require_open(self) -> None:
        if self._closed or self.broken:
            raise NotReady("The model has stopped.")

    def answered(self, ran: Ran) -> None:
        """Hears that an answer leaves."""
        self._pace.observe_rest(self._clock() - ran.ended)

    async def drain(self) -> None:
        """Answers what was accepted, and ends."""
        with self._wake:
            self._closed = True
            self._wake.notify_all()
        for thread in self._threads:
            await asyncio.to_thread(thread.join)
        while not self._threads and (batch := self._take()):
            self._run(batch, self._slots, None)

    # --- in the event loop, where there is no worker -------------------------------------------------------------------

    def _gather_company(self) -> None:
        self._gathering, self._gather_until = True, self._clock() + COMPANY_S
        self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        """Runs a batch; until then, comes back after each turn of the loop to see whether another call has joined it."""
        more = 0 < len(self._queue) < self.calls and self._queue.rows < len(self._slots[0])
        if more and self._clock() < self._gather_until:
            self._loop.call_soon(self._turn)
            return
        self._gathering = False
        if batch := self._take():
            self._run(batch, self._slots, None)
        if len(self._queue):
            self._gather_company()

    # --- a worker's thread ---------------------------------------------------------------------------------------------

    def _work(self, slots: Rows) -> None:
        with suppress(OSError):  # of this thread alone; never less than the process has
            os.setpriority(
                os.PRIO_PROCESS, threading.get_native_id(), max(WORKER_NICENESS, os.getpriority(os.PRIO_PROCESS, 0))
            )
        since = None
        while True:
            batch, waited = self._next()
            if batch is None:
                return
            since = self._run(batch, slots, None if waited else since)

    def _next(self) -> "tuple[list[Piece[_Job]] | None, bool]":
        """The next batch, when there is one, and whether it had to be waited for; None at the end."""
        waited = False
        with self._wake:
            while True:
                if batch := self._take():
                    return batch, waited
                if self._closed or self.broken:
                    return None, waited
                self._wake.wait()
                waited = True

    # --- in either -----------------------------------------------------------------------------------------------------

    def _take(self) -> "list[Piece[_Job]]":
        batch, late = self._queue.take(self._clock())
        if late:
            error = DeadlinePassed("The deadline passed while the request waited.")
            self._settle([(ticket.content, error) for ticket in late])
        return batch

    def _run(self, batch: "list[Piece[_Job]]", slots: Rows, since: float | None) -> float | None:
        """Runs a batch that, had nothing else kept us, began at ``since``. When the next one could begin, if any waits."""
        started = self._clock()
        jobs = [piece.ticket.content for piece in batch]
        try:
            batched = _rows_of(batch, slots)
            outputs = self._runner.run(batched)
            if len(outputs.logits) != len(batched[0]):  # else a caller's slot would hold another's rows
                raise RuntimeError("the graph did not answer row for row")
        except Exception:  # whatever the runtime raised, these callers are told, and the next batch runs
            log.exception("a batch failed")
            self._settle([(job, InferenceFailed("The model could not be run on this request.")) for job in jobs])
            self._probe()
            return None
        finally:
            with self._wake:
                self._queue.done(batch)
        ended = self._clock()
        seconds = ended - started
        self._pace.observe(len(batched[0]), ended - (started if since is None else since))
        self.tally.count(len(batched[0]), seconds)
        self._on_batch(len(batched[0]))
        slot, done = 0, list[tuple[_Job, _Done]]()
        for piece, job in zip(batch, jobs, strict=True):
            rows = piece.stop - piece.start
            done.append((job, _Done(piece.start, outputs.rows(slot, slot + rows), started, ended)))
            slot += rows
        self._settle(done)
        return ended if len(self._queue) else None

    def _probe(self) -> None:
        try:
            self._runner.probe()
        except Exception:  # nothing works any more: nobody is to wait for it
            log.exception("the model cannot be run any more")
            with self._wake:
                self.broken = True
                waiting = self._queue.clear()
                self._wake.notify_all()
            self._settle([(ticket.content, NotReady("The model has stopped.")) for ticket in waiting])
            self._on_broken()

    def _settle(self, results: "Sequence[tuple[_Job, _Done | Exception]]") -> None:
        """Wakes callers, in their event loop, at once."""

        def settle() -> None:
            for job, result in results:
                job.settle(result)

        if not self._threads:
            settle()
            return
        with suppress(RuntimeError):  # the loop is gone: so are those who waited
            self._loop.call_soon_threadsafe(settle)


def _rows_of(batch: Sequence[Piece[Any]], slots: Rows) -> Rows:
    """The batch's rows: one piece as it lies, several copied straight into their slots."""
    if len(batch) == 1:
        piece = batch[0]
        return tuple(array[piece.start : piece.stop] for array in piece.ticket.content.rows)
    slot = 0
    for piece in batch:
        for buffer, array in zip(slots, piece.ticket.content.rows, strict=True):
            buffer[slot : slot + piece.stop - piece.start] = array[piece.start : piece.stop]
        slot += piece.stop - piece.start
    return tuple(buffer[:slot] for buffer in slots)
