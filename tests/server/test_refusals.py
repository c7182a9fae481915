"""Whatever is refused is counted once, by its cause, and told when to try again where that is known."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status

from appliance import errors
from appliance.access import Access, Peer
from appliance.admission import Allowance
from appliance.errors import RETRY_KEY, QueueFull, RequestError
from appliance.predict import Call, Desk, predict
from appliance.server.metrics import Metrics
from appliance.server.status import RETRY_PUSHBACK, refusal
from tests.fakes import PuppetRunner, clock, numbered, put_forward, turn
from tests.isolation.desk import METHOD, RULES, SPKI, call, desk_of, encoded, raw

ONE = numbered(1, 1)


async def behind_a_blocker(desk: Desk, runner: PuppetRunner, *late: Callable[[], Awaitable[object]]) -> None:
    """Does some things while a batch is running, and lets it end."""
    blocker = asyncio.create_task(predict(desk, call(), raw(ONE)))
    await runner.gate.entered()
    try:
        for one in late:
            await one()
    finally:
        runner.gate.open()
        await blocker


async def queue_is_full(desk: Desk, runner: PuppetRunner) -> None:
    async def three() -> None:
        waiting = asyncio.create_task(predict(desk, call(), raw(numbered(2, 3))))
        await turn()
        try:
            await predict(desk, call(), raw(numbered(3, 3)))
        finally:
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)

    await behind_a_blocker(desk, runner, three)


async def deadline_passes_in_the_queue(desk: Desk, runner: PuppetRunner) -> None:
    blocker = asyncio.create_task(predict(desk, call(), raw(ONE)))
    await runner.gate.entered()
    waiting = asyncio.create_task(predict(desk, call(deadline=clock() + 50), raw(ONE)))
    await turn(3)
    put_forward(60)
    runner.gate.open()
    await blocker
    await waiting


async def deadline_cannot_be_met(desk: Desk, runner: PuppetRunner) -> None:
    runner.gate.open()
    desk.servables.find("forged").batcher._pace.observe(1, 30.0)
    await predict(desk, call(deadline=clock() + 10), raw(ONE))


async def asks_too_fast(desk: Desk, runner: PuppetRunner) -> None:
    runner.gate.open()
    desk.access = Access(RULES, Allowance(1, 2))
    for _ in range(3):
        await predict(desk, call(), raw(ONE))


async def asks_too_much(desk: Desk, runner: PuppetRunner) -> None:
    desk.access = Access(RULES, Allowance(1 << 20, 2))
    await predict(desk, call(), raw(numbered(1, 3)))


async def runner_crashes(desk: Desk, runner: PuppetRunner) -> None:
    runner.error = RuntimeError("a crash")
    runner.gate.open()
    await predict(desk, call(), raw(ONE))


async def desk_is_closed(desk: Desk, runner: PuppetRunner) -> None:
    desk.open = False
    await predict(desk, call(), raw(ONE))


def asking(ask: Any, caller: Call | None = None) -> Callable[[Desk, PuppetRunner], Awaitable[object]]:
    return lambda desk, runner: predict(desk, caller or call(), ask)


CAUSES: dict[str, tuple[Callable[[Desk, PuppetRunner], Awaitable[object]], str]] = {
    "invalid_input": (asking(encoded(b"junk")), "invalid"),
    "unauthenticated": (asking(raw(ONE), Call(METHOD, Peer((), SPKI), "r", "", None)), "denied"),
    "permission_denied": (asking(raw(ONE), call("DNS:stranger")), "denied"),
    "unknown_model": (asking(raw(ONE, model="other"), call("DNS:admin")), "invalid"),
    "queue_full": (queue_is_full, "shed"),
    "caller_rate": (asks_too_fast, "shed"),
    "caller_rows": (asks_too_much, "shed"),
    "deadline_passed": (deadline_passes_in_the_queue, "expired"),
    "deadline_unreachable": (deadline_cannot_be_met, "expired"),
    "not_ready": (desk_is_closed, "unavailable"),
    "inference_failed": (runner_crashes, "failed"),
}


@pytest.mark.parametrize("cause", CAUSES)
def test_every_refusal_is_counted_once_by_its_cause(cause: str, tmp_path: Path) -> None:
    work, outcome = CAUSES[cause]
    metrics = Metrics()

    async def run() -> None:
        runner = PuppetRunner()
        async with desk_of(tmp_path / "log", runner=runner, queue_rows_max=4, watcher=metrics) as desk:
            with pytest.raises(RequestError) as caught:
                await work(desk, runner)
            assert type(caught.value).code == cause
            runner.gate.open()

    asyncio.run(run())
    refused = {
        (sample.labels["outcome"], sample.labels["error"]): sample.value
        for family in metrics.registry.collect()
        for sample in family.samples
        if sample.name == "appliance_calls_total" and sample.labels["outcome"] not in ("answered", "cancelled")
    }
    assert refused == {(outcome, cause): 1}


def test_these_are_all_the_causes_but_the_logs_own() -> None:
    """Without a log there is no record, and the appliance ends."""

    def leaves(kind: type[RequestError]) -> set[str]:
        children = {code for child in kind.__subclasses__() for code in leaves(child)}
        own = {kind.code} if not kind.__subclasses__() or kind is errors.DeadlinePassed else set()
        return children | own

    assert set(CAUSES) == leaves(RequestError) - {"audit_unavailable"}


def test_when_to_try_again_is_said_as_google_and_as_grpc_say_it() -> None:
    trailers = dict(refusal(QueueFull("Full.", 0.25), "r").trailers)
    assert trailers[RETRY_PUSHBACK] == "250"
    status, retry = Status.FromString(bytes(trailers[RETRY_KEY])), RetryInfo()
    assert (status.code, status.message) == (8, "Full.")
    assert status.details[0].Unpack(retry)
    assert retry.retry_delay.ToMilliseconds() == 250
    assert refusal(QueueFull("Full."), "r").trailers == ()


def test_a_stranger_is_told_nothing_of_what_went_wrong_inside() -> None:
    told = refusal(RuntimeError("Mary Nobody"), "01ARYZ")
    assert (told.status.name, told.sentence) == ("INTERNAL", "Internal error; quote reference 01ARYZ.")
