"""The segment at the end of a log, which is being written, and the lock that says by whom (audit-format sections 3 to 5)."""

import fcntl
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from appliance import durable
from appliance.audit import segment
from appliance.audit.checkpoint import VerifierKey
from appliance.audit.recovery import resume
from appliance.audit.segment import segment_paths
from appliance.audit.tree import Tree
from appliance.errors import AuditLogError

RESERVE_BYTES = 4096  # of a segment, for a group's checkpoint, and for a record that says why no segment follows
SPARE_FILES = 2  # a new segment, and its directory


@dataclass(frozen=True, slots=True)
class Head:
    """What opens a segment: where the log stands."""

    size: int
    frontier: tuple[bytes, ...]
    frames: bytes

    @classmethod
    def of(cls, tree: Tree, note: bytes) -> "Head":
        """``note`` is the tree's signed checkpoint."""
        frames = segment.frame(segment.CHECKPOINT, note) + segment.frame(segment.TREE, b"".join(tree.frontier))
        return cls(tree.size, tree.frontier, frames)


class NoSegment(OSError):
    """No new segment could be made; the one before it is as it was."""


@dataclass(frozen=True, slots=True)
class Recovered:
    """What recovery found after the last checkpoint and cut off: so many bytes, whole records among them."""

    cut_records: int
    cut_bytes: int


class OpenSegment:
    """The last file of a log. Everything raises OSError; but for NoSegment, what is on the disk is then no longer known."""

    def __init__(self, directory: Path, segment_bytes: int, sync: Callable[[int], None]) -> None:
        self._directory, self._segment_bytes, self._sync = directory, segment_bytes, sync
        self._fd, self._end, self._head_end = -1, 0, 0
        self._spares: list[int] = []

    @property
    def is_closed(self) -> bool:
        return self._fd < 0

    def has_room(self, size: int) -> bool:
        """Whether so many bytes fit, and a last record after them; into a segment that holds none yet, any do."""
        return self.has_reserve(size + RESERVE_BYTES) or self._end <= self._head_end

    def has_reserve(self, size: int) -> bool:
        """Whether so many bytes fit into what was allocated."""
        return self._end + size <= self._segment_bytes

    def write(self, block: bytes) -> None:
        """Writes a block behind what is there, and makes it durable."""
        _write(self._fd, block, self._end)
        self._end += len(block)
        self._sync(self._fd)

    def start(self, head: Head) -> None:
        """A new file, preallocated so that a full disk shows here and not in the middle of a group.

        Raises:
            NoSegment: there is none, and no trace of one.
        """
        self._release_spares()
        path = self._directory / f"{head.size:020d}.log"
        fd = -1
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
            os.posix_fallocate(fd, 0, self._segment_bytes)
            _write(fd, head.frames, 0)
            os.fsync(fd)
            durable.sync(self._directory)
        except OSError as error:
            if fd >= 0:  # one that came to light later would contradict what is written to the one before
                os.close(fd)
                path.unlink()
                durable.sync(self._directory)
            raise NoSegment(error.errno, "no segment can be made") from error
        if self._fd >= 0:
            os.close(self._fd)
        self._fd, self._end, self._head_end = fd, len(head.frames), len(head.frames)
        self._take_spares()

    def recover(self, verifier: VerifierKey) -> tuple[Tree, Recovered | None]:
        """Opens the last segment and cuts off what a crash left; of a log without one, it stays closed.

        Raises:
            AuditLogError: it is damaged.
        """
        cut = 0
        for path in reversed(segment_paths(self._directory)):
            data = path.read_bytes()
            found = resume(data, verifier)
            if found is None:  # a crash while this segment was made; the one before it is whole
                cut += len(data.rstrip(b"\x00"))
                path.unlink()
                continue
            cut += found.cut_bytes
            self._end, self._head_end = found.end, found.head_end
            self._fd = os.open(path, os.O_RDWR)
            os.ftruncate(self._fd, self._end)
            os.posix_fallocate(self._fd, 0, max(self._segment_bytes, self._end))
            os.fsync(self._fd)
            self._take_spares()
            return found.tree, Recovered(found.cut_records, cut) if cut else None
        return Tree(), Recovered(0, cut) if cut else None

    def close(self) -> None:
        self._release_spares()
        with suppress(OSError):
            os.close(self._fd)

    def _take_spares(self) -> None:
        """Keeps the descriptors of a new segment, as many as there are: before strangers connect, there are enough."""
        with suppress(OSError):
            while len(self._spares) < SPARE_FILES:
                self._spares.append(os.open("/dev/null", os.O_RDONLY))

    def _release_spares(self) -> None:
        """Makes room for the files of a new segment, though strangers' connections have taken every other."""
        for fd in self._spares:
            os.close(fd)
        self._spares = []


def _write(fd: int, block: bytes, place: int) -> None:
    if os.pwrite(fd, block, place) != len(block):
        raise OSError("short write")  # never continued: what is on the disk is recovery's to find out


def lock(directory: Path) -> int:
    """A descriptor that holds the log for ourselves until it is closed. Raises AuditLogError where somebody else does."""
    fd = os.open(directory / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise AuditLogError("The audit log is in use: an appliance or another command is at work at this site.") from None
    return fd
