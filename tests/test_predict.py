"""Life of a request: whatever becomes of a call, it leaves exactly one record, and without a record there is no answer."""

import asyncio
import errno
import hashlib
import hmac
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from appliance.access import Action, Caller, Peer
from appliance.audit.verify import verify
from appliance.errors import (
    ApplianceError,
    AuditUnavailable,
    DeadlinePassed,
    InferenceFailed,
    InvalidInput,
    NotReady,
    Overloaded,
    PermissionDenied,
    RequestError,
    Unauthenticated,
    UnknownModel,
)
from appliance.model.decision import Decision
from appliance.model.inputs import Raw
from appliance.override import AS_SIGNED, Override
from appliance.predict import Call, Desk, Request, about, act, inquire, predict
from tests import forge
from tests.audit import logs
from tests.fakes import PuppetRunner, PuppetSync, clock, numbered, put_forward, turn
from tests.isolation.desk import EPOCH, METHOD, SPKI, call, desk_of, encoded, model, raw

ONE = numbered(1, 1)
PNG = forge.png(ONE[0])
SURE = next(
    images
    for images in (numbered(n, 1) for n in range(100))
    if model().judge.judge(forge.logits(images), None).confidence > 0.6
)
ROWS_MAX = 1024  # of a request
NOBODY = "Mary Nobody *1970"


def at_the_desk(folder: Path, act: Callable[[Desk], Awaitable[None]], **options: Any) -> list[dict[str, Any]]:
    """What is on record after this was done at a desk; the log has been verified."""

    async def run() -> None:
        async with desk_of(folder, **options) as desk:
            await act(desk)

    asyncio.run(run())
    verify(folder, logs.VERIFIER)
    return logs.records(folder)


def refusal(
    folder: Path, kind: type[RequestError], caller: Call, ask: Callable[[], Request], **options: Any
) -> dict[str, Any]:
    """The one record of a call that must be refused in this way, with nothing in it or its message from the outside."""

    async def act(desk: Desk) -> None:
        with pytest.raises(ApplianceError) as caught:
            await predict(desk, caller, ask)
        assert type(caught.value) is kind
        assert "Nobody" not in str(caught.value)

    [record] = at_the_desk(folder, act, **options)
    assert record["error"] == kind.code
    assert "output" not in record
    assert "Nobody" not in str(record)
    return record


# --- answered --------------------------------------------------------------------------------------------------------


def test_an_answer_is_the_models_and_its_record_says_who_what_and_how(tmp_path: Path) -> None:
    images = numbered(5, 3)

    async def act(desk: Desk) -> None:
        caller = call("DNS:unheard-of", "DNS:reader", reference="case-17")
        found = await predict(desk, caller, raw(images, outputs=frozenset({"logits"}), version=1))
        np.testing.assert_allclose(found.judgement.logits, forge.logits(images), atol=1e-4)
        [record] = logs.records(tmp_path / "log")  # durable before the answer left
        assert found.receipt.index == record["index"] == 0
        assert record["output"]["top"] == forge.logits(images).argmax(axis=1).tolist()
        assert record["output"]["confidence_e6"] == [round(x * 1e6) for x in found.judgement.probabilities.max(axis=1)]
        assert record["output"]["decisions"] == "".join(decision.letter for decision in found.judgement.decisions)

    [record] = at_the_desk(tmp_path / "log", act)
    assert (record["event"], record["outcome"], record["method"]) == ("call", "answered", METHOD)
    assert record["caller"] == {"name": "DNS:reader", "spki": SPKI, "roles": ["predict"]}
    assert record["client_reference"] == "case-17"
    assert record["model"] == {"id": "forged", "version": 1, "digest": model().digest}
    names = [
        hmac.new(key or b"", row.tobytes(), hashlib.sha256).hexdigest()[:32]
        for key, row in zip(EPOCH.row_keys(record["request_id"], 3), images, strict=True)
    ]
    assert record["input"] == {"form": "raw", "rows": 3, "bytes": images.nbytes, "epoch": 1, "pseudonyms": names}
    assert set(record["run"]) == {"provider", "decode_us", "queue_us", "run_us"}
    assert record["run"]["provider"] == "CPUExecutionProvider"
    assert "error" not in record


def test_encoded_images_are_on_record_by_their_bytes_as_received(tmp_path: Path) -> None:
    async def act(desk: Desk) -> None:
        found = await predict(desk, call(), encoded(PNG))
        np.testing.assert_allclose(found.judgement.logits, forge.logits(ONE), atol=1e-4)

    [record] = at_the_desk(tmp_path / "log", act)
    [key] = EPOCH.row_keys(record["request_id"], 1)
    name = hmac.new(key or b"", PNG, hashlib.sha256).hexdigest()[:32]
    assert record["input"] == {"form": "encoded", "rows": 1, "bytes": len(PNG), "epoch": 1, "pseudonyms": [name]}


@pytest.mark.parametrize("override", [AS_SIGNED, Override(accept_at_least_e6=0), Override(accept_at_least_e6=1_000_000)])
def test_the_record_says_where_a_threshold_of_the_sites_own_has_decided(tmp_path: Path, override: Override) -> None:
    """And drift is told from what the signed one would have decided."""
    images = np.concatenate([np.full((1, 8, 8, 1), grey, np.uint8) for grey in range(200)])  # of which some are doubtful
    signed = model().judge.judge(forge.logits(images), None).decisions.count(Decision.ABSTAIN)
    assert 0 < signed < 200

    async def act(desk: Desk) -> None:
        desk.servables.rule(model().digest, override)
        found = await predict(desk, call(), raw(images))
        abstained = {AS_SIGNED: signed, Override(0): 0}.get(override, 200)
        assert found.judgement.decisions.count(Decision.ABSTAIN) == abstained
        assert desk.servables.find("forged").drift.abstained.seen == signed / 200

    [record] = at_the_desk(tmp_path / "log", act)
    said = {"id": "forged", "version": 1, "digest": model().digest}
    assert record["model"] == (said | {"override": override.encode()} if override else said)


def test_a_call_that_is_under_way_is_decided_as_it_began(tmp_path: Path) -> None:
    runner = PuppetRunner()

    async def act(desk: Desk) -> None:
        waiting = asyncio.ensure_future(predict(desk, call(), raw(SURE)))
        await runner.gate.entered()
        desk.servables.rule(model().digest, Override(accept_at_least_e6=1_000_000))
        runner.gate.open()
        assert (await waiting).judgement.decisions == (Decision.ACCEPT,)
        assert (await predict(desk, call(), raw(SURE))).judgement.decisions == (Decision.ABSTAIN,)

    first, second = at_the_desk(tmp_path / "log", act, runner=runner)
    assert ("override" in first["model"], "override" in second["model"]) == (False, True)


# --- refused ---------------------------------------------------------------------------------------------------------


def test_no_name_no_role_and_no_role_for_the_model_are_each_denied(tmp_path: Path) -> None:
    unknown = Call(METHOD, Peer((), SPKI), "a-request", "", None)
    record = refusal(tmp_path / "nameless", Unauthenticated, unknown, raw(ONE))
    assert record["outcome"] == "denied"
    assert "caller" not in record
    for who, asked in (("DNS:stranger", "forged"), ("DNS:watcher", "forged"), ("DNS:reader", "other")):
        record = refusal(tmp_path / f"{who}-{asked}", PermissionDenied, call(who), raw(ONE, model=asked))
        assert (record["outcome"], record["caller"]["name"]) == ("denied", who)
    assert record["model"] == {"id": "other", "version": 0}


def test_whoever_is_denied_has_not_had_the_request_read(tmp_path: Path) -> None:
    def ask() -> Request:
        raise AssertionError("read before the caller was known")

    refusal(tmp_path / "log", PermissionDenied, call("DNS:stranger"), ask)


@pytest.mark.parametrize(("asked", "version"), [("other", 0), ("forged", 2), ("forged", -1)])
def test_a_model_that_is_not_here_is_on_record_as_it_was_asked_for(tmp_path: Path, asked: str, version: int) -> None:
    record = refusal(tmp_path / "log", UnknownModel, call("DNS:admin"), raw(ONE, model=asked, version=version))
    assert (record["outcome"], record["model"]) == ("invalid", {"id": asked, "version": version})


@pytest.mark.parametrize("asked", [NOBODY, "", "Forged", "forged\n", "f" * 65, "патиент", "a/b", "\ud800"])
def test_a_model_name_that_could_be_free_text_is_never_on_record(tmp_path: Path, asked: str) -> None:
    record = refusal(tmp_path / "log", UnknownModel, call("DNS:admin", reference=NOBODY), raw(ONE, model=asked))
    assert "model" not in record
    assert "client_reference" not in record


def unreadable() -> Request:
    raise InvalidInput("The request must have exactly one input.")


SHORT = ONE.tobytes()[:-1]
INVALID: dict[str, Callable[[], Request]] = {
    "a request that cannot be read": unreadable,
    "wrong input name": raw(ONE, inputs=[(NOBODY, Raw("UINT8", ONE.shape, ONE.tobytes()))]),
    "unknown output": raw(ONE, outputs=frozenset({"logits", NOBODY})),
    "empty batch": raw(ONE[:0]),
    "no images": encoded(),
    "too many rows": raw(numbered(1, ROWS_MAX + 1)),
    "too many images": encoded(*[PNG] * (ROWS_MAX + 1)),
    "no shape": raw(ONE, inputs=[("image", Raw("UINT8", (), ONE.tobytes()))]),
    "rows alone for a shape": raw(ONE, inputs=[("image", Raw("UINT8", (1,), ONE.tobytes()))]),
    "wrong shape": raw(ONE, inputs=[("image", Raw("UINT8", (1, 8, 4, 2), ONE.tobytes()))]),
    "another dimension": raw(ONE, inputs=[("image", Raw("UINT8", (1, 8, 8, 1, 1), ONE.tobytes()))]),
    "negative rows": raw(ONE, inputs=[("image", Raw("UINT8", (-1, 8, 8, 1), ONE.tobytes()))]),
    "a byte too few": raw(ONE, inputs=[("image", Raw("UINT8", (1, 8, 8, 1), SHORT))]),
    "a byte too many": raw(ONE, inputs=[("image", Raw("UINT8", (1, 8, 8, 1), ONE.tobytes() + b"x"))]),
    "more rows than bytes": raw(ONE, inputs=[("image", Raw("UINT8", (2, 8, 8, 1), ONE.tobytes()))]),
    "truncated image": encoded(PNG, PNG[:-20]),
    "no image": encoded(NOBODY.encode()),
    "an image of nothing": encoded(b""),
}


@pytest.mark.parametrize("what", INVALID)
def test_a_request_that_is_wrong_is_on_record_as_invalid(tmp_path: Path, what: str) -> None:
    record = refusal(tmp_path / "log", InvalidInput, call(), INVALID[what])
    assert record["outcome"] == "invalid"
    assert record["caller"]["name"] == "DNS:reader"
    if what == "truncated image":  # what was received is on record, though it could not be used
        assert record["input"]["rows"] == 2


def test_a_desk_that_is_not_open_answers_nobody(tmp_path: Path) -> None:
    async def act(desk: Desk) -> None:
        desk.open = False
        for work in (
            predict(desk, call(), raw(ONE)),
            inquire(desk, call(), Action.OBSERVE, lambda caller: pytest.fail("answered")),
        ):
            with pytest.raises(NotReady):
                await work
        with pytest.raises(PermissionDenied):  # a stranger is not told how we fare
            await predict(desk, call("DNS:stranger"), raw(ONE))

    found = at_the_desk(tmp_path / "log", act)
    assert [record["outcome"] for record in found] == ["unavailable", "unavailable", "denied"]


def test_a_model_that_drains_answers_nobody_new(tmp_path: Path) -> None:
    async def act(desk: Desk) -> None:
        await desk.servables.find("forged").batcher.drain()
        with pytest.raises(NotReady):
            await predict(desk, call(), raw(ONE))

    [record] = at_the_desk(tmp_path / "log", act)
    assert (record["outcome"], record["error"]) == ("unavailable", "not_ready")


# --- late, given up, shed, crashed -----------------------------------------------------------------------------------


def test_a_call_that_is_late_at_the_door_or_in_the_queue_has_expired(tmp_path: Path) -> None:
    runner = PuppetRunner()

    async def act(desk: Desk) -> None:
        now = clock()
        with pytest.raises(DeadlinePassed):
            await predict(desk, call(deadline=now), raw(ONE))
        first = asyncio.create_task(predict(desk, call(), raw(ONE)))
        await runner.gate.entered()
        late = asyncio.create_task(predict(desk, call(deadline=now + 5), raw(ONE)))
        await turn(3)
        put_forward(50)
        runner.gate.open()
        with pytest.raises(DeadlinePassed):
            await late
        await first

    found = at_the_desk(tmp_path / "log", act, runner=runner)
    assert sorted(record["outcome"] for record in found) == ["answered", "expired", "expired"]
    assert [len(batch) for batch in runner.batches] == [1]


@pytest.mark.parametrize(("patience_s", "outcome"), [(None, "cancelled"), (500, "cancelled"), (5, "expired")])
def test_the_record_tells_a_caller_who_gave_up_from_a_deadline_that_the_transport_enforced(
    tmp_path: Path, patience_s: int | None, outcome: str
) -> None:
    runner = PuppetRunner()

    async def act(desk: Desk) -> None:
        deadline = None if patience_s is None else clock() + patience_s
        task = asyncio.create_task(predict(desk, call(deadline=deadline), raw(ONE)))
        await runner.gate.entered()
        put_forward(50)
        task.cancel()
        with pytest.raises(DeadlinePassed if outcome == "expired" else asyncio.CancelledError):
            await task
        runner.gate.open()

    [record] = at_the_desk(tmp_path / "log", act, runner=runner)
    assert record["outcome"] == outcome
    assert "output" not in record


def test_a_full_queue_sheds_and_says_so(tmp_path: Path) -> None:
    runner = PuppetRunner()

    async def act(desk: Desk) -> None:
        running = asyncio.create_task(predict(desk, call(), raw(ONE)))
        await runner.gate.entered()
        waiting = asyncio.create_task(predict(desk, call(), raw(ONE)))
        await turn(3)
        with pytest.raises(Overloaded):
            await predict(desk, call(), raw(ONE))
        runner.gate.open()
        await asyncio.gather(running, waiting)

    found = at_the_desk(tmp_path / "log", act, runner=runner, queue_rows_max=1)
    assert sorted(record["outcome"] for record in found) == ["answered", "answered", "shed"]


def test_a_run_that_crashes_and_an_output_that_is_no_number_have_failed(tmp_path: Path) -> None:
    runner = PuppetRunner(held=False)
    runner.error = RuntimeError(NOBODY)
    record = refusal(tmp_path / "crash", InferenceFailed, call(), raw(ONE), runner=runner)
    assert record["outcome"] == "failed"

    class Overflowed(PuppetRunner):
        def run(self, images: Any) -> Any:
            found = super().run(images)
            found.logits[0, 0] = np.inf
            return found

    record = refusal(tmp_path / "overflow", InferenceFailed, call(), raw(ONE), runner=Overflowed(held=False))
    assert record["outcome"] == "failed"


def test_an_error_that_nobody_foresaw_is_internal_and_on_record(tmp_path: Path) -> None:
    def ask() -> Request:
        raise ZeroDivisionError(NOBODY)

    async def act(desk: Desk) -> None:
        with pytest.raises(ZeroDivisionError):
            await predict(desk, call(), ask)

    [record] = at_the_desk(tmp_path / "log", act)
    assert (record["outcome"], record["error"]) == ("failed", "internal")
    assert "Nobody" not in str(record)


# --- no record, no answer --------------------------------------------------------------------------------------------


def test_without_a_record_there_is_no_answer_and_no_refusal_either(tmp_path: Path) -> None:
    sync = PuppetSync(held=False)

    async def act(desk: Desk) -> None:
        await predict(desk, call(), raw(ONE))
        sync.error = OSError(errno.EIO, "an error of the disk")
        for caller, ask in ((call(), raw(ONE)), (call(), raw(ONE)), (call("DNS:stranger"), raw(ONE))):
            with pytest.raises(AuditUnavailable):
                await predict(desk, caller, ask)
        with pytest.raises(AuditUnavailable):
            await inquire(desk, call(), Action.OBSERVE, lambda: "an answer")
        assert not desk.journal.writable

    at_the_desk(tmp_path / "log", act, sync=sync)


def test_an_answer_waits_for_its_record(tmp_path: Path) -> None:
    sync = PuppetSync()

    async def act(desk: Desk) -> None:
        task = asyncio.create_task(predict(desk, call(), raw(ONE)))
        await sync.gate.entered()
        await turn(20)
        assert not task.done()
        sync.gate.open()
        assert (await task).receipt.index == 0

    at_the_desk(tmp_path / "log", act, sync=sync)


# --- calls that run no model -----------------------------------------------------------------------------------------


def test_a_question_is_answered_on_record_to_whoever_may_ask(tmp_path: Path) -> None:
    async def act(desk: Desk) -> None:
        assert await inquire(desk, call("DNS:watcher"), Action.OBSERVE, lambda caller: "yes") == "yes"
        with pytest.raises(PermissionDenied):
            await inquire(desk, call("DNS:watcher"), Action.ADMINISTER, lambda caller: pytest.fail("answered"))

    found = at_the_desk(tmp_path / "log", act)
    assert [record["outcome"] for record in found] == ["answered", "denied"]
    assert not any("model" in record for record in found)


def test_a_question_about_a_model_is_on_record_with_the_version_that_it_was_answered_from(tmp_path: Path) -> None:
    async def act(desk: Desk) -> None:
        for version in (0, 1):
            assert (
                await about(desk, call("DNS:watcher"), lambda v=version: ("forged", v), lambda s: s.model.name) == "forged"
            )
        desk.servables.keep("forged", ())
        desk.servables.put(model(), active=False)  # a version that is kept, where the active one was refused
        assert await about(desk, call("DNS:watcher"), lambda: ("forged", 1), lambda s: "yes") == "yes"

    found = at_the_desk(tmp_path / "log", act)
    assert [record["outcome"] for record in found] == ["answered"] * 3
    assert [record["model"] for record in found] == [{"id": "forged", "version": 1, "digest": model().digest}] * 3


def test_a_question_about_a_model_that_is_not_answered_is_on_record_as_asked(tmp_path: Path) -> None:
    """But for what can be no model's name, and so any text."""

    async def act(desk: Desk) -> None:
        for name, caller, error in (
            ("other", "DNS:reader", PermissionDenied), ("other", "DNS:watcher", UnknownModel),
            (NOBODY, "DNS:reader", PermissionDenied), (NOBODY, "DNS:watcher", UnknownModel),
        ):  # fmt: skip
            with pytest.raises(error):
                await about(desk, call(caller), lambda n=name: (n, 0), lambda servable: pytest.fail("answered"))

    found = at_the_desk(tmp_path / "log", act)
    assert [record["outcome"] for record in found] == ["denied", "invalid"] * 2
    assert [record.get("model") for record in found] == [{"id": "other", "version": 0}] * 2 + [None] * 2
    assert "Nobody" not in str(found)


def test_an_act_that_has_begun_is_finished_though_its_caller_gives_up(tmp_path: Path) -> None:
    """Half an activation is in nobody's interest; the call is on record as cancelled, the act by its own record."""

    async def work(desk: Desk) -> None:
        begun, go_on, done = asyncio.Event(), asyncio.Event(), asyncio.Event()

        async def act_slowly(caller: Caller) -> None:
            begun.set()
            await go_on.wait()
            done.set()

        asking = asyncio.create_task(act(desk, call("DNS:admin"), act_slowly))
        await begun.wait()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert not done.is_set()
        go_on.set()
        await done.wait()
        await turn(2)
        assert desk.unfinished == set()

    (record,) = at_the_desk(tmp_path / "log", work)
    assert (record["outcome"], record["caller"]["name"]) == ("cancelled", "DNS:admin")


def test_whoever_may_not_administer_begins_no_act(tmp_path: Path) -> None:
    async def work(desk: Desk) -> None:
        async def never(caller: Caller) -> None:
            raise AssertionError("an act was begun")

        for name in ("DNS:reader", "DNS:watcher", "DNS:stranger"):
            with pytest.raises(PermissionDenied):
                await act(desk, call(name), never)

    assert [record["outcome"] for record in at_the_desk(tmp_path / "log", work)] == ["denied"] * 3
