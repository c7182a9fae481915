"""Retention: what is old goes, as whole files and on record, and what is left is provable as before."""

import json
from datetime import datetime
from pathlib import Path

import pytest

from appliance import canonical
from appliance.audit import proof, segment, stored
from appliance.audit.segment import segment_paths
from appliance.audit.tree import Tree, leaf_hash
from appliance.audit.verify import verify
from appliance.errors import AuditLogError
from tests.audit import logs
from tests.audit.logs import VERIFIER


def yearly(folder: Path, *, prunes: int | None = None, signed: bool = True) -> Path:
    """A segment of two records for each year from 2020 to 2025; the last one may say that the log begins at ``prunes``."""
    folder.mkdir()
    tree = Tree()
    for year in range(2020, 2026):
        data, first = logs.signed(tree) + segment.frame(segment.TREE, b"".join(tree.frontier)), tree.size
        said = [{"event": "call"}, {"event": "call"}]
        if year == 2025 and prunes is not None:
            said[1] = {"event": "audit.prune", "outcome": "done", "detail": {"first": prunes}}  # type: ignore[dict-item]
        for month, one in enumerate(said, 6):
            time = f"{year}-{month:02d}-01T08:00:00.000000Z"
            record = canonical.encode({"v": 1, "index": tree.size, "time": time, **one})
            data += segment.frame(segment.RECORD, record)
            if year < 2025 or signed or "detail" not in one:
                tree.append(leaf_hash(record))
                data += logs.signed(tree)
        (folder / f"{first:020d}.log").write_bytes(data)
    return folder


def prune(folder: Path, count: int) -> None:
    for path in segment_paths(folder)[:count]:
        path.unlink()


@pytest.mark.parametrize(("before", "first", "count"), [
    ("2019-01-01", 0, 0), ("2020-06-15", 0, 0), ("2020-07-02", 2, 1), ("2022-01-01", 4, 2), ("2099-01-01", 10, 5),
])  # fmt: skip
def test_only_segments_that_are_older_as_a_whole_go_and_never_the_last(
    tmp_path: Path, before: str, first: int, count: int
) -> None:
    folder = yearly(tmp_path / "log")
    found, old = stored.older_than(folder, datetime.fromisoformat(before).strftime("%Y-%m-%dT%H:%M:%S"))
    assert (found, old) == (first, segment_paths(folder)[:count])


def test_a_pruned_log_verifies_and_its_receipts_are_what_they_were(tmp_path: Path) -> None:
    folder = yearly(tmp_path / "log", prunes=4)
    whole, receipts = verify(folder, VERIFIER), [one.receipt() for one in stored.read(folder)]
    prune(folder, 2)
    found = verify(folder, VERIFIER, (7, None))
    assert (found.size, found.root) == (whole.size, whole.root)
    assert [one.index for one in stored.read(folder)] == list(range(4, 12))
    assert [one.receipt() for one in stored.read(folder)] == receipts[4:]
    assert proof.decode(receipts[0], VERIFIER)[0] == 0, "of what is gone, too"
    with pytest.raises(AuditLogError, match="before what was pruned"):
        verify(folder, VERIFIER, (3, None))


def test_a_crash_in_the_middle_of_pruning_leaves_a_log_that_verifies(tmp_path: Path) -> None:
    folder = yearly(tmp_path / "log", prunes=8)
    for _ in range(4):
        prune(folder, 1)
        assert verify(folder, VERIFIER).size == 12


@pytest.mark.parametrize(("prunes", "signed"), [(None, True), (2, True), (4, False)])
def test_what_is_missing_without_a_signed_word_of_it_is_damage(tmp_path: Path, prunes: int | None, signed: bool) -> None:
    folder = yearly(tmp_path / "log", prunes=prunes, signed=signed)
    verify(folder, VERIFIER)
    prune(folder, 2)
    with pytest.raises(AuditLogError, match="before record 4 is missing"):
        verify(folder, VERIFIER)
    assert json.loads(next(iter(stored.read(folder))).data)["index"] == 4
