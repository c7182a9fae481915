"""Reads records back from a log's files, each with what proves it. What is not signed is not shown.

Nothing is checked but the frames: that is ``verify``'s work, or that of whoever gets a receipt. A receipt needs no more than
the segment that its record stands in, whose first frames say what came before (audit-format sections 3.1 and 7).
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from appliance.audit import proof, segment
from appliance.audit.segment import segment_paths
from appliance.audit.tree import HASH_BYTES, Tree, leaf_hash
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


def read(directory: Path, first: int = 0, stop: int | None = None) -> Iterator[Stored]:
    """The signed records from ``first`` on, before ``stop``. The appliance may be writing the log.

    Raises:
        AuditLogError: there is no log, or it cannot be read this way; ``verify`` says what is wrong with it.
    """
    try:
        paths = segment_paths(directory)
        earlier = [path for path in paths if int(path.stem) <= first]
        for path in paths[max(0, len(earlier) - 1) :]:
            for group in _groups(path):
                if stop is not None and group.size >= stop:
                    return
                for index, data in enumerate(group.records, group.size):
                    if index >= first and (stop is None or index < stop):
                        yield Stored(index, data, group)
    except OSError as error:
        raise AuditLogError("The audit log cannot be read.") from error
    except ValueError as error:
        raise AuditLogError("The audit log is damaged.") from error
    if not paths:
        raise AuditLogError("There is no audit log in this directory.")


def older_than(directory: Path, time: str) -> tuple[int, list[Path]]:
    """The segments all of whose records are older than a time as records spell it, and the index of the record behind them.

    The last segment is never among them. Raises as ``read``.
    """
    paths, old = segment_paths(directory), list[Path]()
    for path, following in pairwise(paths):
        newest = max((json.loads(one)["time"] for group in _groups(path) for one in group.records), default="")
        if newest >= time:
            return int(path.stem), old
        old.append(path)
        last = int(following.stem)
    return (last if old else 0), old


def size(directory: Path) -> int:
    """How many signed records there are. Raises as ``read``."""
    paths = segment_paths(directory)
    newest = 0
    for path in paths[-2:]:  # the last may have been begun and hold none yet
        newest = max(newest, int(path.stem))
        for group in _groups(path):
            newest = group.size + len(group.records)
    return newest


def _groups(path: Path) -> Iterator[_Group]:
    tree: Tree | None = None
    waiting: list[bytes] = []
    for frame in segment.frames(path.read_bytes()):
        if frame.kind == segment.RECORD:
            waiting.append(frame.payload)
        elif frame.kind == segment.TREE:
            hashes = range(0, len(frame.payload), HASH_BYTES)
            tree = Tree(int(path.stem), tuple(frame.payload[i : i + HASH_BYTES] for i in hashes))
        elif tree is not None:
            yield _Group(tree.size, tree.frontier, waiting, frame.payload)
            for data in waiting:
                tree.append(leaf_hash(data))
            waiting = []
