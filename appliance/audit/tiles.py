"""A log as static files that others' tools read: C2SP tlog-tiles.

::

    checkpoint                  the newest signed checkpoint
    tile/0/x001/234             256 leaf hashes; level 1 has the roots of 256 such tiles each, and so on
    tile/0/x001/235.p/17        a tile that is not full yet: 17 hashes
    tile/entries/x001/234       the 256 records, each behind its length as 2 bytes, big-endian

A full tile never changes, so a later run writes what is new; the checkpoint comes last, when all that it covers is there.
"""

from collections.abc import Iterable
from pathlib import Path

from appliance import durable
from appliance.audit import stored
from appliance.audit.tree import Tree, leaf_hash
from appliance.errors import AuditLogError

WIDTH = 256


def write(directory: Path, folder: Path) -> int:
    """Writes the log of a directory to a folder; how many records it holds.

    Raises:
        AuditLogError: there is no log, or nothing in it is signed.
    """
    levels: list[list[bytes]] = [[]]
    entries: list[bytes] = []
    size, note = 0, b""
    for found in stored.read(directory):
        if found.index > size:
            raise AuditLogError("The log was pruned: its tiles had to be written before.")
        entries.append(len(found.data).to_bytes(2) + found.data)
        if len(entries) == WIDTH:
            _put(folder / "tile" / "entries" / path(size // WIDTH), entries)
            entries = []
        _push(folder, levels, 0, size, leaf_hash(found.data))
        size, note = found.index + 1, found.checkpoint
    if not size:
        raise AuditLogError("There is no record in this log yet.")
    for level, hashes in enumerate(levels):
        if hashes:
            number = (size >> 8 * level) // WIDTH
            _put(folder / "tile" / str(level) / f"{path(number)}.p" / str(len(hashes)), hashes)
    if entries:
        _put(folder / "tile" / "entries" / f"{path(size // WIDTH)}.p" / str(len(entries)), entries)
    _put(folder / "checkpoint", [note], anew=True)
    return size


def path(number: int) -> str:
    """A tile's place: groups of three digits, all but the last with an ``x`` before them."""
    text = f"{number % 1000:03d}"
    while number := number // 1000:
        text = f"x{number % 1000:03d}/{text}"
    return text


def _push(folder: Path, levels: list[list[bytes]], level: int, place: int, found: bytes) -> None:
    """Adds the hash at a place of a level, and what it completes above."""
    if level == len(levels):
        levels.append([])
    levels[level].append(found)
    if len(levels[level]) < WIDTH:
        return
    _put(folder / "tile" / str(level) / path(place // WIDTH), levels[level])
    whole = Tree()
    for one in levels[level]:
        whole.append(one)
    levels[level] = []
    _push(folder, levels, level + 1, place // WIDTH, whole.root())


def _put(file: Path, pieces: Iterable[bytes], *, anew: bool = False) -> None:
    """Writes a file whole or not at all; one that is there must have the same content, unless it is to be made anew.

    Raises:
        AuditLogError: it has not.
    """
    content = b"".join(pieces)
    if file.exists() and not anew:
        if file.read_bytes() != content:
            raise AuditLogError("The folder holds tiles of another log, or of this one before a gap: give an empty one.")
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    durable.replace(file, content)
