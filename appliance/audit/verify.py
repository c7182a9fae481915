"""The auditor's reader: everything that section 6 of the audit format asks, from a directory and a public key."""

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from appliance import canonical
from appliance.audit import segment
from appliance.audit.checkpoint import Checkpoint, VerifierKey
from appliance.audit.segment import READS_MAX, segment_paths
from appliance.audit.signed import head_tree, walk
from appliance.audit.tree import Tree
from appliance.errors import AuditLogError

KEY_FILE = "log.vkey"
PRUNE, ACCEPT_GAP = "audit.prune", "audit.accept-gap"  # the acts after which a log may begin later


@dataclass(frozen=True, slots=True)
class Verified:
    """What was checked. ``unsigned_records`` stand behind the last checkpoint: in flight, or left by a crash.

    ``set_back`` records have an earlier time than the one before them, by the clock on the wall or, of one boot, by the
    steady one: no damage, but an auditor asks why.
    """

    size: int
    root: bytes
    checkpoints: int
    segments: int
    unsigned_records: int
    set_back: int


def verify(
    directory: Path,
    key: VerifierKey,
    expected: tuple[int, str | None] | None = None,
    segment_done: Callable[[], None] = lambda: None,
) -> Verified:
    """Checks a whole log. ``expected`` is a size, and perhaps a root in hex, that were noted earlier and elsewhere.

    Raises:
        AuditLogError: the first thing that is wrong, and the index of the record where it was found.
    """
    check = _Check(key, expected)
    try:
        paths = segment_paths(directory)
        if paths and int(paths[0].stem):  # what was before was pruned, which a record behind it must say
            check.first = int(paths[0].stem)
            check.begin(paths[0].read_bytes())
        for path in paths[:-1]:
            check.segment(path.read_bytes(), int(path.stem), last=False)
            segment_done()
        for path in paths[-1:]:
            check = _last_segment(check, path)
            segment_done()
    except OSError as error:
        raise AuditLogError("The audit log cannot be read.") from error
    return check.result(len(paths))


def acts_since(directory: Path, key: VerifierKey, noted: tuple[int, str]) -> tuple[list[dict[str, Any]], str]:
    """The records of acts that follow a size and root noted earlier, and the time of the newest record, whatever it is of.

    Checked from the segment that holds that place on. Nobody may be writing the log.

    Raises:
        AuditLogError: it does not continue what was noted, or is damaged after it.
    """
    check = _Check(key, noted)
    try:
        paths = segment_paths(directory)
        before = [path for path in paths if int(path.stem) <= noted[0]]
        paths = paths[len(before) - 1 :] if before else paths
        for path in paths:
            data = path.read_bytes()
            if path == paths[0]:
                check.begin(data)
            check.segment(data, int(path.stem), last=path == paths[-1])
    except OSError as error:
        raise AuditLogError("The audit log cannot be read.") from error
    check.result(len(paths))
    return check.acts, check.newest


def _last_segment(before: "_Check", path: Path) -> "_Check":
    """Checks the segment that an appliance may be writing. What was read of a write half done is read again."""
    data = path.read_bytes()
    for _ in range(READS_MAX):
        check = before.copy()
        try:
            check.segment(data, int(path.stem), last=True)
        except AuditLogError:
            read, data = data, path.read_bytes()
            if read == data:
                raise
        else:
            return check
    raise AuditLogError("The audit log changes while it is read; verify a copy of it.")


class _Check:
    def __init__(self, key: VerifierKey, expected: tuple[int, str | None] | None) -> None:
        self.key, self.tree = key, Tree()
        self.expected, self.met = expected, expected is None or expected[0] == 0
        self.acts: list[dict[str, Any]] = []
        self.first = self.pruned = self.pruned_signed = 0  # where the log begins, and where records say that it may
        self.newest, self.steady, self.set_back = "", ("", 0), 0
        self.signed: Checkpoint | None = None
        self.checkpoints = self.unsigned = 0

    def copy(self) -> "_Check":
        """This state, to go on from more than once."""
        other = copy(self)
        other.tree = self.tree.copy()
        other.acts = list(self.acts)
        return other

    def begin(self, data: bytes) -> None:
        """Takes the tree that a segment begins with for granted: its checkpoint is signed."""
        if (tree := head_tree(data, self.key)) is not None:
            self.tree = tree
            self._meet()

    def segment(self, data: bytes, first_index: int, last: bool) -> None:
        kinds, end = b"", 0
        for frame, _ in walk(data, self.key, self.tree):
            if frame.kind == segment.CHECKPOINT:
                self.signed, self.unsigned, self.pruned_signed = Checkpoint(self.tree.size, self.tree.root()), 0, self.pruned
                self.checkpoints += 1
            elif frame.kind == segment.RECORD:
                self._record(frame.payload)
            if not kinds and self.tree.size != first_index:
                raise self._damaged("a segment is missing or in another's place")
            kinds, end = kinds[:2] + frame.kind, frame.end
        if len(kinds) < 2 and not last:
            raise self._damaged("a segment has no beginning")
        if not last and (kinds[-1:] != segment.CHECKPOINT or not segment.is_blank(data, end)):
            raise self._damaged("a segment does not end in a checkpoint")
        for _ in segment.checkpoints_after(data, end, self.key.name):
            raise self._damaged("a record before a signed checkpoint is broken")

    def _record(self, data: bytes) -> None:
        """Looks at a record that the tree has taken in."""
        place = self.tree.size - 1
        try:
            record = canonical.decode(data)
            if record["v"] != 1 or record["index"] != place:
                raise ValueError("out of sequence")
            self._look_at_times(record)
        except (ValueError, KeyError, TypeError):
            raise self._damaged("a record is not canonical, or out of sequence", place) from None
        if record.get("event") in (PRUNE, ACCEPT_GAP) and record.get("outcome") == "done":
            self.pruned = max(self.pruned, record.get("detail", {}).get("first", 0))
        if record.get("event", "call") != "call" and self.expected is not None and record["index"] >= self.expected[0]:
            self.acts.append(record)
        self.unsigned += 1
        self._meet()

    def _look_at_times(self, record: dict[str, Any]) -> None:
        time, steady = record.get("time", self.newest), (record.get("boot", ""), record.get("mono_us", 0))
        self.set_back += time < self.newest or (steady[0] == self.steady[0] and steady < self.steady)
        self.newest, self.steady = time, steady

    def _meet(self) -> None:
        if self.expected is not None and self.tree.size == self.expected[0]:
            self.met = self.expected[1] in (None, self.tree.root().hex())

    def result(self, segments: int) -> Verified:
        if self.signed is None:
            raise AuditLogError("There is no audit log in this directory.")
        if self.pruned_signed < self.first:
            raise AuditLogError(
                f"The audit log is damaged: what was before record {self.first} is missing, and was not pruned."
            )
        if self.expected is not None and not self.met and self.expected[0] < self.first:
            raise AuditLogError("What was noted lies before what was pruned: the log cannot be held to it any more.")
        # Only what is signed counts: whoever cut the log back can pad it with records of his own.
        if not self.met or (self.expected is not None and self.signed.size < self.expected[0]):
            raise AuditLogError("The audit log does not continue the one whose size and root were noted earlier.")
        return Verified(self.signed.size, self.signed.root, self.checkpoints, segments, self.unsigned, self.set_back)

    def _damaged(self, what: str, place: int | None = None) -> AuditLogError:
        return AuditLogError(f"The audit log is damaged at record {self.tree.size if place is None else place}: {what}.")
