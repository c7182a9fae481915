"""Runs what waits, together: the asyncio shell around the queue.

Work-conserving and without a timer: a batch is what has queued when a worker becomes free. Each caller's rows come back by
their slot in the batch, through a future that only this caller holds, so a neighbour who gives up touches nobody.
"""

import asyncio
import logging
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from appliance.engine.queue import Queue, Ticket
from appliance.errors import DeadlinePassed, InferenceFailed, NotReady
from appliance.model.inputs import Images

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False, slots=True)
class Outputs:
    """What a graph said of N rows: logits float32 ``[N, classes]``, embedding float32 ``[N, width]`` where it has one."""

    logits: NDArray[np.float32]
    embedding: NDArray[np.float32] | None

    def rows(self, start: int, stop: int) -> "Outputs":
        embedding = None if self.embedding is None else self.embedding[start:stop]
        return Outputs(self.logits[start:stop], embedding)


class Runner(Protocol):
    """Runs a graph on uint8 ``[N, height, width, channels]``. Blocks; called from a thread, perhaps from several at once."""

    def run(self, images: Images) -> Outputs: ...


@dataclass(frozen=True, eq=False, slots=True)
class Ran:
    """A caller's own rows, and the seconds they waited and ran."""

    outputs: Outputs
    queue_s: float
    run_s: float


@dataclass(eq=False, slots=True)
class _Job:
    images: Images
    future: "asyncio.Future[Ran]"
    arrived: float


class Batcher:
    """The batches of one model. Start it inside a running event loop."""

    def __init__(self, runner: Runner, queue: "Queue[_Job]", executor: Executor, *, rows_max: int, workers: int) -> None:
        self._runner, self._queue, self._executor, self._rows_max = runner, queue, executor, rows_max
        self._loop = asyncio.get_running_loop()
        self._closed = False
        self._wake = asyncio.Event()
        self._workers = [self._loop.create_task(self._work()) for _ in range(workers)]

    @property
    def queue_rows(self) -> int:
        return self._queue.rows

    @property
    def queue_bytes(self) -> int:
        return self._queue.bytes

    async def submit(self, images: Images, deadline: float | None) -> Ran:
        """Runs 1..rows_max rows. ``deadline`` is a time of the event loop's clock.

        Raises:
            Overloaded, DeadlinePassed, InferenceFailed, NotReady
        """
        if self._closed:
            raise NotReady("The appliance is stopping.")
        now = self._loop.time()
        job = _Job(images, self._loop.create_future(), now)
        ticket = Ticket(len(images), images.nbytes, deadline, job)
        self._queue.admit(ticket, now)
        self._wake.set()
        try:
            return await job.future
        finally:
            self._queue.cancel(ticket)

    async def drain(self) -> None:
        """Answers what was accepted, and ends, the executor too."""
        self._closed = True
        self._wake.set()
        await asyncio.gather(*self._workers)
        self._executor.shutdown(wait=False)

    async def _work(self) -> None:
        while True:
            batch, late = self._queue.take(self._rows_max, self._loop.time())
            for ticket in late:
                _settle(ticket.content.future, DeadlinePassed("The deadline passed while the request waited."))
            if batch:
                await self._run([ticket.content for ticket in batch])
            elif not late:
                if self._closed:
                    return
                self._wake.clear()
                await self._wake.wait()

    async def _run(self, jobs: Sequence[_Job]) -> None:
        started = self._loop.time()
        try:
            images = jobs[0].images if len(jobs) == 1 else np.concatenate([job.images for job in jobs])
            outputs = await self._loop.run_in_executor(self._executor, self._runner.run, images)
            if len(outputs.logits) != len(images):  # else a caller's slot would hold another's rows
                raise RuntimeError("the graph did not answer row for row")
        except Exception:  # whatever the runtime raised, these callers are told, and the next batch runs
            log.exception("a batch failed")
            for job in jobs:
                _settle(job.future, InferenceFailed("The model could not be run on this request."))
            return
        run_s = self._loop.time() - started
        slot = 0
        for job in jobs:
            rows = outputs.rows(slot, slot + len(job.images))
            slot += len(job.images)
            _settle(job.future, Ran(rows, started - job.arrived, run_s))


def _settle(future: "asyncio.Future[Ran]", result: Ran | Exception) -> None:
    if future.done():  # its caller gave up
        return
    if isinstance(result, Exception):
        future.set_exception(result)
    else:
        future.set_result(result)
