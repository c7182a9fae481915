"""Torn or tampered: what a crash leaves is taken up again, and what a crash cannot leave is refused."""

import asyncio
import random
from pathlib import Path

import pytest

from appliance.audit import segment
from appliance.audit.checkpoint import Checkpoint
from appliance.audit.open_segment import Recovered
from appliance.audit.record import Entry
from appliance.audit.recovery import resume
from appliance.audit.verify import verify
from appliance.errors import AuditLogError
from tests.audit import logs
from tests.audit.logs import KEY, VERIFIER
from tests.audit.test_tree import merkle_tree_hash

GROUPS = (1, 2, 1, 3, 1, 2)
DATA = logs.forged(GROUPS, zeros=0).segments[0]
FRAMES = logs.frames(DATA)
HEAD_END = FRAMES[1][2]
LAST_CHECKPOINT = FRAMES[-1][1]
SIGNED_END = [end for kind, _, end in FRAMES if kind == segment.CHECKPOINT][-2]


def surviving(data: bytes) -> tuple[int, int, int]:
    """Of a segment that was cut: where what is signed ends, how many records that holds, and how many whole ones follow."""
    end = records = unsigned = 0
    for kind, start, stop in FRAMES:
        if data[start:stop] != DATA[start:stop]:
            break
        unsigned += kind == segment.RECORD
        if kind != segment.RECORD:  # a checkpoint, or the tree that the first one signs
            end, records, unsigned = stop, records + unsigned, 0
    return end, records, unsigned


async def gone_on(folder: Path) -> tuple[int, Recovered | None]:
    """Opens a log again and adds a record: its index, and what was recovered before."""
    journal = logs.journal(folder)
    index = (await journal.append(Entry("start"))).index
    journal.close()
    return index, journal.recovered


@pytest.mark.parametrize("zeros", [False, True], ids=["cut off", "zeros behind"])
def test_a_segment_cut_at_any_byte_goes_on_with_exactly_its_signed_records(zeros: bool) -> None:
    """Also: no record that a surviving checkpoint covers is ever lost."""
    for cut in range(len(DATA) + 1):
        data = DATA[:cut] + bytes(len(DATA) - cut) * zeros
        end, records, unsigned = surviving(data)
        found = resume(data, VERIFIER)
        if end < HEAD_END:
            assert found is None
            continue
        assert found is not None
        assert (found.tree.size, found.end, found.head_end, found.cut_records) == (records, end, HEAD_END, unsigned)
        assert found.tree.root() == merkle_tree_hash([logs.small_record(i) for i in range(records)])
        assert found.cut_bytes == len(data[end:].rstrip(b"\0"))


def test_a_journal_takes_up_a_log_cut_anywhere_and_says_what_it_found(tmp_path: Path) -> None:
    boundaries = [end + off for _, _, end in FRAMES for off in (-1, 0, 1)]
    for cut in sorted({*random.Random(5).sample(range(len(DATA)), 40), *boundaries}):
        whole = logs.forged(GROUPS, zeros=0)
        folder = whole.write(tmp_path / str(cut))
        path = folder / whole.names[0]
        path.write_bytes(DATA[:cut])
        end, records, unsigned = surviving(DATA[:cut])

        index, recovered = asyncio.run(gone_on(folder))
        assert index == records
        cut_bytes = len(DATA[end if end >= HEAD_END else 0 : cut].rstrip(b"\0"))  # zeros are what a segment is made of
        assert recovered == (Recovered(unsigned, cut_bytes) if cut_bytes else None)
        assert logs.payloads(folder)[:records] == [logs.small_record(i) for i in range(records)]
        assert verify(folder, VERIFIER).size == records + 1


def test_a_flipped_bit_before_the_last_checkpoint_is_damage_and_never_a_torn_write() -> None:
    for i in range(LAST_CHECKPOINT):
        data = bytearray(DATA)
        data[i] ^= 1 << i % 8
        with pytest.raises(AuditLogError):
            resume(bytes(data), VERIFIER)


def test_a_flipped_bit_before_the_last_checkpoint_is_found_by_the_auditor(tmp_path: Path) -> None:
    whole = logs.forged(GROUPS)
    folder = whole.write(tmp_path / "log")
    path = folder / whole.names[0]
    assert verify(folder, VERIFIER).size == sum(GROUPS)
    for i in range(LAST_CHECKPOINT):
        data = bytearray(whole.segments[0])
        data[i] ^= 1 << i % 8
        path.write_bytes(data)
        with pytest.raises(AuditLogError):
            verify(folder, VERIFIER)


def test_a_broken_last_checkpoint_costs_the_records_of_its_group_which_nobody_was_told_of() -> None:
    for i in range(LAST_CHECKPOINT, len(DATA)):
        found = resume(DATA[:i] + bytes([DATA[i] ^ 1]) + DATA[i + 1 :], VERIFIER)
        assert found is not None
        assert (found.tree.size, found.cut_records) == (sum(GROUPS[:-1]), GROUPS[-1])


def reframed(number: int, payload: bytes, kind: bytes | None = None) -> bytes:
    """The segment with one frame's payload replaced, under a checksum that fits: whoever tampers can compute those."""
    found, start, end = FRAMES[number]
    return DATA[:start] + segment.frame(kind or found, payload) + DATA[end:]


def payload(number: int) -> bytes:
    _, start, end = FRAMES[number]
    return DATA[start + segment.HEADER_BYTES : end]


TAMPERED = {
    "altered record": reframed(2, b'{"index":0,"v":2}'),
    "altered last record": reframed(len(FRAMES) - 2, b'{"index":99,"v":1}'),
    "record left out": DATA[: FRAMES[4][1]] + DATA[FRAMES[4][2] :],
    "record twice": DATA[: FRAMES[4][2]] + DATA[FRAMES[4][1] :],
    "records swapped": DATA[: FRAMES[4][1]]
    + DATA[FRAMES[5][1] : FRAMES[5][2]]
    + DATA[FRAMES[4][1] : FRAMES[4][2]]
    + DATA[FRAMES[5][2] :],
    "checkpoint by another key": reframed(3, logs.OTHER_KEY.sign(Checkpoint(1, bytes(32)), VERIFIER.id)),
    "checkpoint of another root": reframed(3, KEY.sign(Checkpoint(1, bytes(32)), VERIFIER.id)),
    "older checkpoint in a newer one's place": reframed(len(FRAMES) - 1, payload(3)),
    "tree frame with a hash too many": reframed(1, bytes(32)),
    "tree frame of half a hash": reframed(1, bytes(16)),
    "second tree frame": reframed(2, b"", segment.TREE),
    "record for a head": reframed(0, logs.small_record(0), segment.RECORD),
    "record for a tree": reframed(1, logs.small_record(0), segment.RECORD),
}


@pytest.mark.parametrize("what", TAMPERED)
def test_tampering_under_fitting_checksums_is_refused_by_both_readers(what: str, tmp_path: Path) -> None:
    data = TAMPERED[what]
    with pytest.raises(AuditLogError):
        resume(data, VERIFIER)
    folder = tmp_path / "log"
    folder.mkdir()
    (folder / logs.forged(GROUPS).names[0]).write_bytes(data)
    with pytest.raises(AuditLogError):
        verify(folder, VERIFIER)


def test_an_altered_tree_frame_is_refused() -> None:
    data = logs.forged([3], [1]).segments[1]
    tree_frame = logs.frames(data)[1]
    altered = bytearray(data[tree_frame[1] + segment.HEADER_BYTES : tree_frame[2]])
    altered[0] ^= 1
    with pytest.raises(AuditLogError):
        resume(data[: tree_frame[1]] + segment.frame(segment.TREE, bytes(altered)) + data[tree_frame[2] :], VERIFIER)


def test_a_damaged_log_does_not_open_and_is_not_touched(tmp_path: Path) -> None:
    whole = logs.forged(GROUPS)
    folder = whole.write(tmp_path / "log")
    path = folder / whole.names[0]
    path.write_bytes(TAMPERED["altered record"])
    with pytest.raises(AuditLogError, match="damaged"):
        logs.journal(folder)
    assert path.read_bytes() == TAMPERED["altered record"]


def test_a_torn_head_is_dropped_and_the_segment_before_it_goes_on(tmp_path: Path) -> None:
    whole = logs.forged([2, 1], [1])
    head_end = logs.frames(whole.segments[1])[1][2]
    for cut in (0, 1, head_end // 2, head_end - 1):
        folder = whole.write(tmp_path / str(cut))
        (folder / whole.names[1]).write_bytes(whole.segments[1][:cut] + bytes(100))
        assert asyncio.run(gone_on(folder))[0] == 3
        assert verify(folder, VERIFIER).size == 4


def test_what_a_crash_left_is_signed_or_wiped_before_anything_else_is_written(tmp_path: Path) -> None:
    """A torn write left behind a later record would make the closed segment look tampered with."""
    whole = logs.forged(GROUPS, zeros=0)
    folder = whole.write(tmp_path / "log")
    path = folder / whole.names[0]
    path.write_bytes(DATA[:LAST_CHECKPOINT] + b"torn" * 1000)
    journal = logs.journal(folder)
    journal.close()
    records_end = logs.frames(DATA)[-1][1]
    assert journal.recovered == Recovered(GROUPS[-1], records_end - SIGNED_END + 4000)
    data = path.read_bytes()
    assert segment.is_blank(data, logs.frames(data)[-1][2])
    found = verify(folder, VERIFIER)
    assert (found.size, found.unsigned_records) == (sum(GROUPS[:-1]), 0)
    assert asyncio.run(gone_on(folder)) == (sum(GROUPS[:-1]), None)
