"""The models that serve, by name and version; a servable, in the words of TensorFlow Serving.

Each name has at most one active version, which answers those who ask for none, and perhaps some that were active before. A
switch is one assignment in the event loop: a call finds the old version or the new one, and keeps what it found until it
is answered. A version that ends is no longer found, and goes once its last call has left.
"""

import asyncio
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field, replace
from time import perf_counter_ns, time_ns
from types import TracebackType
from typing import Protocol

from appliance.bundle.grant import Terms
from appliance.drift import Drift
from appliance.engine.batcher import Batcher
from appliance.errors import UnknownModel
from appliance.load import LoadedModel
from appliance.override import Override


@dataclass(slots=True)
class Told:
    """What a model has answered, counted in calls, rows and nanoseconds, for a protocol that asks."""

    answered: int = 0
    rows: int = 0
    failed: int = 0
    decode_ns: int = 0
    queue_ns: int = 0
    run_ns: int = 0
    call_ns: int = 0
    failed_ns: int = 0
    last_ms: int = 0

    def count(self, rows: int, decode_s: float, queue_s: float, run_s: float) -> None:
        """One call was answered."""
        self.answered += 1
        self.rows += rows
        self.decode_ns += round(decode_s * 1e9)
        self.queue_ns += round(queue_s * 1e9)
        self.run_ns += round(run_s * 1e9)
        self.last_ms = time_ns() // 1_000_000


@dataclass(eq=False, slots=True)
class Servable:
    """A loaded model, and the batcher in front of it; what it has decided is counted from its first answer on."""

    model: LoadedModel
    batcher: Batcher
    ending: "asyncio.Event | None" = None
    told: Told = field(default_factory=Told)
    drift: Drift = field(init=False)

    def __post_init__(self) -> None:
        self.drift = Drift(self.model.manifest.decision.expected)


class Held:
    """A block inside which a call may ``hold`` a servable, which stays until the block's end, even if the version ends.

    A class and not a generator, as in the journal: each call passes here.
    """

    __slots__ = ("_began", "_servable")

    def __init__(self) -> None:
        self._servable: Servable | None = None

    def __enter__(self) -> "Held":
        return self

    def hold(self, servable: Servable) -> None:
        servable.batcher.calls += 1
        self._servable, self._began = servable, perf_counter_ns()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        servable = self._servable
        if servable is None:
            return
        took_ns, told = perf_counter_ns() - self._began, servable.told
        if kind is None:
            told.call_ns += took_ns
        else:
            told.failed += 1
            told.failed_ns += took_ns
        servable.batcher.calls -= 1
        if servable.ending and not servable.batcher.calls:
            servable.ending.set()


class Watcher(Protocol):
    """Who wants to know what serves: the metrics."""

    def serves(self, servable: Servable) -> None: ...

    def ended(self, servable: Servable) -> None: ...


class Servables:
    """Use from one event loop."""

    def __init__(self, start: Callable[[LoadedModel], Batcher], watcher: Watcher | None = None) -> None:
        self._start, self._watcher = start, watcher
        self._found: dict[str, dict[int, Servable]] = {}
        self._active: dict[str, int] = {}
        self._ending: set[asyncio.Task[None]] = set()

    def __iter__(self) -> Iterator[Servable]:
        for versions in self._found.values():
            yield from versions.values()

    @property
    def active(self) -> dict[str, int]:
        """The active version of each model that has one."""
        return dict(self._active)

    def versions(self, name: str) -> list[int]:
        """The versions of a model that serve, the newest first."""
        return sorted(self._found.get(name, {}), reverse=True)

    def serves(self, name: str, version: int = 0) -> bool:
        """Whether ``find`` would find it."""
        return (version or self._active.get(name, 0)) in self._found.get(name, {})

    def find(self, name: str, version: int = 0) -> Servable:
        """Version 0 is the active one. Raises UnknownModel where it does not serve."""
        found = self._found.get(name, {}).get(version or self._active.get(name, 0))
        if found is None:
            raise UnknownModel("No such model or version serves here.")
        return found

    def put(self, model: LoadedModel, *, active: bool) -> None:
        """Lets a model serve, in the place of one of the same version."""
        servable = Servable(model, self._start(model))
        versions = self._found.setdefault(model.name, {})
        before, versions[model.version] = versions.get(model.version), servable
        if active:
            self._active[model.name] = model.version
        if before is not None:
            self._end(before)
        if self._watcher:
            self._watcher.serves(servable)

    def keep(self, name: str, versions: Collection[int]) -> None:
        """Ends every version of a model but these."""
        for version, servable in list(self._found.get(name, {}).items()):
            if version not in versions:
                del self._found[name][version]
                if self._active.get(name) == version:
                    del self._active[name]
                self._end(servable)

    def renew(self, digest: str, terms: Terms) -> None:
        """Gives a model that serves its newer grant."""
        for servable in self:
            if servable.model.digest == digest:
                servable.model = replace(servable.model, terms=terms)

    def rule(self, digest: str, override: Override) -> None:
        """Gives a model that serves its thresholds; a call that has found it keeps those that it has found."""
        for servable in self:
            if servable.model.digest == digest:
                servable.model = servable.model.ruled(override)

    async def drain(self) -> None:
        """Answers what was accepted, and ends everything."""
        for name in list(self._found):
            self.keep(name, ())
        await asyncio.gather(*self._ending)

    def _end(self, servable: Servable) -> None:
        if self._watcher:
            self._watcher.ended(servable)
        task = asyncio.get_running_loop().create_task(_drained(servable))
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)


async def _drained(servable: Servable) -> None:
    """Waits for the calls that hold it: they may not have come to its batcher yet."""
    if servable.batcher.calls:
        servable.ending = asyncio.Event()
        await servable.ending.wait()
    await servable.batcher.drain()
