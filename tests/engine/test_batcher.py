"""The batcher: whatever the neighbours do, each caller gets exactly its own rows, or one error that is its own."""

import asyncio
import threading
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.engine import batcher as batcher_module
from appliance.engine.batcher import Batcher, Ran
from appliance.engine.pace import Pace
from appliance.engine.queue import Priority, Queue
from appliance.errors import DeadlinePassed, InferenceFailed, NotReady, Overloaded
from appliance.model.inputs import Rows
from tests import forge
from tests.fakes import STRING_S_MAX, PuppetRunner, clock, number_of, numbered, put_forward, turn

BATCH_ROWS_MAX = 8
SETTLED = 8  # turns of the loop, after which every task that could go on has


@asynccontextmanager
async def batching(runner: PuppetRunner, workers: int = 1, rows_max: int = 1000) -> AsyncIterator[Batcher]:
    """A batcher that is drained when the block ends."""
    batcher = made(runner, workers, rows_max)
    try:
        yield batcher
    finally:
        runner.gate.open()
        await batcher.drain()


def made(runner: PuppetRunner, workers: int, rows_max: int = 1000, **hooks: Any) -> Batcher:
    pace = Pace({}, BATCH_ROWS_MAX, workers)
    queue = Queue[Any](rows_max, 1 << 24, BATCH_ROWS_MAX, pace)
    return Batcher(runner, queue, pace, slots, workers=workers, clock=clock, **hooks)


def slots() -> Rows:
    return (np.zeros((BATCH_ROWS_MAX, forge.SIDE, forge.SIDE, 1), np.uint8),)


def ask(batcher: Batcher, number: int, rows: int = 1, patience_s: float | None = None) -> "asyncio.Task[Ran]":
    deadline = None if patience_s is None else clock() + patience_s
    return asyncio.create_task(batcher.submit((numbered(number, rows),), deadline))


def is_own(ran: Ran, number: int, rows: int = 1) -> bool:
    wanted = forge.logits(numbered(number, rows))
    return ran.outputs.logits.shape == wanted.shape and np.allclose(ran.outputs.logits, wanted, atol=1e-4)


def test_what_waited_is_run_together_and_nothing_waits_for_company() -> None:
    async def run() -> None:
        runner = PuppetRunner()
        async with batching(runner) as batcher:
            first = ask(batcher, 0)
            await runner.gate.entered()  # at once, alone: there is no timer
            rest = [ask(batcher, number, rows) for number, rows in ((1, 3), (2, 5), (3, 1), (4, 2))]
            await turn()
            assert (batcher.queue_rows, batcher.queue_bytes) == (11, 11 * forge.SIDE**2)
            runner.gate.open()
            ran = await asyncio.gather(first, *rest)
        assert [len(batch) for batch in runner.batches] == [1, 8, 3]
        assert all(
            is_own(found, number, rows) for number, (found, rows) in enumerate(zip(ran, (1, 3, 5, 1, 2), strict=True))
        )
        assert all(found.queue_s >= 0 and found.run_s >= 0 for found in ran)
        assert (batcher.queue_rows, batcher.queue_bytes) == (0, 0)

    asyncio.run(run())


def test_two_workers_run_two_batches_at_once() -> None:
    async def run() -> None:
        runner = PuppetRunner()
        async with batching(runner, workers=2) as batcher:
            one = ask(batcher, 1)
            await runner.gate.entered()
            two = ask(batcher, 2)
            await runner.gate.entered()  # while the first is still running
            runner.gate.open()
            assert is_own(await one, 1)
            assert is_own(await two, 2)

    asyncio.run(run())


def test_a_crash_fails_its_own_batch_and_the_next_one_runs() -> None:
    async def run() -> None:
        runner = PuppetRunner()
        runner.error = RuntimeError("Mary Nobody's weights")
        async with batching(runner) as batcher:
            first = ask(batcher, 0)
            await runner.gate.entered()
            rest = [ask(batcher, number) for number in (1, 2)]
            await turn()
            runner.gate.open()
            with pytest.raises(InferenceFailed) as caught:
                await first
            assert "Nobody" not in str(caught.value)
            assert [is_own(await task, number) for number, task in zip((1, 2), rest, strict=True)] == [True, True]

    asyncio.run(run())


def test_a_runner_that_loses_a_row_fails_its_batch_and_nobody_gets_anothers_row() -> None:
    async def run() -> None:
        runner = PuppetRunner()
        runner.rows_lost = 1
        async with batching(runner) as batcher:
            alone = ask(batcher, 0)
            await runner.gate.entered()
            together = [ask(batcher, number, 2) for number in (1, 2)]
            await turn()
            runner.gate.open()
            ends = await asyncio.gather(alone, *together, return_exceptions=True)
            assert [type(end) for end in ends] == [InferenceFailed] * 3
            runner.rows_lost = 0
            assert is_own(await ask(batcher, 3), 3)

    asyncio.run(run())


def test_rows_that_cannot_be_joined_fail_their_batch_and_the_next_one_runs() -> None:
    async def run() -> None:
        runner = PuppetRunner()
        async with batching(runner) as batcher:
            first = ask(batcher, 0)
            await runner.gate.entered()
            odd = asyncio.create_task(batcher.submit((np.zeros((1, 9, 9, 1), np.uint8),), None))
            beside = ask(batcher, 1)
            await turn()
            runner.gate.open()
            ends = await asyncio.gather(first, odd, beside, return_exceptions=True)
            assert [type(end) for end in ends] == [Ran, InferenceFailed, InferenceFailed]
            assert is_own(await ask(batcher, 2), 2)

    asyncio.run(run())


def test_a_ticket_that_waits_past_its_deadline_is_told_and_never_run() -> None:
    async def run() -> None:
        runner = PuppetRunner()
        async with batching(runner) as batcher:
            with pytest.raises(DeadlinePassed):
                await ask(batcher, 9, patience_s=0)
            first = ask(batcher, 0, patience_s=5)
            await runner.gate.entered()
            late, patient = ask(batcher, 1, patience_s=5), ask(batcher, 2, patience_s=500)
            await turn()
            put_forward(50)
            runner.gate.open()
            with pytest.raises(DeadlinePassed):
                await late
            assert is_own(await patient, 2)
            assert is_own(await first, 0)  # it was running already; its caller decides
        assert [number_of(row) for batch in runner.batches for row in batch] == [0, 2]

    asyncio.run(run())


def test_a_caller_who_gives_up_in_flight_or_in_the_queue_disturbs_nobody() -> None:
    async def run() -> None:
        runner = PuppetRunner()
        async with batching(runner) as batcher:
            blocker = ask(batcher, 0)
            await runner.gate.entered()
            tasks = [ask(batcher, number) for number in range(1, 6)]
            await turn()
            tasks[1].cancel()  # in the queue
            await turn()
            assert batcher.queue_rows == 4
            runner.gate.pull()
            await runner.gate.entered()
            tasks[3].cancel()  # in flight
            await turn()
            runner.gate.open()
            ends = await asyncio.gather(blocker, *tasks, return_exceptions=True)
        assert [number_of(row) for row in runner.batches[1]] == [1, 3, 4, 5]
        assert [type(end) for end in (ends[2], ends[4])] == [asyncio.CancelledError] * 2
        for number in (0, 1, 3, 5):
            assert is_own(ends[number], number)

    asyncio.run(run())


def test_a_full_queue_refuses_and_takes_again_when_there_is_room() -> None:
    async def run() -> None:
        runner = PuppetRunner()
        async with batching(runner, rows_max=2) as batcher:
            first = ask(batcher, 0)
            await runner.gate.entered()
            waiting = ask(batcher, 1, 2)
            await turn()
            with pytest.raises(Overloaded):
                await ask(batcher, 2)
            waiting.cancel()
            await turn()
            again = ask(batcher, 3, 2)
            runner.gate.open()
            assert is_own(await again, 3, 2)
            assert is_own(await first, 0)

    asyncio.run(run())


def test_draining_answers_what_was_accepted_and_takes_no_more() -> None:
    async def run() -> None:
        runner = PuppetRunner()
        async with batching(runner, workers=2) as batcher:
            accepted = [ask(batcher, number, 5) for number in range(6)]
            await runner.gate.entered()
            await runner.gate.entered()
            drained = asyncio.create_task(batcher.drain())
            await turn()
            with pytest.raises(NotReady):
                await ask(batcher, 9)
            assert not drained.done()
            runner.gate.open()
            await drained
            ran = await asyncio.gather(*accepted)
        assert all(is_own(found, number, 5) for number, found in enumerate(ran))

    asyncio.run(run())


ACTS = st.one_of(
    st.tuples(st.just("ask"), st.integers(1, 3 * BATCH_ROWS_MAX)),
    st.tuples(st.just("ask impatiently"), st.integers(1, 3)),
    st.tuples(st.just("cancel"), st.integers(0, 20)),
    st.tuples(st.sampled_from(["pass time", "run", "crash"]), st.just(0)),
)


@settings(max_examples=200, deadline=None)
@given(acts=st.lists(ACTS, max_size=40), workers=st.integers(0, 3))
def test_in_any_interleaving_each_caller_gets_its_own_rows_or_its_own_error(
    acts: list[tuple[str, int]], workers: int
) -> None:
    asyncio.run(_interleave(acts, workers))


async def _interleave(acts: list[tuple[str, int]], workers: int) -> None:
    runner = PuppetRunner(held=workers > 0)  # there are no strings in an event loop
    batcher = made(runner, workers)
    callers: list[tuple[asyncio.Task[Ran], int, bool]] = []
    cancelled = set[int]()
    for act, number in acts:
        match act:
            case "ask" | "ask impatiently":
                impatient = act != "ask"
                callers.append((ask(batcher, len(callers), number, 1 if impatient else None), number, impatient))
            case "cancel":
                if number < len(callers) and callers[number][0].cancel():
                    cancelled.add(number)
            case "pass time":
                put_forward(2)
            case "run" | "crash":
                runner.error = RuntimeError("a crash") if act == "crash" else None
                runner.gate.pull()
        await turn(SETTLED)
    runner.gate.open()
    await batcher.drain()
    ends = await asyncio.gather(*[task for task, _, _ in callers], return_exceptions=True)
    ran = Counter(number_of(row) for batch in runner.batches for row in batch)
    crashed = {number_of(row) for batch in runner.crashed for row in batch}
    for number, (end, (_, rows, impatient)) in enumerate(zip(ends, callers, strict=True)):
        if isinstance(end, Ran):
            assert ran[number] == rows  # once, whole
            assert is_own(end, number, rows)
        elif number in cancelled:
            assert isinstance(end, asyncio.CancelledError)
            assert ran[number] <= rows
        elif number in crashed:
            assert isinstance(end, InferenceFailed)
        else:
            assert impatient
            assert isinstance(end, DeadlinePassed)
            assert rows > BATCH_ROWS_MAX or not ran[number]
    assert all(len(batch) <= BATCH_ROWS_MAX for batch in runner.batches)
    assert (batcher.queue_rows, batcher.queue_bytes) == (0, 0)


def test_time_in_which_nothing_waited_is_nobodys_running_time() -> None:
    """Else a model that has been idle for an hour would seem to take an hour, and refuse whoever has less."""

    async def run() -> None:
        runner = PuppetRunner()
        async with batching(runner) as batcher:
            first = ask(batcher, 0)
            await runner.gate.entered()
            late = ask(batcher, 1, patience_s=5)
            await turn()
            put_forward(50)
            runner.gate.open()
            await first
            with pytest.raises(DeadlinePassed):
                await late
            while batcher._threads[0].is_alive() and not batcher._wake._waiters:  # type: ignore[attr-defined]
                await turn()
            put_forward(3600)
            assert is_own(await ask(batcher, 2), 2)
            assert batcher._pace.run_s(1) < 60

    asyncio.run(run())


def test_a_process_that_is_nicer_already_runs_its_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(which: int, who: int, niceness: int) -> None:
        raise PermissionError

    monkeypatch.setattr(batcher_module.os, "setpriority", refused)

    async def run() -> None:
        async with batching(PuppetRunner(held=False)) as batcher:
            assert is_own(await ask(batcher, 1), 1)

    asyncio.run(run())


def test_in_the_event_loop_a_batch_waits_for_calls_under_way_and_a_lone_one_never(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batcher_module, "COMPANY_S", 100.0)

    async def run() -> None:
        runner = PuppetRunner(held=False)
        batcher = made(runner, 0)
        batcher.calls = 1
        assert is_own(await ask(batcher, 0), 0)
        batcher.calls = 3
        together = [ask(batcher, number) for number in (1, 2)]
        await turn(SETTLED)
        assert len(runner.batches) == 1
        together.append(ask(batcher, 3))
        assert all([is_own(await task, number) for number, task in enumerate(together, 1)])
        late = ask(batcher, 4)
        await turn(SETTLED)
        put_forward(101)
        assert is_own(await late, 4)
        full = [ask(batcher, number, BATCH_ROWS_MAX) for number in (5, 6)]
        assert all([is_own(await task, number, BATCH_ROWS_MAX) for number, task in enumerate(full, 5)])
        waiting = ask(batcher, 7)
        await turn(SETTLED)
        await batcher.drain()
        assert is_own(await waiting, 7)
        assert [len(batch) for batch in runner.batches] == [1, 3, 1, 8, 8, 1]

    asyncio.run(run())


def test_a_request_larger_than_a_batch_is_run_in_pieces_and_answered_whole() -> None:
    async def run() -> None:
        runner = PuppetRunner()
        async with batching(runner) as batcher:
            first = ask(batcher, 0)
            await runner.gate.entered()
            large, small = ask(batcher, 1, 20), ask(batcher, 2, 3)
            await turn()
            runner.gate.open()
            assert is_own(await large, 1, 20)
            assert is_own(await small, 2, 3)
            assert is_own(await first, 0)
        assert [len(batch) for batch in runner.batches] == [1, 8, 8, 7]

    asyncio.run(run())


def test_a_runner_for_which_nothing_works_any_more_is_told_of_and_nobody_waits_for_it() -> None:
    """As after a sticky CUDA error: whatever is asked of it fails."""

    async def run() -> None:
        runner, told = PuppetRunner(), threading.Event()
        batcher = made(runner, 1, on_broken=told.set)
        running = ask(batcher, 0)
        await runner.gate.entered()
        waiting = ask(batcher, 1)
        await turn()
        runner.error, runner.dead = RuntimeError("CUDA error 700"), True
        runner.gate.open()
        ends = await asyncio.gather(running, waiting, return_exceptions=True)
        assert [type(end) for end in ends] == [InferenceFailed, NotReady]
        assert await asyncio.to_thread(told.wait, STRING_S_MAX)
        with pytest.raises(NotReady):
            await ask(batcher, 2)
        await batcher.drain()

    asyncio.run(run())


def test_an_urgent_request_is_run_before_routine_ones_that_wait() -> None:
    async def run() -> None:
        runner = PuppetRunner()
        async with batching(runner) as batcher:
            first = ask(batcher, 0)
            await runner.gate.entered()
            routine = [ask(batcher, number, 8) for number in (1, 2)]
            await turn()
            urgent = asyncio.create_task(batcher.submit((numbered(3, 8),), None, Priority.STAT))
            await turn()
            runner.gate.open()
            await asyncio.gather(first, *routine, urgent)
        assert [number_of(batch[0]) for batch in runner.batches] == [0, 3, 1, 2]

    asyncio.run(run())
