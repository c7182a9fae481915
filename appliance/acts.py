"""One act at a time, at one time, on record, and only then remembered.

::

    async with acts.act("model.activate", by) as act:   ◀─ no other act meanwhile; the one look at the clock
        ...                                             ◀─ whatever raises here leaves everything as it was
                                                        ◀─ the record, durable: now it is done
                                                        ◀─ what it does to files (``act.then``) and to what the site
                                                           remembers (state.py)

The record is the act: nothing takes effect that is not on record. What the site remembers is made good after a crash, by the
next start, from the log (recall.py); a file that a crash has kept from its place is brought again.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from appliance.access import Caller
from appliance.alarms import Alarm, alarms
from appliance.audit.journal import Journal
from appliance.audit.record import Entry
from appliance.bundle.policy import Policy
from appliance.errors import AuditUnavailable, ConfigError, Overloaded
from appliance.gate import answering
from appliance.recall import Recalled
from appliance.site import Site
from appliance.state import State, Version

TICK_S = 60.0
REASON_CHARACTERS_MAX = 200

log = logging.getLogger(__name__)


@dataclass(eq=False, slots=True)
class Act:
    """An act that is under way: its record, its moment, and what is to be done, in a thread, once it is on record."""

    entry: Entry
    now: datetime
    then: Callable[[], object] | None = None


def require_reason(reason: str) -> None:
    """Raises ConfigError where it is none."""
    if not (1 <= len(reason) <= REASON_CHARACTERS_MAX and reason.isprintable()):
        raise ConfigError(f"a reason has 1 to {REASON_CHARACTERS_MAX} printable characters")


def utc_now() -> datetime:
    return datetime.now(UTC)


class Acts:
    """What a site remembers, and the one way to change it. Use from one event loop, while its journal is open.

    ``versions_max`` versions of each model serve at once. ``serving`` says which one is active in this process, and
    ``drifting`` which alarms what it decides gives rise to; ``tell`` hears, at every tick, the alarms that are on and
    what is remembered.
    """

    def __init__(
        self,
        site: Site,
        seed: bytes,
        journal: Journal,
        recalled: Recalled,
        *,
        versions_max: int,
        clock: Callable[[], datetime] = utc_now,
        serving: Callable[[], Mapping[str, int] | None] = lambda: None,
        drifting: Callable[[], Iterable[Alarm]] = lambda: (),
        tell: Callable[[Sequence[Alarm], State, datetime], None] = lambda on, state, now: None,
    ) -> None:
        self.state, self.journal, self.versions_max = recalled.state, journal, versions_max
        self._recalled = recalled.acts
        self._site, self._seed, self._clock, self._serving, self._tell = site, seed, clock, serving, tell
        self._drifting = drifting
        self._lock, self._busy = asyncio.Lock(), False
        self._on: dict[tuple[str, str], Alarm] = {}

    async def begin(self) -> None:
        """Says so, on record too, where the state was older than the log. Raises AuditUnavailable."""
        if self._recalled:
            log.warning("what this site remembers was older than its audit log: %d acts were made good", self._recalled)
            await self.journal.append(Entry("state.recall", outcome="done", detail={"acts": self._recalled}))

    def policies(self) -> tuple[Policy, ...]:
        """What the vendors say. Raises StateError where a policy is not the one that was verified."""
        return self._site.policies(self.state)

    def answering(self, name: str) -> list[Version]:
        """The versions of a model that answer, the active one first."""
        return answering(self._site, self.state, name, self.versions_max)

    @asynccontextmanager
    async def act(
        self, event: str, by: Caller, request_id: str | None = None, reason: str | None = None
    ) -> AsyncIterator[Act]:
        """Does not wait where another act is under way: whoever gave up would still have his, later.

        Raises:
            Overloaded: another act is under way.
            ConfigError: the reason is none.
            AuditUnavailable: no record can be written.
        """
        if self._busy:
            raise Overloaded("Another act is under way here; try again when it has ended.")
        self._busy = True
        try:
            async with self._lock:
                now = self._clock()
                async with self.journal.entry(event, request_id=request_id) as entry:
                    act = Act(entry, now)
                    entry.caller = by.on_record()
                    if reason is not None:
                        require_reason(reason)
                        entry.detail = {"reason": reason}
                    yield act
                if act.then is not None:
                    await asyncio.to_thread(act.then)
                await self._remember(self.state.after(entry.event, entry.model, entry.detail, now), now)
        finally:
            self._busy = False

    async def accept(self, by: Caller, reason: str, request_id: str | None = None) -> None:
        """Goes on from here, on an operator's word: after a restore, or after the clock was wrong."""
        async with self.act("state.accept", by, request_id, reason):
            by.authorise_every_model()

    async def watch(self, end: asyncio.Event) -> None:
        """Ticks until the end, or until the log fails, which ends the process anyway."""
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(end.wait(), TICK_S)
                return
            try:
                await self.tick()
            except AuditUnavailable:
                if not self.journal.writable:
                    return
                log.exception("an alarm cannot be put on record")
            except Exception:  # a tick that fails must not be the last
                log.exception("the site cannot be looked at")

    async def tick(self) -> None:
        """Settles, and says which alarms begin and end. Raises AuditUnavailable."""
        await self.settle()
        async with self._lock:
            now, serving = self._clock(), self._serving()
            found = await asyncio.to_thread(lambda: list(alarms(self._site, self.state, now, self.versions_max, serving)))
            found += self._drifting()  # not in a thread: calls are counted meanwhile
            on = {(alarm.kind, alarm.subject): alarm for alarm in found}
            for which in on.keys() ^ self._on.keys():
                alarm, begins = on.get(which) or self._on[which], which in on
                log.warning("alarm %s: %s: %s", "begins" if begins else "ends", alarm.subject, alarm.sentence)
                detail: dict[str, int | str] = {"kind": alarm.kind, "subject": alarm.subject, "on": int(begins)}
                await self.journal.append(Entry("alarm", outcome="done", detail=detail))
            self._on = on
            self._tell(found, self.state, now)

    async def settle(self) -> None:
        """Writes down the time and the log's place."""
        async with self._lock:
            await self._remember(self.state, self._clock())

    async def _remember(self, state: State, now: datetime) -> None:
        position = self.journal.position
        self.state = state.seen(now).at(position.size, position.root.hex())
        try:
            await asyncio.to_thread(self._site.remember, self.state, self._seed)
        except OSError:  # what was done is in the log, from which the next start makes this good
            log.exception("what this site remembers cannot be written")
