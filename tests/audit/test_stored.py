"""Records read back: exactly those that are signed, each with a receipt that the auditor's key opens."""

import asyncio
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.audit import proof, segment, stored
from appliance.audit.record import Entry
from appliance.audit.stored import Place
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


@settings(max_examples=50, deadline=None)
@given(segments=SEGMENTS, data=st.data())
def test_whoever_keeps_a_place_reads_what_is_new_and_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, segments: list[list[int]], data: st.DataObject
) -> None:
    """The log grows by groups, and what was read of it is gone from the disk the next time."""
    log = logs.forged(*segments)
    folder, place, found = tmp_path_factory.mktemp("log"), Place(), list[int]()
    for name, whole in zip(log.names, log.segments, strict=True):
        ends = [end for kind, _, end in logs.frames(whole) if kind == segment.CHECKPOINT]
        for end in (*data.draw(st.lists(st.sampled_from(ends), unique=True).map(sorted)), len(whole)):
            gone = place.at if place.path == folder / name else 0
            (folder / name).write_bytes(b"?" * gone + whole[gone:end] + bytes(len(whole) - end))
            found += [one.index for one in stored.read(folder, len(found), place=place)]
    assert found == list(range(sum(map(sum, segments))))


def test_a_place_in_another_log_is_not_gone_on_from(tmp_path: Path) -> None:
    place = Place()
    folder = logs.forged([2, 3]).write(tmp_path / "log")
    assert len(list(stored.read(folder, place=place))) == 5
    assert list(stored.read(folder, 5, place=place)) == []
    (path,) = segment.segment_paths(folder)
    path.write_bytes(logs.forged([2, 2]).segments[0])
    with pytest.raises(AuditLogError, match="not the one that was read"):
        list(stored.read(folder, 5, place=place))
