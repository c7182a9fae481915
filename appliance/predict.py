"""Life of a request.

::

    servicer ─▶ predict()
      identify ─▶ authorise ─▶ read ─▶ find the model ─▶ decode ─▶ batcher (queue ─▶ session) ─▶ judge
      └──────────────── inside journal.entry(): durable before the answer leaves ────────────────┘ ─▶ wire

``journal.entry`` is where the audit cannot be forgotten: whatever happens inside that block leaves one record, and if the
record cannot be written there is no answer.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from functools import partial
from time import monotonic, perf_counter
from typing import Any, TypeVar

from appliance.access import Access, Action, Caller, Peer
from appliance.admission import Admission
from appliance.audit.journal import Journal
from appliance.audit.pseudonym import Epoch, pseudonyms
from appliance.audit.record import Entry, Receipt
from appliance.bundle.manifest import E6, MODEL_ID, InputSpec
from appliance.engine.queue import Priority
from appliance.errors import AuditUnavailable, DeadlinePassed, InvalidInput, NotReady
from appliance.load import LoadedModel
from appliance.model import inputs
from appliance.model.decision import Judgement, decide
from appliance.model.inputs import Content, Encoded, Raw, Rows
from appliance.servables import Held, Servable, Servables

T = TypeVar("T")
# Raw rows up to this size are hashed in the event loop, which takes less time than handing them to a thread.
INLINE_BYTES_MAX = 1 << 18
_is_model_id = re.compile(MODEL_ID).fullmatch


@dataclass(frozen=True, slots=True)
class Call:
    """One call, before anything of it is believed. ``deadline`` is a time of ``time.monotonic``."""

    method: str
    peer: Peer
    request_id: str
    client_reference: str
    deadline: float | None


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked of which model. Version 0 is the active one; an empty input's name or ``outputs`` mean the model's own.

    ``patience_s`` is how long the caller waits, besides the call's deadline; None for as long as that.
    """

    model: str
    version: int
    inputs: Sequence[tuple[str, Content]]
    outputs: frozenset[str] = frozenset()
    priority: Priority = Priority.ROUTINE
    patience_s: float | None = None
    wants_proof: bool = False


@dataclass(frozen=True, eq=False, slots=True)
class Prediction:
    """The answer, and where it stands in the log. Times are seconds."""

    model: LoadedModel
    judgement: Judgement
    decode_s: float
    queue_s: float
    run_s: float
    receipt: Receipt


@dataclass(eq=False)
class Desk:
    """What a call needs. Until it is ``open``, every call is told to come back."""

    access: Access
    journal: Journal
    decoders: Executor
    epoch: Epoch
    servables: Servables
    admission: Admission = field(default_factory=Admission)
    request_rows_max: int = 1024
    clock: Callable[[], float] = monotonic
    open: bool = False
    unfinished: "set[asyncio.Future[Any]]" = field(default_factory=set)


async def predict(desk: Desk, call: Call, ask: Callable[[], Request]) -> Prediction:
    """Answers one call, on record. ``ask`` reads the request off the wire: a request that cannot be read is on record too.

    Raises:
        RequestError: which one says why there is no answer.
    """
    with Held() as held:  # until it is on record, too
        async with _on_record(desk, call) as entry:
            caller = _admit(desk, call, entry, Action.PREDICT)
            request = ask()
            servable = _find(desk, caller, entry, request.model, request.version)
            model = servable.model
            if model.override:
                entry.model = _named(model) | {"override": model.override.encode()}
            entry.wants_proof = request.wants_proof
            model.require(request.outputs)
            contents = model.arrange(request.inputs)
            rows = contents[0].rows
            if not 1 <= rows <= desk.request_rows_max:
                raise InvalidInput(f"A request has 1 to {desk.request_rows_max} rows.")
            with desk.admission.admit(caller.name, caller.allowance, rows):
                deadline = _sooner(desk.clock(), call.deadline, request.patience_s)
                servable.batcher.require_room(rows, deadline, request.priority)
                held.hold(servable)
                arrays, decode_s = await _decode(desk, call, entry, model, contents)
                ran = await servable.batcher.submit(arrays, deadline, request.priority)
                judgement = model.judge.judge(ran.outputs.logits, ran.outputs.embedding)
            if deadline is not None and desk.clock() >= deadline:  # the caller is told so, and the record is to say the same
                raise DeadlinePassed("The deadline passed before there was an answer.")
            servable.told.count(rows, decode_s, ran.queue_s, ran.run_s)
            decisions = "".join([decision.letter for decision in judgement.decisions])
            entry.output = {
                "top": judgement.top.tolist(),
                "confidence_e6": [round(confidence * E6) for confidence in judgement.confidence.tolist()],
                "decisions": decisions,
            }
            signed = _as_signed(model, judgement) if model.override else decisions
            servable.drift.count(rows, signed.count("B"), signed.count("O"))
            entry.run = {
                "provider": model.session.provider,
                "decode_us": _microseconds(decode_s),
                "queue_us": _microseconds(ran.queue_s),
                "run_us": _microseconds(ran.run_s),
            }
        servable.batcher.answered(ran)
    return Prediction(model, judgement, decode_s, ran.queue_s, ran.run_s, _receipt(entry))


async def act(desk: Desk, call: Call, work: Callable[[Caller], Awaitable[T]]) -> T:
    """Lets somebody with the role to administer do something, on record. Raises what the work raises.

    An act that has begun is finished, whether or not its caller still waits: half of one is in nobody's interest.
    """
    async with _on_record(desk, call) as entry:
        doing = asyncio.ensure_future(work(_admit(desk, call, entry, Action.ADMINISTER)))
        desk.unfinished.add(doing)
        doing.add_done_callback(desk.unfinished.discard)
        return await asyncio.shield(doing)


async def inquire(desk: Desk, call: Call, action: Action, answer: Callable[[Caller], T]) -> T:
    """Answers a call that is about no model, on record. Raises RequestError."""
    async with _on_record(desk, call) as entry:
        return answer(_admit(desk, call, entry, action))


async def about(desk: Desk, call: Call, ask: Callable[[], tuple[str, int]], answer: Callable[[Servable], T]) -> T:
    """Answers a call about one model, which does not run it, on record: of which version the answer was, by its digest.
    ``ask`` reads the name and the version off the wire. Raises RequestError.
    """
    async with _on_record(desk, call) as entry:
        caller = _admit(desk, call, entry, Action.OBSERVE)
        return answer(_find(desk, caller, entry, *ask()))


def _on_record(desk: Desk, call: Call) -> AbstractAsyncContextManager[Entry]:
    def understood(error: BaseException) -> BaseException:
        # The transport cancels a call whose deadline has passed; the record tells the two apart.
        if isinstance(error, asyncio.CancelledError) and call.deadline is not None and desk.clock() >= call.deadline:
            return DeadlinePassed("The deadline passed before there was an answer.")
        return error

    recording = desk.journal.entry("call", call.method, call.request_id, understood=understood)
    recording.entry.refer(call.client_reference)
    return recording


def _admit(desk: Desk, call: Call, entry: Entry, action: Action) -> Caller:
    caller = desk.access.identify(call.peer)
    entry.caller = caller.on_record()
    caller.authorise(action)
    if not desk.open:
        raise NotReady("The appliance is starting or stopping.")
    return caller


def _find(desk: Desk, caller: Caller, entry: Entry, name: str, version: int) -> Servable:
    """What is asked for, if it serves and the caller may use it; on record as it was found, or else as it was asked for."""
    if _is_model_id(name):  # anything else is free text, which has no place in the record
        entry.model = {"id": name, "version": version}
    caller.authorise_model(name)
    servable = desk.servables.find(name, version)
    entry.model = _named(servable.model)
    return servable


def _named(model: LoadedModel) -> dict[str, Any]:
    return {"id": model.name, "version": model.version, "digest": model.digest}


async def _decode(
    desk: Desk, call: Call, entry: Entry, model: LoadedModel, contents: Sequence[Content]
) -> tuple[Rows, float]:
    """What the graph takes, and the seconds it took."""
    started = perf_counter()
    received = partial(_received, desk.epoch, call.request_id, contents)
    work = partial(_read, received, entry, model.manifest.inputs, contents)
    if all(isinstance(content, Raw) for content in contents) and sum(c.nbytes for c in contents) <= INLINE_BYTES_MAX:
        arrays = work()
    else:
        arrays = await asyncio.get_running_loop().run_in_executor(desk.decoders, work)
    return arrays, perf_counter() - started


def _read(
    received: Callable[[str], dict[str, Any]], entry: Entry, specs: Sequence[InputSpec], contents: Sequence[Content]
) -> Rows:
    """Looks at what was received, and puts it on record, if only an element of it cannot be used. Raises InvalidInput."""
    encoded = [content for content in contents if isinstance(content, Encoded)]
    if encoded:
        entry.input = received("encoded")
    arrays = tuple(map(inputs.read, specs, contents))
    if not encoded:
        entry.input = received("raw")
    return arrays


def _received(epoch: Epoch, request_id: str, contents: Sequence[Content], form: str) -> dict[str, Any]:
    rows = contents[0].rows
    keys = [key for key in epoch.row_keys(request_id, rows) if key is not None]  # a call that begins has all of its own
    return {
        "form": form,
        "rows": rows,
        "bytes": sum(content.nbytes for content in contents),
        "epoch": epoch.number,
        "pseudonyms": pseudonyms(keys, ([content.row(i) for content in contents] for i in range(rows))),
    }


def _as_signed(model: LoadedModel, judgement: Judgement) -> str:
    """What the vendor's own rule would have decided: drift is of the inputs, whichever thresholds are on."""
    decisions = decide(model.manifest.decision, judgement.certainty, judgement.distance)
    return "".join([decision.letter for decision in decisions])


def _sooner(now: float, deadline: float | None, patience_s: float | None) -> float | None:
    if patience_s is None:
        return deadline
    end = now + patience_s
    return end if deadline is None else min(deadline, end)


def _receipt(entry: Entry) -> Receipt:
    if entry.receipt is None:
        raise AuditUnavailable("No audit record can be written, so there is no answer.")
    return entry.receipt


def _microseconds(seconds: float) -> int:
    return round(seconds * 1_000_000)
