"""The one writer: a record whatever happens, durable before anybody is answered, and closed for good once a disk fails."""

import asyncio
import errno
import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from appliance import errors
from appliance.audit import journal as journal_module
from appliance.audit.journal import Journal
from appliance.audit.record import Entry, Receipt
from appliance.audit.segment import segment_paths
from appliance.audit.tree import leaf_hash
from appliance.audit.verify import verify
from appliance.errors import AuditLogError, AuditUnavailable
from tests.audit import logs
from tests.audit.logs import VERIFIER
from tests.audit.test_record import OUTCOMES
from tests.fakes import PuppetSync, turn


async def append(journal: Journal, count: int) -> list[Receipt]:
    """So many records, each durable before the next."""
    return [await journal.append(Entry("start", "done")) for _ in range(count)]


def grow(folder: Path, count: int, **options: Any) -> Journal:
    """Opens a log, adds so many records, closes it."""

    async def run() -> Journal:
        opened = logs.journal(folder, **options)
        try:
            await append(opened, count)
        finally:
            opened.close()
        return opened

    return asyncio.run(run())


class Watched:
    """Keeps what a journal tells its watcher."""

    def __init__(self) -> None:
        self.outcomes: list[tuple[str, str | None]] = []
        self.groups: list[int] = []

    def recorded(self, entry: Entry, seconds: float) -> None:
        self.outcomes.append((entry.outcome, entry.error))

    def committed(self, records: int, seconds: float) -> None:
        self.groups.append(records)


# --- a record whatever happens ---------------------------------------------------------------------------------------


def recorded(folder: Path, event: str, raised: BaseException | None) -> tuple[dict[str, Any], Watched]:
    """The one record of a block in which this was raised."""
    watched, caught = Watched(), list[BaseException]()

    async def run() -> None:
        journal = logs.journal(folder, watcher=watched)
        try:
            async with journal.entry(event, "/a.Service/Call", "a-request") as entry:
                if raised is not None:
                    raise raised
            assert entry.receipt == Receipt(0, leaf_hash(logs.payloads(folder)[0]))
        except BaseException as error:
            caught.append(error)
        finally:
            journal.close()

    asyncio.run(run())
    assert caught == ([] if raised is None else [raised])
    [record] = logs.records(folder)
    assert verify(folder, VERIFIER).size == 1
    return record, watched


@pytest.mark.parametrize(("event", "outcome"), [("call", "answered"), ("model.load", "done")])
def test_a_block_that_ends_well_is_on_record_once(tmp_path: Path, event: str, outcome: str) -> None:
    record, watched = recorded(tmp_path / "log", event, None)
    assert (record["event"], record["outcome"]) == (event, outcome)
    assert "error" not in record
    assert (record["method"], record["request_id"]) == ("/a.Service/Call", "a-request")
    assert watched.outcomes == [(outcome, None)]
    assert watched.groups == [1]


@pytest.mark.parametrize("kind", [*OUTCOMES, KeyboardInterrupt], ids=lambda kind: kind.__name__)
def test_a_block_that_raises_anything_is_on_record_once(tmp_path: Path, kind: type[BaseException]) -> None:
    outcome = OUTCOMES.get(kind, ("failed", "internal"))
    record, watched = recorded(tmp_path / "log", "call", kind("Mary Nobody"))
    assert (record["outcome"], record.get("error")) == outcome
    assert "Nobody" not in str(record)
    assert watched.outcomes == [outcome]


def test_a_caller_who_cancels_twice_still_leaves_one_record(tmp_path: Path) -> None:
    folder, sync = tmp_path / "log", PuppetSync()

    async def run() -> None:
        journal = logs.journal(folder, sync=sync)

        async def call() -> None:
            async with journal.entry("call"):
                await asyncio.Event().wait()

        task = asyncio.create_task(call())
        await turn()
        task.cancel()
        await sync.gate.entered()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        sync.gate.open()
        journal.close()

    asyncio.run(run())
    assert [record["outcome"] for record in logs.records(folder)] == ["cancelled"]


def test_receipts_are_the_places_and_hashes_that_the_auditor_finds(tmp_path: Path) -> None:
    folder = tmp_path / "log"

    async def run() -> list[Receipt]:
        journal = logs.journal(folder, segment_bytes=20_000)  # some segments of them
        receipts = await asyncio.gather(*[journal.append(Entry("start", "done")) for _ in range(300)])
        journal.close()
        return receipts

    receipts = asyncio.run(run())
    assert receipts == [Receipt(i, leaf_hash(data)) for i, data in enumerate(logs.payloads(folder))]
    assert verify(folder, VERIFIER).size == 300


# --- durable before anybody is answered, in groups -------------------------------------------------------------------


def test_nobody_is_answered_before_the_sync_and_what_waits_becomes_one_group(tmp_path: Path) -> None:
    sync, watched = PuppetSync(), Watched()

    async def run() -> None:
        journal = logs.journal(tmp_path / "log", sync=sync, watcher=watched)
        first = journal.append(Entry("start"))
        await sync.gate.entered()
        rest = [journal.append(Entry("start")) for _ in range(50)]
        await turn(20)
        assert not first.done()
        sync.gate.pull()
        await sync.gate.entered()
        await first
        assert not any(future.done() for future in rest)
        sync.gate.pull()
        assert [receipt.index for receipt in await asyncio.gather(*rest)] == list(range(1, 51))
        journal.close()

    asyncio.run(run())
    assert sync.calls == 2
    assert watched.groups == [1, 50]
    assert verify(tmp_path / "log", VERIFIER).checkpoints == 1 + 2


def test_refusals_wait_for_each_other_and_for_nobody_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched()

    async def run() -> None:
        journal = logs.journal(tmp_path / "log", watcher=watched)
        monkeypatch.setattr(journal_module, "UNHURRIED_S", 1000)
        refused = [journal.append(Entry("call", "shed")), journal.append(Entry("call", "expired"))]
        await turn(20)
        assert not any(future.done() for future in refused)
        await append(journal, 1)
        assert all(future.done() for future in refused)
        monkeypatch.setattr(journal_module, "UNHURRIED_S", 0.001)
        await asyncio.gather(*[journal.append(Entry("call", "shed")) for _ in range(5)])
        await append(journal, 1)
        journal.close()

    asyncio.run(run())
    assert watched.groups == [3, 5, 1]


def test_a_group_has_its_limit(tmp_path: Path) -> None:
    sync, watched = PuppetSync(), Watched()

    async def run() -> None:
        journal = logs.journal(tmp_path / "log", sync=sync, watcher=watched)
        first = journal.append(Entry("start"))
        await sync.gate.entered()
        rest = [journal.append(Entry("start")) for _ in range(journal_module.GROUP_RECORDS_MAX + 1)]
        sync.gate.open()
        await asyncio.gather(first, *rest)
        journal.close()

    asyncio.run(run())
    assert watched.groups == [1, journal_module.GROUP_RECORDS_MAX, 1]


def test_more_waiting_records_than_the_limit_are_refused_and_the_log_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "WAITING_RECORDS_MAX", 3)
    sync = PuppetSync()

    async def run() -> None:
        journal = logs.journal(tmp_path / "log", sync=sync)
        first = journal.append(Entry("start"))
        await sync.gate.entered()
        waiting = [journal.append(Entry("start")) for _ in range(3)]
        with pytest.raises(AuditUnavailable):
            await journal.append(Entry("start"))
        assert journal.writable
        sync.gate.open()
        await asyncio.gather(first, *waiting)
        await append(journal, 1)
        journal.close()

    asyncio.run(run())
    assert verify(tmp_path / "log", VERIFIER).size == 5


def test_closing_writes_what_waits_and_takes_no_more(tmp_path: Path) -> None:
    async def run() -> None:
        journal = logs.journal(tmp_path / "log")
        waiting = [journal.append(Entry("start")) for _ in range(10)]
        journal.close()
        assert not journal.writable
        assert len(await asyncio.gather(*waiting)) == 10
        with pytest.raises(AuditUnavailable):
            await journal.append(Entry("start"))

    asyncio.run(run())
    assert verify(tmp_path / "log", VERIFIER).size == 10


# --- a disk that fails -----------------------------------------------------------------------------------------------


def test_a_failing_sync_answers_nobody_and_is_never_tried_again(tmp_path: Path) -> None:
    folder, sync, watched, failures = tmp_path / "log", PuppetSync(), Watched(), list[str]()

    async def run() -> None:
        journal = logs.journal(folder, sync=sync, watcher=watched)
        journal.on_failure = lambda: failures.append("failed")
        sync.gate.pull()
        await append(journal, 1)
        await sync.gate.entered()
        doomed = [journal.append(Entry("start")) for _ in range(3)]
        await sync.gate.entered()
        doomed += [journal.append(Entry("start")) for _ in range(3)]
        sync.error = OSError(errno.EIO, "an error of the disk")
        sync.gate.open()
        ends = await asyncio.gather(*doomed, return_exceptions=True)
        assert [type(end) for end in ends] == [AuditUnavailable] * 6
        assert not journal.writable
        calls = sync.calls
        for _ in range(3):
            with pytest.raises(AuditUnavailable):
                await journal.append(Entry("start"))
        with pytest.raises(AuditUnavailable):
            async with journal.entry("call"):
                pass
        journal.close()
        assert sync.calls == calls == 2

    asyncio.run(run())
    assert failures == ["failed"]
    assert watched.outcomes == [("failed", "audit_unavailable")]
    again = grow(folder, 1)  # what the disk really holds decides: here the write had gone through
    assert verify(folder, VERIFIER).size == again.position.size
    assert again.position.size >= 2


def _full(fd: int, data: bytes, at: int) -> int:
    raise OSError(errno.ENOSPC, "no space left")


def _read_only(fd: int, data: bytes, at: int) -> int:
    raise OSError(errno.EROFS, "read-only file system")


def _short(write: Callable[[int, bytes, int], int]) -> Callable[[int, bytes, int], int]:
    return lambda fd, data, at: write(fd, data[:-40], at)


FAILING_WRITES = {"full": _full, "read-only": _read_only, "short": _short(os.pwrite), "nothing": lambda fd, data, at: 0}


@pytest.mark.parametrize("how", FAILING_WRITES)
def test_a_failing_write_answers_nobody_and_the_log_goes_on_when_it_is_opened_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    folder, sync, failures = tmp_path / "log", PuppetSync(held=False), list[str]()

    async def run() -> None:
        journal = logs.journal(folder, sync=sync)
        journal.on_failure = lambda: failures.append("failed")
        await append(journal, 2)
        with monkeypatch.context() as patch:
            patch.setattr(os, "pwrite", FAILING_WRITES[how])
            with pytest.raises(AuditUnavailable):
                await journal.append(Entry("start"))
        for _ in range(2):  # though the disk is well again
            with pytest.raises(AuditUnavailable):
                await journal.append(Entry("start"))
        journal.close()
        assert not journal.writable

    asyncio.run(run())
    assert failures == ["failed"]
    assert sync.calls == 2
    again = grow(folder, 1)
    assert (again.recovered is not None) == (how == "short")
    assert verify(folder, VERIFIER).size == 3, "whole though the record was: nobody was told of it, and nobody signed it"


def _failing(call: str, code: int) -> Callable[..., Any]:
    """A system call that fails for every segment of a log but the first."""
    real = getattr(os, call)

    def afflicted(target: Any, *arguments: Any, **options: Any) -> Any:
        name = str(target) if isinstance(target, Path) else str(Path(f"/proc/self/fd/{target}").readlink())
        if name.endswith(".log") and not name.endswith(f"{0:020d}.log"):
            raise OSError(code, "as the test wants it")
        return real(target, *arguments, **options)

    return afflicted


@pytest.mark.parametrize(("call", "cause"), [
    ("open", "EMFILE"), ("posix_fallocate", "ENOSPC"), ("pwrite", "EIO"), ("fsync", "EIO"),
])  # fmt: skip
def test_a_log_that_cannot_go_on_with_a_new_segment_says_so_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, cause: str
) -> None:
    folder = tmp_path / "log"

    async def run() -> int:
        journal = logs.journal(folder, segment_bytes=20_000)
        answered = 0
        with monkeypatch.context() as patch:
            patch.setattr(os, call, _failing(call, getattr(errno, cause)))
            with suppress(AuditUnavailable):
                while answered < 1000:
                    await append(journal, 1)
                    answered += 1
            assert (journal.writable, journal.position.size) == (False, answered + 1)
            journal.close()
        return answered

    answered = asyncio.run(run())
    assert len(segment_paths(folder)) == 1, "there is no trace of the second one"
    assert 0 < answered < 1000
    last = logs.records(folder)[answered]
    assert (last["event"], last["outcome"], last["detail"]) == ("log.degraded", "done", {"cause": cause})
    assert verify(folder, VERIFIER).size == answered + 1
    assert grow(folder, 1, segment_bytes=20_000).recovered is None
    assert verify(folder, VERIFIER).size == answered + 2


@contextmanager
def no_descriptor_left() -> Iterator[None]:
    """As when strangers' connections have taken every one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = [os.open("/dev/null", os.O_RDONLY)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (taken[0] + 50, hard))
    try:
        with suppress(OSError):
            while True:
                taken.append(os.open("/dev/null", os.O_RDONLY))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for fd in taken:
            os.close(fd)


@pytest.mark.parametrize("is_reopened", [False, True], ids=["new", "reopened"])
def test_a_log_goes_on_with_new_segments_though_no_descriptor_is_left(tmp_path: Path, is_reopened: bool) -> None:
    folder = tmp_path / "log"
    if is_reopened:
        grow(folder, 1, segment_bytes=20_000)

    async def run() -> None:
        journal = logs.journal(folder, segment_bytes=20_000)
        with no_descriptor_left():
            await append(journal, 120)
        journal.close()

    asyncio.run(run())
    assert len(segment_paths(folder)) > 2
    assert {record["event"] for record in logs.records(folder)} == {"start"}


def test_a_log_that_is_closed_keeps_no_descriptor_though_there_was_one_for_half_of_what_it_wanted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, real, spares = tmp_path / "log", os.open, list[int]()
    grow(folder, 1)

    def afflicted(path: Any, *arguments: Any, **options: Any) -> int:
        if path != "/dev/null":
            return real(path, *arguments, **options)
        if spares:
            raise OSError(errno.EMFILE, "as the test wants it")
        spares.append(real(path, *arguments, **options))
        return spares[0]

    monkeypatch.setattr(os, "open", afflicted)
    grow(folder, 1)
    assert len(spares) == 1
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(spares[0])


def test_where_a_half_made_segment_cannot_be_taken_back_nothing_more_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A record behind it would contradict the segment, should that come to light after all."""
    folder = tmp_path / "log"

    def stays(path: Path, missing_ok: bool = False) -> None:
        raise OSError(errno.EIO, "as the test wants it")

    async def run() -> int:
        journal = logs.journal(folder, segment_bytes=20_000)
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", _failing("fsync", errno.EIO))
            patch.setattr(Path, "unlink", stays)
            with suppress(AuditUnavailable):
                await append(journal, 1000)
            journal.close()
        return journal.position.size

    answered = asyncio.run(run())
    assert len(segment_paths(folder)) == 2
    assert verify(folder, VERIFIER).size == answered
    assert {record["event"] for record in logs.records(folder)} == {"start"}
    grow(folder, 1, segment_bytes=20_000)
    assert verify(folder, VERIFIER).size == answered + 1


@pytest.mark.parametrize("detail", [{"score": 0.5}, {"text": "x" * 70_000}, {"n": 2**53}, {"text": "\ud800"}], ids=[
    "no canonical form", "over the limit", "over 53 bits", "no Unicode",
])  # fmt: skip
def test_an_entry_that_cannot_be_written_fails_alone_and_the_log_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, detail: dict[str, Any]
) -> None:
    """It would be a mistake of ours; a log that ended by it could be ended by whoever can provoke it."""
    sync, watched, failures = PuppetSync(), Watched(), list[str]()

    async def run() -> None:
        journal = logs.journal(tmp_path / "log", sync=sync, watcher=watched)
        journal.on_failure = lambda: failures.append("failed")
        first = journal.append(Entry("start"))
        await sync.gate.entered()
        group = [journal.append(Entry("start", detail=said)) for said in (detail, None, detail, None)]
        sync.gate.open()
        await first
        ends = await asyncio.gather(*group, return_exceptions=True)
        assert [end.index if isinstance(end, Receipt) else type(end) for end in ends] == [
            AuditUnavailable, 1, AuditUnavailable, 2,
        ]  # fmt: skip
        with pytest.raises(AuditUnavailable):
            await journal.append(Entry("start", detail=detail))  # with nobody beside it
        assert journal.writable
        assert (await append(journal, 1))[0].index == 3
        journal.close()

    asyncio.run(run())
    assert (failures, sync.calls, sum(watched.groups)) == ([], 3, 4)
    assert "a record of start cannot be written" in caplog.text
    assert verify(tmp_path / "log", VERIFIER).size == 4


# --- opening ---------------------------------------------------------------------------------------------------------


def test_a_log_has_one_writer(tmp_path: Path) -> None:
    async def run() -> None:
        journal = logs.journal(tmp_path / "log")
        with pytest.raises(AuditLogError, match="in use"):
            logs.journal(tmp_path / "log")
        await append(journal, 1)  # the first one is not disturbed
        journal.close()
        logs.journal(tmp_path / "log").close()

    asyncio.run(run())
    assert verify(tmp_path / "log", VERIFIER).size == 1


def test_a_log_goes_on_after_a_clean_end_with_nothing_to_recover(tmp_path: Path) -> None:
    for size in (2, 4, 6):
        opened = grow(tmp_path / "log", 2)
        assert (opened.recovered, opened.position.size) == (None, size)
    assert verify(tmp_path / "log", VERIFIER).size == 6


def test_a_log_of_many_segments_goes_on_and_verifies(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    for _ in range(3):
        grow(folder, 40, segment_bytes=20_000)
    assert len(segment_paths(folder)) >= 4
    assert all(path.stat().st_size == 20_000 for path in segment_paths(folder))
    assert verify(folder, VERIFIER).size == 120
    segment_paths(folder)[1].unlink()
    with pytest.raises(AuditLogError, match="damaged"):
        verify(folder, VERIFIER)


def test_a_group_larger_than_a_segment_is_written_all_the_same(tmp_path: Path) -> None:
    sync = PuppetSync()

    async def run() -> None:
        journal = logs.journal(tmp_path / "log", segment_bytes=20_000, sync=sync)
        first = journal.append(Entry("start"))
        await sync.gate.entered()
        rest = [journal.append(Entry("start", detail={"text": "x" * 1000})) for _ in range(60)]
        sync.gate.open()
        await asyncio.gather(first, *rest)
        await append(journal, 2)
        journal.close()

    asyncio.run(run())
    assert verify(tmp_path / "log", VERIFIER).size == 63
    assert grow(tmp_path / "log", 1, segment_bytes=20_000).recovered is None
    assert verify(tmp_path / "log", VERIFIER).size == 64


def test_a_directory_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "odd" / "lock").mkdir(parents=True)
    (tmp_path / "odder" / f"{0:020d}.log").mkdir(parents=True)
    for folder in (tmp_path / "none", tmp_path / "file", tmp_path / "odd", tmp_path / "odder"):
        with pytest.raises(AuditLogError, match="cannot be read or written"):
            Journal(folder, logs.KEY, logs.ORIGIN)


def test_a_log_under_another_key_does_not_open_and_its_lock_is_let_go(tmp_path: Path) -> None:
    grow(tmp_path / "log", 1)
    with pytest.raises(AuditLogError):
        Journal(tmp_path / "log", logs.OTHER_KEY, logs.ORIGIN)
    assert grow(tmp_path / "log", 1).position.size == 2


def test_every_leaf_of_the_error_tree_can_be_blamed() -> None:
    for kind in (*errors.RequestError.__subclasses__(), *errors.BundleError.__subclasses__()):
        entry = Entry("call")
        entry.blame(kind("a sentence"))
        assert entry.error == kind.code
