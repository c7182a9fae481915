"""A desk for tests: a forged model behind a batcher, a journal on disk, and callers who may and may not."""

from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any

from appliance.access import Access, Peer
from appliance.admission import Allowance
from appliance.audit.pseudonym import Epoch
from appliance.config import Rule
from appliance.engine.batcher import Batcher, Runner
from appliance.engine.pace import Pace
from appliance.engine.queue import Queue
from appliance.engine.session import Hardware
from appliance.load import LoadedModel, load
from appliance.model.inputs import Encoded, Images, Raw
from appliance.predict import Call, Desk, Request
from appliance.servables import Servables
from tests.audit import logs
from tests.fakes import clock
from tests.forge import Forge

METHOD = "/appliance.v1.Classification/Classify"
EPOCH = Epoch(1, {"": bytes(range(32))})
SPKI = "cd" * 32
ALLOWANCE = Allowance(1 << 20, 1 << 20)
RULES = (
    Rule("DNS:reader", frozenset({"predict"}), frozenset({"forged"})),
    Rule("DNS:watcher", frozenset({"observe"}), frozenset({"*"})),
    Rule("DNS:admin", frozenset({"administer", "predict"}), frozenset({"*"})),
)


@cache
def model() -> LoadedModel:
    """The forged model, through the whole order of trust, once."""
    vendor = Forge()
    bundle = vendor.bundle()
    hardware = Hardware(("CPUExecutionProvider",), 1)
    return load(vendor.open(bundle), hardware)


@asynccontextmanager
async def desk_of(
    folder: Path, *, runner: Runner | None = None, queue_rows_max: int = 100_000, workers: int = 1, **options: Any
) -> AsyncIterator[Desk]:
    """A desk that is open; ``runner`` stands in for the model's session, ``options`` are the journal's."""
    journal = logs.journal(folder, **({"segment_bytes": 1 << 20} | options))
    with ThreadPoolExecutor(2) as decoders:

        def start(loaded: LoadedModel) -> Batcher:
            rows_max = loaded.manifest.runtime.rows_max
            pace = Pace({}, rows_max, workers)
            queue: Queue[Any] = Queue(queue_rows_max, 1 << 30, rows_max, pace)
            return Batcher(runner or loaded.session, queue, pace, loaded.session.slots, workers=workers, clock=clock)

        servables = Servables(start)
        servables.put(model(), active=True)
        yield Desk(Access(RULES, ALLOWANCE), journal, decoders, EPOCH, servables, open=True, clock=clock)
        await servables.drain()
    journal.close()


def call(*names: str, reference: str = "", deadline: float | None = None) -> Call:
    """A call by whoever has these names in a certificate; without any, by the reader."""
    return Call(METHOD, Peer(names or ("DNS:reader",), SPKI), "01ARYZ6S410000000000000000", reference, deadline)


def raw(images: Images, **changes: Any) -> Callable[[], Request]:
    fields: dict[str, Any] = {
        "model": "forged",
        "version": 0,
        "inputs": [("image", Raw("UINT8", images.shape, images.tobytes()))],
    }
    return lambda: Request(**fields | changes)


def encoded(*images: bytes, **changes: Any) -> Callable[[], Request]:
    fields: dict[str, Any] = {"model": "forged", "version": 0, "inputs": [("", Encoded(images))]}
    return lambda: Request(**fields | changes)
