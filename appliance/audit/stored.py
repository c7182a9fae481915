"""Reads records back from a log's files, each with what proves it. What is not signed is not shown.

Nothing is checked but the frames: that is ``verify``'s work, or that of whoever gets a receipt. A receipt needs no more than
the segment that its record stands in, whose first frames say what came before (audit-format sections 3.1 and 7).
"""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from appliance.audit import proof, segment
from appliance.audit.segment import HEADER_BYTES, READS_MAX, Frame, segment_paths
from appliance.audit.signed import tree_of
from appliance.audit.tree import Tree, leaf_hash
from appliance.errors import AuditLogError


@dataclass(frozen=True, eq=False, slots=True)
class _Group:
    """The records that one checkpoint was the first to cover, and the tree before them."""

    size: int
    frontier: tuple[bytes, ...]
    records: Sequence[bytes]
    note: bytes


@dataclass(frozen=True, eq=False, slots=True)
class Stored:
    """A record's place and its bytes."""

    index: int
    data: bytes
    _group: _Group

    @property
    def checkpoint(self) -> bytes:
        """The signed note that was the first to cover the record."""
        return self._group.note

    def receipt(self) -> bytes:
        """The C2SP tlog-proof that the record is in the log."""
        group = self._group
        path = Tree(group.size, group.frontier).path(self.index, [leaf_hash(data) for data in group.records])
        return proof.encode(self.index, path, group.note, self.data)


@dataclass(eq=False, slots=True)
class Place:
    """How far a log was read: to a checkpoint of a segment, and the tree that it signed. Who keeps one while the log grows
    need not read the segment from its start again.
    """

    path: Path | None = None
    at: int = 0
    note: bytes = b""
    tree: Tree = field(default_factory=Tree)


def read(directory: Path, first: int = 0, stop: int | None = None, place: Place | None = None) -> Iterator[Stored]:
    """The signed records from ``first`` on, before ``stop``. The appliance may be writing the log.

    ``place`` moves on with what is read; ``first`` is then the record behind it.

    Raises:
        AuditLogError: there is no log, or it cannot be read this way; ``verify`` says what is wrong with it.
    """
    paths = _paths(directory)
    earlier = [path for path in paths if int(path.stem) <= first]
    reached: int | None = None
    for path in paths[max(0, len(earlier) - 1) :]:
        if reached is not None and int(path.stem) != reached:
            raise _damaged()
        for group in _groups(path, path == paths[-1], place):
            if stop is not None and group.size >= stop:
                return
            for index, data in enumerate(group.records, group.size):
                if index >= first and (stop is None or index < stop):
                    yield Stored(index, data, group)
            reached = group.size + len(group.records)
        if reached is None:
            reached = place.tree.size if place is not None and place.path == path else int(path.stem)


def older_than(directory: Path, time: str) -> tuple[int, list[Path]]:
    """The segments all of whose records are older than a time as records spell it, and the index of the record behind them.

    The last segment is never among them. Raises as ``read``.
    """
    paths, old = _paths(directory), list[Path]()
    for path in paths[:-1]:
        if any(json.loads(one)["time"] >= time for group in _groups(path, False) for one in group.records):
            break
        old.append(path)
    return int(paths[len(old)].stem), old


def size(directory: Path) -> int:
    """How many records there are, with those that were pruned. Raises as ``read``."""
    last = _paths(directory)[-1]
    newest = int(last.stem)
    for group in _groups(last, True):
        newest = group.size + len(group.records)
    return newest


def first(directory: Path) -> int:
    """The index with which the log begins. Raises as ``read``."""
    return int(_paths(directory)[0].stem)


def sync(directory: Path) -> None:
    """Makes what was read durable: its writer may not have got so far. Raises AuditLogError."""
    for path in segment_paths(directory)[-2:]:
        try:
            fd = os.open(path, os.O_RDONLY)
            try:
                os.fdatasync(fd)
            finally:
                os.close(fd)
        except OSError as error:
            raise AuditLogError("The audit log cannot be read.") from error


def _paths(directory: Path) -> list[Path]:
    """The segments, of which there is at least one. Raises AuditLogError."""
    if not (paths := segment_paths(directory)):
        raise AuditLogError("There is no audit log in this directory.")
    return paths


def _groups(path: Path, last: bool, place: Place | None = None) -> Iterator[_Group]:
    """The groups of a segment, or those behind a place in it; of the ``last`` the end may be torn. Raises AuditLogError."""
    tree: Tree | None = None
    waiting: list[bytes] = []
    start = place.at if place is not None and place.path == path else 0
    frames = _frames(path, last, start)
    if place is not None and start:
        tree = place.tree.copy()
        if not frames or frames.pop(0).payload != place.note:
            raise AuditLogError("The audit log is not the one that was read: it was put back, or goes on behind a gap.")
    for frame in frames:
        if frame.kind == segment.RECORD:
            waiting.append(frame.payload)
        elif frame.kind == segment.TREE:
            tree = tree_of(int(path.stem), frame.payload)
        elif tree is not None:
            yield _Group(tree.size, tree.frontier, waiting, frame.payload)
            for one in waiting:
                tree.append(leaf_hash(one))
            waiting = []
            if place is not None:
                at = start + frame.end - HEADER_BYTES - len(frame.payload)
                place.path, place.at, place.note, place.tree = path, at, frame.payload, tree.copy()


def _frames(path: Path, last: bool, start: int = 0) -> list[Frame]:
    """A segment's frames, without a hole; of the last one read again while it is being written. Raises AuditLogError."""
    before = b""
    for _ in range(READS_MAX):
        try:
            with path.open("rb") as file:
                file.seek(start)
                data = file.read()
        except OSError as error:
            raise AuditLogError("The audit log cannot be read.") from error
        found = list(segment.frames(data))
        end = found[-1].end if found else 0
        name = found[0].payload.partition(b"\n")[0].decode(errors="replace") if found else ""
        torn = any(segment.checkpoints_after(data, end, name)) if last else not segment.is_blank(data, end)
        if not torn:
            return found
        if data == before:
            break
        before = data
    raise _damaged()


def _damaged() -> AuditLogError:
    return AuditLogError("The audit log is damaged: `appliance audit verify` says where.")
