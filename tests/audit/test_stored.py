"""Records read back: exactly those that are signed, each with a receipt that the auditor's key opens."""

import asyncio
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.audit import proof, stored
from appliance.audit.record import Entry
from appliance.errors import AuditLogError
from tests.audit import logs
from tests.audit.logs import VERIFIER

SEGMENTS = st.lists(st.lists(st.integers(1, 5), min_size=1, max_size=4), min_size=1, max_size=4)


@settings(max_examples=50, deadline=None)
@given(segments=SEGMENTS, data=st.data())
def test_any_record_of_any_log_is_found_with_its_receipt(
    tmp_path_factory: pytest.TempPathFactory, segments: list[list[int]], data: st.DataObject
) -> None:
    folder = logs.forged(*segments).write(tmp_path_factory.mktemp("logs") / "log")
    whole = sum(map(sum, segments))
    first, stop = sorted((data.draw(st.integers(0, whole)), data.draw(st.integers(0, whole + 3))))
    found = list(stored.read(folder, first, stop))
    assert [one.index for one in found] == list(range(first, min(stop, whole)))
    for one in found:
        assert one.data == logs.small_record(one.index)
        assert proof.decode(one.receipt(), VERIFIER) == (one.index, one.data)
    assert stored.size(folder) == whole


def test_what_nobody_has_signed_is_not_shown(tmp_path: Path) -> None:
    log = logs.forged([2, 3])
    folder = log.write(tmp_path / "log")
    path = folder / log.names[0]
    last_checkpoint = logs.frames(log.segments[0])[-1][1]
    path.write_bytes(log.segments[0][:last_checkpoint])
    assert [one.index for one in stored.read(folder)] == [0, 1]
    assert stored.size(folder) == 2


def test_a_log_is_read_while_it_is_written(tmp_path: Path) -> None:
    folder = tmp_path / "log"

    async def run() -> None:
        journal = logs.journal(folder, segment_bytes=1 << 13)
        for size in range(1, 60):
            await journal.append(Entry("start", "done"))
            assert stored.size(folder) == journal.position.size == size
            assert [one.index for one in stored.read(folder, size - 1)] == [size - 1]
        journal.close()

    asyncio.run(run())
    assert [one.data for one in stored.read(folder)] == logs.payloads(folder)


@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_hole_is_never_passed_over(tmp_path: Path, which: int) -> None:
    log = logs.forged([2, 2], [2, 2], [2, 2])
    folder = log.write(tmp_path / "log")
    data = bytearray(log.segments[which])
    data[logs.frames(bytes(data))[3][1] + 12] ^= 1
    (folder / log.names[which]).write_bytes(data)
    with pytest.raises(AuditLogError, match="damaged"):
        list(stored.read(folder))
    (folder / log.names[which]).unlink()
    if which == 1:
        with pytest.raises(AuditLogError, match="damaged"):
            list(stored.read(folder))


def test_a_folder_without_a_log_and_a_damaged_log_are_said_to_be_so(tmp_path: Path) -> None:
    with pytest.raises(AuditLogError, match="no audit log"):
        list(stored.read(tmp_path))
    log = logs.forged([1])
    folder = log.write(tmp_path / "log")
    (folder / log.names[0]).rename(folder / f"{1:020d}.log")  # a tree of no leaves cannot have one
    with pytest.raises(AuditLogError, match="damaged"):
        list(stored.read(folder))
