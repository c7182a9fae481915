"""The auditor's reader: whatever is done to the files of a log shows."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from appliance import canonical
from appliance.audit import segment
from appliance.audit.checkpoint import VerifierKey
from appliance.audit.tree import Tree, leaf_hash
from appliance.audit.verify import Verified, verify
from appliance.errors import AuditLogError
from tests.audit import logs
from tests.audit.logs import VERIFIER

WHOLE = logs.forged([2, 1], [1, 3], [2], [1, 1])
SIZE = 11


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return WHOLE.write(tmp_path / "log")


def root_of(size: int) -> bytes:
    tree = Tree()
    for i in range(size):
        tree.append(leaf_hash(logs.small_record(i)))
    return tree.root()


def refuse(folder: Path, expected: tuple[int, str | None] | None = None, key: VerifierKey = VERIFIER) -> str:
    with pytest.raises(AuditLogError) as caught:
        verify(folder, key, expected)
    return str(caught.value)


def test_a_whole_log_verifies_to_its_size_and_root(folder: Path) -> None:
    done: list[None] = []
    found = verify(folder, VERIFIER, segment_done=lambda: done.append(None))
    assert found == Verified(SIZE, root_of(SIZE), checkpoints=4 + 7, segments=4, unsigned_records=0, set_back=0)
    assert len(done) == 4


def test_an_empty_log_verifies_and_no_log_does_not(tmp_path: Path) -> None:
    assert verify(logs.forged([]).write(tmp_path / "empty"), VERIFIER).size == 0
    (tmp_path / "none").mkdir()
    assert "no audit log" in refuse(tmp_path / "none")


def _swap(folder: Path) -> None:
    one, two = folder / WHOLE.names[1], folder / WHOLE.names[2]
    first, second = one.read_bytes(), two.read_bytes()
    one.write_bytes(second)
    two.write_bytes(first)


def _truncate_at_a_checkpoint(folder: Path) -> None:
    data = WHOLE.segments[1]
    first_group = logs.frames(data)[3]
    assert first_group[0] == segment.CHECKPOINT
    (folder / WHOLE.names[1]).write_bytes(data[: first_group[2]])


def _cut_the_closing_checkpoint(folder: Path) -> None:
    data = WHOLE.segments[1]
    (folder / WHOLE.names[1]).write_bytes(data[: logs.frames(data)[-1][1]])


ALTERATIONS: dict[str, Callable[[Path], object]] = {
    "first segment deleted": lambda folder: (folder / WHOLE.names[0]).unlink(),
    "middle segment deleted": lambda folder: (folder / WHOLE.names[1]).unlink(),
    "segment duplicated before the next": lambda folder: shutil.copy(folder / WHOLE.names[1], folder / f"{4:020d}.log"),
    "segment duplicated at the end": lambda folder: shutil.copy(folder / WHOLE.names[1], folder / f"{SIZE:020d}.log"),
    "segments swapped": _swap,
    "segment renamed": lambda folder: (folder / WHOLE.names[3]).rename(folder / f"{SIZE:020d}.log"),
    "middle segment truncated at a checkpoint": _truncate_at_a_checkpoint,
    "middle segment without its last checkpoint": _cut_the_closing_checkpoint,
    "middle segment emptied": lambda folder: (folder / WHOLE.names[1]).write_bytes(b""),
    "bytes behind a closed segment": lambda folder: (folder / WHOLE.names[1]).write_bytes(WHOLE.segments[1] + b"x"),
}


@pytest.mark.parametrize("what", ALTERATIONS)
def test_an_altered_set_of_segments_is_refused(folder: Path, what: str) -> None:
    ALTERATIONS[what](folder)
    assert "damaged" in refuse(folder)


@pytest.mark.parametrize("cut", range(0, len(WHOLE.segments[1]) - 64, 7))
def test_a_middle_segment_cut_anywhere_is_refused(folder: Path, cut: int) -> None:
    (folder / WHOLE.names[1]).write_bytes(WHOLE.segments[1][:cut])
    refuse(folder)


def test_another_logs_segment_or_key_is_refused(folder: Path) -> None:
    refuse(folder, key=logs.OTHER_KEY.verifier)
    (folder / WHOLE.names[3]).write_bytes(logs.forged([2, 1], [1, 3], [2], [1, 1], key=logs.OTHER_KEY).segments[3])
    refuse(folder)


def test_a_log_that_was_rolled_back_shows_against_what_was_noted(tmp_path: Path, folder: Path) -> None:
    noted = (SIZE, root_of(SIZE).hex())
    older = logs.forged([2, 1], [1, 3], [2]).write(tmp_path / "older")
    assert verify(folder, VERIFIER, noted).size == SIZE
    assert "noted" in refuse(older, noted)
    assert "noted" in refuse(older, (SIZE, None))
    assert verify(older, VERIFIER, (9, root_of(9).hex())).size == 9


def test_a_log_that_grew_since_it_was_noted_continues_it(folder: Path) -> None:
    for size in range(SIZE + 1):
        assert verify(folder, VERIFIER, (size, None)).size == SIZE
        assert verify(folder, VERIFIER, (size, root_of(size).hex())).size == SIZE
    assert "noted" in refuse(folder, (5, root_of(6).hex()))


def test_unsigned_records_do_not_make_a_rolled_back_log_long_enough(tmp_path: Path) -> None:
    """Whoever cuts a log back can pad it with records of his own; without the key he cannot have them signed."""
    older = logs.forged([2, 1], zeros=0)
    folder = older.write(tmp_path / "log")
    padding = b"".join(segment.frame(segment.RECORD, logs.small_record(i)) for i in range(3, SIZE))
    (folder / older.names[0]).write_bytes(older.segments[0] + padding)
    found = verify(folder, VERIFIER)
    assert (found.size, found.unsigned_records) == (3, SIZE - 3)
    assert "noted" in refuse(folder, (SIZE, None))


ODD_RECORDS = {
    "not canonical": b'{"v":1, "index":1}',
    "not JSON": b"a record",
    "an array": b"[1]",
    "another version": b'{"index":1,"v":2}',
    "no index": b'{"v":1}',
    "an index twice": b'{"index":0,"v":1}',
    "an index left out": b'{"index":2,"v":1}',
    "nothing": b"",
}


@pytest.mark.parametrize("what", ODD_RECORDS)
def test_a_record_out_of_form_or_sequence_is_refused_though_it_is_unsigned(tmp_path: Path, what: str) -> None:
    whole = logs.forged([1], zeros=0)
    folder = whole.write(tmp_path / "log")
    (folder / whole.names[0]).write_bytes(whole.segments[0] + segment.frame(segment.RECORD, ODD_RECORDS[what]))
    assert "record 1" in refuse(folder)


def test_a_directory_that_cannot_be_read_is_one_sentence(tmp_path: Path) -> None:
    folder = logs.forged([1]).write(tmp_path / "log")
    (folder / f"{1:020d}.log").mkdir()
    assert refuse(folder) == "The audit log cannot be read."


@pytest.mark.parametrize(("clocks", "set_back"), [
    ([("08:00", "a", 5), ("08:00", "a", 5), ("09:00", "a", 6), ("09:01", "b", 1)], 0),
    ([("08:00", "a", 5), ("07:00", "a", 6), ("07:30", "a", 7), ("07:29", "a", 8)], 2),
    ([("08:00", "a", 5), ("08:01", "a", 4)], 1),
])  # fmt: skip
def test_a_clock_that_was_set_back_is_counted_and_is_no_damage(
    tmp_path: Path, clocks: list[tuple[str, str, int]], set_back: int
) -> None:
    tree = Tree()
    data = logs.signed(tree) + segment.frame(segment.TREE, b"")
    for index, (time, boot, steady) in enumerate(clocks):
        record = canonical.encode({"v": 1, "index": index, "time": f"2026-11-24T{time}", "boot": boot, "mono_us": steady})
        data += segment.frame(segment.RECORD, record)
        tree.append(leaf_hash(record))
    (tmp_path / f"{0:020d}.log").write_bytes(data + logs.signed(tree))
    assert verify(tmp_path, VERIFIER).set_back == set_back
