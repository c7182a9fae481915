"""Attacks over the wire: valid callers of the Open Inference Protocol among hostile ones, for whichever server is named.

Every message is sent and received as bytes, so that a hostile one may be none. Each valid caller has rows that nobody else
has, and so the only right answer: any other under status OK is another caller's, or nobody's.
"""

import asyncio
import random
import struct
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeAlias

import grpc
import grpc.aio
import numpy as np
from numpy.typing import NDArray

from appliance.model.inputs import Images
from appliance.oip import open_inference_pb2 as oip
from tests import forge
from tests.fakes import numbered

METHOD = "/inference.GRPCInferenceService/ModelInfer"
AT_ONCE, CHANNELS, ROWS_MAX = 48, 4, 4
VALID_SHARE = 0.6
PATIENCE_S = 0.25  # an unanswered call gives its turn to the next one, and goes on waiting up to the bound
FINDINGS_EXPLAINED_MAX = 10  # to look for the owner of a row takes a while
WITHIN = 5e-4  # rows differ by more than this: see test_no_two_callers_share_a_row

Floats: TypeAlias = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Model:
    """What a valid caller asks: a name, perhaps a version, and what it adds to the forged model's logits."""

    name: str
    version: str = ""
    offset: float = 0


@dataclass(frozen=True, slots=True)
class Server:
    """Where to send, without TLS, and what can be asked there."""

    address: str
    models: Sequence[Model]
    within_s: float = 3  # an answer that has not come by then is counted as never given


@dataclass
class Tally:
    """What became of the valid callers: ``right`` and six ways to fail them; and of the hostile ones."""

    verdicts: Counter[str] = field(default_factory=Counter)
    hostile: Counter[str] = field(default_factory=Counter)
    indexes: dict[int, int] = field(default_factory=dict)  # where each answer says it is on record, and whose it is
    findings: list[str] = field(default_factory=list)

    @property
    def sent(self) -> int:
        return self.verdicts.total()

    def faults(self) -> list[str]:
        """What must never be, one sentence for each kind; the first finding explains it."""
        return [f"{count} {verdict}" for verdict, count in self.verdicts.items() if verdict != "right"] + self.findings[:1]


def message(model: Model, images: Images, reference: str = "", **changes: Any) -> oip.ModelInferRequest:
    """A valid request for raw pixels; ``changes`` replace fields of its one input."""
    request = oip.ModelInferRequest(
        model_name=model.name, model_version=model.version, id=reference, raw_input_contents=[images.tobytes()]
    )
    request.inputs.add(**({"name": "image", "datatype": "UINT8", "shape": images.shape} | changes))
    return request


# --- hostile requests ---------------------------------------------------------------------------------------------------

Spoil: TypeAlias = Callable[[Model, Images, random.Random], bytes]


def _fields(**changes: Any) -> Spoil:
    return lambda model, own, chance: message(model, own, **changes).SerializeToString()


def _cut(model: Model, own: Images, chance: random.Random) -> bytes:
    request = message(model, own)
    request.raw_input_contents[0] = own.tobytes()[: -chance.choice((1, 8, 64))]
    return request.SerializeToString()


def _longer(model: Model, own: Images, chance: random.Random) -> bytes:
    request = message(model, own)
    request.raw_input_contents[0] = own.tobytes() + bytes(chance.choice((1, 8, 64, 640)))
    return request.SerializeToString()


def _several_inputs(model: Model, own: Images, chance: random.Random) -> bytes:
    request = message(model, own)
    name = chance.choice(("image", "mask"))
    request.inputs.add(name=name, datatype="UINT8", shape=own.shape)
    request.raw_input_contents.append(own.tobytes())
    return request.SerializeToString()


def _unknown_output(model: Model, own: Images, chance: random.Random) -> bytes:
    request = message(model, own)
    request.outputs.add(name="weights")
    return request.SerializeToString()


def _raw_and_typed(model: Model, own: Images, chance: random.Random) -> bytes:
    request = message(model, own)
    request.inputs[0].contents.uint_contents.extend(own.ravel().tolist())
    return request.SerializeToString()


def _typed_too_few(model: Model, own: Images, chance: random.Random) -> bytes:
    request = message(model, own)
    del request.raw_input_contents[:]
    request.inputs[0].contents.uint_contents.extend(own.ravel().tolist()[: -chance.randint(1, 64)])
    return request.SerializeToString()


def _other_dimensions(model: Model, own: Images, chance: random.Random) -> bytes:
    shape = chance.choice(
        ([-1, 8, 8, 1], [1 << 40, 8, 8, 1], [1 << 62, 1 << 62, 8, 1], [-(1 << 63), 8, 8, 1], [0, 8, 8, 1], [1] * 40, [])
    )
    return message(model, own, shape=shape).SerializeToString()


def _other_rows(model: Model, own: Images, chance: random.Random) -> bytes:
    rows = max(0, len(own) + chance.choice((-1, 1, 2)))
    return message(model, own, shape=[rows, *own.shape[1:]]).SerializeToString()


def _typed_other_rows(model: Model, own: Images, chance: random.Random) -> bytes:
    """Whoever adds up its neighbours' rows and values finds that one more and one fewer make it right."""
    request = message(model, own, shape=[max(1, len(own) + chance.choice((-1, 1))), *own.shape[1:]])
    if request.inputs[0].shape[0] == len(own):
        request.inputs[0].shape[0] += 1
    del request.raw_input_contents[:]
    request.inputs[0].contents.uint_contents.extend(own.ravel().tolist())
    return request.SerializeToString()


def _empty(model: Model, own: Images, chance: random.Random) -> bytes:
    return b"" if chance.random() < 0.5 else oip.ModelInferRequest(model_name=model.name).SerializeToString()


def _garbage(model: Model, own: Images, chance: random.Random) -> bytes:
    whole = message(model, own).SerializeToString()
    return chance.choice((chance.randbytes(200), whole[: chance.randrange(1, len(whole))], b"\xff" * 64, whole[3:]))


def _elements(model: Model, rows: int, content: bytes) -> bytes:
    request = oip.ModelInferRequest(model_name=model.name, model_version=model.version, raw_input_contents=[content])
    request.inputs.add(name="image", datatype="BYTES", shape=[rows])
    return request.SerializeToString()


def _false_lengths(model: Model, own: Images, chance: random.Random) -> bytes:
    files = [forge.png(image) for image in own]
    lengths = [chance.choice((len(data) - 1, len(data) + 1, 0, (1 << 32) - 1, 1 << 31)) for data in files]
    joined = b"".join(struct.pack("<I", size) + data for size, data in zip(lengths, files, strict=True))
    return _elements(model, len(files), joined)


def _truncated_images(model: Model, own: Images, chance: random.Random) -> bytes:
    files = [forge.png(image) for image in own]
    files[-1] = files[-1][: chance.randrange(0, len(files[-1]) - 1)]
    return _elements(model, len(files), b"".join(struct.pack("<I", len(data)) + data for data in files))


MALFORMED: Mapping[str, Spoil] = {
    "wrong datatype": _fields(datatype="FP32"),
    "unknown datatype": _fields(datatype="COMPLEX"),
    "wrong shape": lambda model, own, chance: message(model, np.zeros((len(own), 8, 9, 1), np.uint8)).SerializeToString(),
    "flat shape": lambda model, own, chance: message(model, own, shape=[own.size]).SerializeToString(),
    "too few bytes": _cut,
    "too many bytes": _longer,
    "too few typed values": _typed_too_few,
    "several inputs": _several_inputs,
    "unknown input name": _fields(name="picture"),
    "unknown output name": _unknown_output,
    "raw and typed at once": _raw_and_typed,
    "negative and huge dimensions": _other_dimensions,
    "another number of rows": _other_rows,
    "another number of typed rows": _typed_other_rows,
    "empty request": _empty,
    "garbage for protobuf": _garbage,
    "BYTES of false lengths": _false_lengths,
    "truncated images": _truncated_images,
}

# --- callers ------------------------------------------------------------------------------------------------------------


@dataclass
class Crowd:
    """Callers at one server, while an attack lasts."""

    server: Server
    calls: Sequence["grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]"]
    tally: Tally
    strict: bool = False
    number: int = 0
    recent: "deque[tuple[int, Floats]]" = field(default_factory=lambda: deque(maxlen=4000))

    def own(self, chance: random.Random, offset: float) -> tuple[int, Images, Floats]:
        """A number that no other caller has, its rows, and the right answer."""
        self.number += 1
        images = numbered(self.number, chance.randint(1, ROWS_MAX))
        wanted = forge.logits(images) + np.float32(offset)
        self.recent.append((self.number, wanted))
        return self.number, images, wanted

    async def valid(self, chance: random.Random) -> None:
        """One caller who has done nothing wrong."""
        model = chance.choice(self.server.models)
        number, images, wanted = self.own(chance, model.offset)
        asked = message(model, images, f"n-{number}").SerializeToString()
        verdict = "never"
        try:
            answer = await asyncio.wait_for(_call(chance.choice(self.calls)(asked)), self.server.within_s)
        except TimeoutError:
            self.tally.findings.append(f"caller {number} was never answered")
        except grpc.aio.AioRpcError as error:
            verdict = "failed"
            self.tally.findings.append(f"caller {number} was told {error.code().name}: {error.details()}")
        else:
            verdict = self._judge(number, wanted, oip.ModelInferResponse.FromString(answer), model)
        self.tally.verdicts[verdict] += 1
        assert verdict == "right" or not self.strict, self.tally.findings[-1]

    def _judge(self, number: int, wanted: Floats, answer: oip.ModelInferResponse, model: Model) -> str:
        verdict = judge(wanted, logits_of(answer))
        if verdict == "right" and model.version and answer.model_version != model.version:
            verdict = "wrong"
        if "log_index" in answer.parameters:
            index = answer.parameters["log_index"].int64_param
            if self.tally.indexes.setdefault(index, number) != number:
                verdict = "duplicated"
        if verdict != "right":
            self.tally.findings.append(f"caller {number} has {verdict} rows under status OK: {self._whose(answer)}")
        return verdict

    def _whose(self, answer: oip.ModelInferResponse) -> str:
        if len(self.tally.findings) >= FINDINGS_EXPLAINED_MAX:
            return "see the earlier ones"
        found = logits_of(answer)
        owners = [number for number, rows in self.recent for row in rows if any(_same(row, other) for other in found)]
        return f"{len(found)} rows, of callers {sorted(set(owners))}" if owners else "rows of no caller at all"

    async def malformed(self, spoil: Spoil, chance: random.Random) -> None:
        model = chance.choice(self.server.models)
        _, images, _ = self.own(chance, model.offset)
        await self._hostile(chance, spoil(model, images, chance))

    async def unknown_model(self, chance: random.Random) -> None:
        _, images, _ = self.own(chance, 0)
        model = chance.choice((Model("nobody"), Model("Mrs. N. *1970"), Model(self.server.models[0].name, "77")))
        await self._hostile(chance, message(model, images).SerializeToString())

    async def impatient(self, chance: random.Random) -> None:
        """Valid, with a deadline that passes on the way, in the queue, or in the run."""
        model = chance.choice(self.server.models)
        _, images, _ = self.own(chance, model.offset)
        await self._hostile(chance, message(model, images).SerializeToString(), chance.uniform(0.0003, 0.03))

    async def fickle(self, chance: random.Random) -> None:
        """Valid, and cancelled at a random moment."""
        model = chance.choice(self.server.models)
        _, images, _ = self.own(chance, model.offset)
        call = chance.choice(self.calls)(message(model, images).SerializeToString())
        task = asyncio.ensure_future(_call(call))
        await asyncio.wait({task}, timeout=chance.uniform(0, 0.03))
        self.tally.hostile["CANCELLED" if call.cancel() else "in time"] += 1
        await asyncio.gather(task, return_exceptions=True)

    async def nobody(self, chance: random.Random) -> None:
        """Valid callers alone: whoever fails them now fails them without being attacked."""
        await self.valid(chance)

    async def _hostile(self, chance: random.Random, asked: bytes, within_s: float | None = None) -> None:
        status = "OK"
        call = chance.choice(self.calls)(asked, timeout=within_s)
        try:
            await asyncio.wait_for(_call(call), self.server.within_s)
        except TimeoutError:
            status = "never"
        except grpc.aio.AioRpcError as error:
            status = error.code().name
        self.tally.hostile[status] += 1


async def _call(call: Awaitable[bytes]) -> bytes:
    return await call


def logits_of(answer: oip.ModelInferResponse) -> Floats:
    """The output named ``logits``, raw or typed; without any rows where there is none to be read."""
    for i, output in enumerate(answer.outputs):
        if output.name == "logits":
            raw = answer.raw_output_contents
            values = np.frombuffer(raw[i], "<f4") if raw else np.array(output.contents.fp32_contents, np.float32)
            with suppress(ValueError):
                return values.reshape(tuple(output.shape) or (0, forge.CLASSES))
    return np.zeros((0, forge.CLASSES), np.float32)


def judge(wanted: Floats, found: Floats) -> str:
    """``right``, or what is wrong with rows that came under status OK: ``lost``, ``duplicated`` or ``wrong``."""
    if found.shape == wanted.shape and np.abs(found - wanted).max() <= WITHIN:
        return "right"
    if found.ndim != 2 or found.shape[1] != wanted.shape[1]:
        return "wrong"
    if any(_same(row, other) for i, row in enumerate(found) for other in found[:i]):
        return "duplicated"
    if len(found) < len(wanted):
        return "lost"
    return "duplicated" if len(found) > len(wanted) else "wrong"


def _same(one: Floats, other: Floats) -> bool:
    return one.shape == other.shape and bool(np.abs(one - other).max() <= WITHIN)


Attack: TypeAlias = Callable[[Crowd, random.Random], Awaitable[None]]


def _spoiled(spoil: Spoil) -> Attack:
    return lambda crowd, chance: crowd.malformed(spoil, chance)


async def _anything(crowd: Crowd, chance: random.Random) -> None:
    await chance.choice([attack for name, attack in ATTACKS.items() if name != "all at once"])(crowd, chance)


ATTACKS: dict[str, Attack] = {
    "nobody hostile": Crowd.nobody,
    "deadline passes in the queue": Crowd.impatient,
    "cancelled at any moment": Crowd.fickle,
    "unknown model": Crowd.unknown_model,
    **{name: _spoiled(spoil) for name, spoil in MALFORMED.items()},
    "all at once": _anything,
}


async def _besiege(
    server: Server, attack: Attack, tally: Tally, seconds: float, calls_max: int, seed: int, strict: bool
) -> None:
    channels = [
        grpc.aio.insecure_channel(server.address, options=[("grpc.use_local_subchannel_pool", 1)]) for _ in range(CHANNELS)
    ]
    crowd = Crowd(server, [channel.unary_unary(METHOD) for channel in channels], tally, strict)
    chances, waiting = random.Random(seed), set[asyncio.Task[None]]()
    end = asyncio.get_running_loop().time() + seconds

    async def one_after_another(chance: random.Random) -> None:
        while asyncio.get_running_loop().time() < end and tally.sent < calls_max:
            kind = partial(crowd.valid, chance) if chance.random() < VALID_SHARE else partial(attack, crowd, chance)
            task = asyncio.ensure_future(kind())
            done, _ = await asyncio.wait({task}, timeout=PATIENCE_S)
            if done:
                await task
            else:
                waiting.add(task)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(one_after_another(random.Random(chances.random())))
        await asyncio.gather(*waiting)
    finally:
        for channel in channels:
            await channel.close()


def besiege(
    server: Server, attack: str, *, seconds: float, seed: int, calls_max: int = 1 << 30, strict: bool = False
) -> Tally:
    """Sends valid callers among hostile ones, so long and so many; ``strict`` ends with the first who is failed."""
    tally = Tally()
    asyncio.run(_besiege(server, ATTACKS[attack], tally, seconds, calls_max, seed, strict))
    return tally
