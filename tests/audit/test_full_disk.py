"""A real file system that is full, and one that can only be read: no answer without a record, and on when there is room."""

import asyncio
import os
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from appliance.audit.record import Entry
from appliance.audit.verify import verify
from appliance.errors import AuditLogError, AuditUnavailable
from tests.audit import logs
from tests.audit.logs import VERIFIER, records

SEGMENT_BYTES = 1 << 20
# Where a group does not fit behind them, so many bytes of a segment are left for words of that, each with its checkpoint.
SEGMENT_END_BYTES, DEGRADED_BYTES_MIN = 45_000, 500


def _mount(*arguments: object) -> bool:
    with suppress(OSError):
        return subprocess.run(["mount", *map(str, arguments)], capture_output=True, check=False).returncode == 0
    return False


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MB of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if not _mount("-t", "tmpfs", "-o", "size=8m", "tmpfs", folder):
        pytest.skip("this machine does not let us mount a file system")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


async def fill(folder: Path) -> int:
    """Records until the log takes no more; how many were acknowledged."""
    journal, acknowledged = logs.journal(folder, segment_bytes=SEGMENT_BYTES), 0
    try:
        while True:
            acknowledged += len(await asyncio.gather(*[journal.append(Entry("call", "done")) for _ in range(200)]))
    except AuditUnavailable:
        assert not journal.writable
        return acknowledged
    finally:
        journal.close()


def test_a_full_disk_ends_the_log_and_it_goes_on_when_there_is_room(small_disk: Path) -> None:
    log, ballast = small_disk / "log", small_disk / "ballast"
    ballast.write_bytes(bytes(3 << 20))
    acknowledged = asyncio.run(fill(log))
    assert acknowledged > 1000
    assert asyncio.run(fill(log)) == 0, "opened again, it is as full as before"
    assert verify(log, VERIFIER).size == acknowledged + 2
    assert [(r["event"], r["detail"]) for r in records(log)[acknowledged:]] == 2 * [("log.degraded", {"cause": "ENOSPC"})]
    for _ in range(SEGMENT_END_BYTES // DEGRADED_BYTES_MIN):
        assert asyncio.run(fill(log)) == 0, "what is kept free is used up, and the log is as whole as before"
    full = verify(log, VERIFIER).size
    assert asyncio.run(fill(log)) == 0
    assert acknowledged + 2 < verify(log, VERIFIER).size == full
    ballast.unlink()
    assert asyncio.run(fill(log)) > 1000
    assert verify(log, VERIFIER).size > acknowledged + 1000


def test_a_disk_that_can_only_be_read_is_refused_in_a_sentence_and_verified_all_the_same(small_disk: Path) -> None:
    async def one() -> None:
        journal = logs.journal(small_disk / "log", segment_bytes=SEGMENT_BYTES)
        await journal.append(Entry("call", "done"))
        journal.close()

    asyncio.run(one())
    assert _mount("-o", "remount,ro", small_disk)
    with pytest.raises(AuditLogError, match="cannot be read or written"):
        logs.journal(small_disk / "log")
    assert verify(small_disk / "log", logs.VERIFIER).size == 1
    assert _mount("-o", "remount,rw", small_disk)
    asyncio.run(one())
    assert verify(small_disk / "log", logs.VERIFIER).size == 2
    assert os.statvfs(small_disk).f_bavail > 0
