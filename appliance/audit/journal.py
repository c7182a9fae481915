"""The one writer of the log (audit-format sections 4 and 5): group commit, fail closed, go on after a restart.

Calls hand in an entry and wait. All that waits is one group: the event loop encodes it and signs one checkpoint over it,
a thread writes both and makes them durable with one ``fdatasync``, and only then do the answers go. The thread runs almost
nothing but those two system calls, since a thread that computes would fight the event loop for the interpreter. An entry
that cannot be encoded is a mistake of ours, and fails alone: one that somebody could provoke would otherwise end the
appliance.
"""

import asyncio
import errno
import logging
import os
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from queue import SimpleQueue
from time import perf_counter
from types import TracebackType
from typing import Protocol

from appliance.audit import proof, record, segment
from appliance.audit.checkpoint import Checkpoint, LogKey, VerifierKey
from appliance.audit.open_segment import Head, NoSegment, OpenSegment, lock
from appliance.audit.record import Entry, Origin, Receipt
from appliance.audit.segment import segment_paths
from appliance.audit.tree import Tree, leaf_hash
from appliance.errors import AuditLogError, AuditUnavailable

SEGMENT_BYTES = 16 << 20
GROUP_RECORDS_MAX = 256
# Under load many are refused at once. They are in no hurry, and each commit that they share is an answer for somebody else.
UNHURRIED, UNHURRIED_S = frozenset({"shed", "expired"}), 0.02
WAITING_RECORDS_MAX = 100_000
DEGRADED = "log.degraded"

log = logging.getLogger(__name__)


class Watcher(Protocol):
    """Who wants to know what is recorded, and how the log fares: the metrics. Called in the event loop."""

    def recorded(self, entry: Entry, seconds: float) -> None:
        """A call or an act has ended, after so many seconds."""

    def committed(self, records: int, seconds: float) -> None:
        """A group of records was made durable."""


@dataclass(slots=True)
class _Waiting:
    entry: Entry
    future: "asyncio.Future[Receipt]"


@dataclass(eq=False, slots=True)
class _Group:
    """Records on their way to the disk, as one ``block``; ``head`` opens the segment that begins with them."""

    waiting: list[_Waiting]
    receipts: list[Receipt | None]
    block: bytes
    head: Head | None
    signed: Checkpoint
    started: float
    stored: bool = False
    ended: bool = False  # what was signed is not these records, but that there is no segment for them
    failed: Exception | None = None


class Journal:
    """An open log. Use from one event loop; ``close`` before the process ends.

    ``position`` is what is durable: the size and root of the newest checkpoint. ``on_failure`` is called
    when the log takes no more records.
    """

    def __init__(
        self,
        directory: Path,
        key: LogKey,
        origin: Origin,
        *,
        watcher: Watcher | None = None,
        segment_bytes: int = SEGMENT_BYTES,
        sync: Callable[[int], None] = os.fdatasync,
    ) -> None:
        """Opens the log, recovering what a crash left.

        Raises:
            AuditLogError: it is in use, not ours, damaged, or cannot be written.
        """
        self._key, self._key_id, self._origin = key, key.verifier.id, origin
        self.directory, self._watcher = directory, watcher
        self._file = OpenSegment(directory, segment_bytes, sync)
        self.on_failure: Callable[[], None] = lambda: None
        self._waiting: list[_Waiting] = []
        self._group: _Group | None = None  # the one that is being stored
        self._soon = False  # whether the next one is made ready in this turn of the loop
        self._groups: SimpleQueue[_Group | None] = SimpleQueue()
        self._open, self._failed = True, False
        try:
            self._lock = lock(directory)
            try:
                self._tree, self.recovered = self._file.recover(self._key.verifier)
                if self._file.is_closed:
                    self._file.start(self._head())
                self.position = Checkpoint(self._tree.size, self._tree.root())
            except BaseException:
                os.close(self._lock)
                raise
        except OSError as error:
            raise AuditLogError("The audit log's directory cannot be read or written.") from error
        self._thread = threading.Thread(target=self._store_for_ever, name="audit-writer", daemon=True)
        self._thread.start()

    @property
    def verifier(self) -> VerifierKey:
        return self._key.verifier

    @property
    def writable(self) -> bool:
        return self._open and not self._failed

    def size_bytes(self) -> int:
        """How much of the disk the log takes."""
        return sum(path.stat().st_size for path in segment_paths(self.directory))

    def entry(
        self,
        event: str,
        method: str | None = None,
        request_id: str | None = None,
        *,
        understood: Callable[[BaseException], BaseException] = lambda error: error,
    ) -> "_OnRecord":
        """A call or an act, on record whatever becomes of it: ``async with`` gives its entry, and leaving the block waits
        until the record is durable. ``understood`` may put another error in the place of one that ends the block.

        Raises:
            AuditUnavailable: the record could not be written; it takes the place of any answer or error.
        """
        return _OnRecord(self, Entry(event, method=method, request_id=request_id), self._watcher, understood)

    def append(self, entry: Entry) -> "asyncio.Future[Receipt]":
        """Hands an entry in. The future ends when the record is durable and signed."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Receipt] = loop.create_future()
        if not self.writable or len(self._waiting) >= WAITING_RECORDS_MAX:
            future.set_exception(_unavailable())
            return future
        hurried = entry.outcome not in UNHURRIED
        if self._group is None and not self._soon and (hurried or not self._waiting):
            self._soon = hurried
            loop.call_later(0 if hurried else UNHURRIED_S, self._next)  # what else comes until then is of the same group
        self._waiting.append(_Waiting(entry, future))
        return future

    def close(self) -> None:
        """Writes what waits, and lets the log go."""
        self._open = False
        self._groups.put(None)
        self._thread.join()
        while (group := self._group or self._prepare()) is not None:
            self._group = group
            if group.failed is None and not group.stored:
                self._store(group)
            with suppress(RuntimeError):  # the loop is gone: so are those who waited
                self._settle(group)
        self._file.close()
        with suppress(OSError):
            os.close(self._lock)

    def _next(self) -> None:
        """Sends the next group on its way, unless one is."""
        self._soon = False
        if self._open and self._group is None and (group := self._prepare()) is not None:
            self._group = group
            self._groups.put(group)

    def _prepare(self) -> _Group | None:
        """Makes the next group ready, if anything waits."""
        taken, self._waiting = self._waiting[:GROUP_RECORDS_MAX], self._waiting[GROUP_RECORDS_MAX:]
        if not taken:
            return None
        try:
            return self._encode_group(taken)
        except Exception as error:
            self._fail(taken, error)
            return None

    def _encode_group(self, taken: list[_Waiting]) -> _Group:
        """An entry that cannot be encoded has no receipt."""
        started, encoded, index = perf_counter(), list[bytes | None](), self._tree.size
        for waiting in taken:
            encoded.append(self._encode(waiting.entry, index))
            index += encoded[-1] is not None
        records = [data for data in encoded if data is not None]
        if not records:
            return _Group(taken, [None] * len(taken), b"", None, self.position, started)
        block = b"".join([segment.frame(segment.RECORD, data) for data in records])
        head = None if self._file.has_room(len(block)) else self._head()
        before, leaves = self._tree.copy(), [leaf_hash(data) for data in records]
        for leaf in leaves:
            self._tree.append(leaf)
        signed, note = self._sign(self._tree)
        receipts: list[Receipt | None] = []
        places = zip(count(before.size), leaves, strict=False)  # the count has no end
        for waiting, data in zip(taken, encoded, strict=True):
            if data is None:
                receipts.append(None)
                continue
            index, leaf = next(places)
            made = proof.encode(index, before.path(index, leaves), note, data) if waiting.entry.wants_proof else b""
            receipts.append(Receipt(index, leaf, made))
        return _Group(taken, receipts, block + segment.frame(segment.CHECKPOINT, note), head, signed, started)

    def _settle(self, group: _Group) -> None:
        """Wakes those whose records were stored, and sends the next group on its way."""
        if group is not self._group:  # closing has settled it
            return
        self._group = None
        if group.failed is None or group.ended:
            self.position = group.signed
        if group.failed is not None:
            self._fail(group.waiting, group.failed)
            return
        _deliver(group.waiting, group.receipts)
        self._next()
        if self._watcher:
            self._watcher.committed(len(group.receipts) - group.receipts.count(None), perf_counter() - group.started)

    def _fail(self, group: list[_Waiting], error: Exception) -> None:
        """Ends the log: whatever went wrong, what is on the disk is no longer known, and nothing more may be written."""
        log.error("the audit log failed; it takes no more records", exc_info=error)
        self._failed = True
        lost, self._waiting = group + self._waiting, []
        _deliver(lost, [None] * len(lost))
        self.on_failure()

    # --- the writer's thread ---------------------------------------------------------------------------------------

    def _store_for_ever(self) -> None:
        while (group := self._groups.get()) is not None:
            self._store(group)
            with suppress(RuntimeError):  # the loop is gone, or closing settles it
                group.waiting[0].future.get_loop().call_soon_threadsafe(self._settle, group)

    def _store(self, group: _Group) -> None:
        """One write, one sync. The order is the promise: nobody is answered before the last line."""
        try:
            if group.head is not None:
                self._start(group, group.head)
            if group.block:
                self._file.write(group.block)
            group.stored = True
        except Exception as error:
            group.failed = error

    def _start(self, group: _Group, head: Head) -> None:
        """Begins a segment. Where none can be made, the one before, which is as it was, gets a last record that says so."""
        try:
            self._file.start(head)
        except NoSegment as error:
            with suppress(OSError):  # then the log ends without such a word
                group.signed = self._store_last(head, errno.errorcode.get(error.errno or 0, "unknown"))
                group.ended = True
            raise

    def _store_last(self, head: Head, cause: str) -> Checkpoint:
        """What is signed afterwards, whether or not there was room. Raises OSError."""
        tree = Tree(head.size, head.frontier)
        data = self._encode(Entry(DEGRADED, outcome="done", detail={"cause": cause}), tree.size)
        if data is None:
            return self.position
        tree.append(leaf_hash(data))
        signed, note = self._sign(tree)
        block = segment.frame(segment.RECORD, data) + segment.frame(segment.CHECKPOINT, note)
        if not self._file.has_reserve(len(block)):
            return self.position
        self._file.write(block)
        return signed

    def _encode(self, entry: Entry, index: int) -> bytes | None:
        try:
            return record.encode(entry, index, self._origin)
        except (ValueError, TypeError):
            log.exception("a record of %s cannot be written", entry.event)
            return None

    def _head(self) -> Head:
        return Head.of(self._tree, self._sign(self._tree)[1])

    def _sign(self, tree: Tree) -> tuple[Checkpoint, bytes]:
        """The checkpoint of a tree, and its signed note."""
        checkpoint = Checkpoint(tree.size, tree.root())
        return checkpoint, self._key.sign(checkpoint, self._key_id)


class _OnRecord:
    """The block of ``Journal.entry``. A class and not a generator: each call passes here, and this takes half the time."""

    __slots__ = ("_journal", "_started", "_understood", "_watcher", "entry")

    def __init__(
        self, journal: Journal, entry: Entry, watcher: Watcher | None, understood: Callable[[BaseException], BaseException]
    ) -> None:
        self._journal, self.entry, self._watcher, self._understood = journal, entry, watcher, understood
        self._started = 0.0

    async def __aenter__(self) -> Entry:
        self._started = perf_counter()
        return self.entry

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        entry, meant = self.entry, None if error is None else self._understood(error)
        if meant is None:
            entry.outcome = "answered" if entry.event == "call" else "done"
        else:
            entry.blame(meant)
        try:
            entry.receipt = await self._journal.append(entry)  # written, too, for a caller who does not wait for it
        except AuditUnavailable as unavailable:
            entry.blame(unavailable)
            raise
        finally:
            if self._watcher:
                self._watcher.recorded(entry, perf_counter() - self._started)
        if meant is not None and meant is not error:
            raise meant from None


def _unavailable() -> AuditUnavailable:
    return AuditUnavailable("No audit record can be written, so there is no answer.")


def _deliver(group: Sequence[_Waiting], receipts: Sequence[Receipt | None]) -> None:
    """Wakes the callers of a group. Where there is no receipt, there is no answer."""
    for waiting, receipt in zip(group, receipts, strict=True):
        if waiting.future.cancelled():
            continue
        if receipt is None:
            waiting.future.set_exception(_unavailable())
        else:
            waiting.future.set_result(receipt)
