"""Going on after damage, on an operator's word: what is whole stays, what is not is put aside, and nothing is deleted.

The log goes on behind its last checkpoint that verifies, in the tree that it signed. Whoever has noted a later size sees
that it does not continue: that is what a gap is. The next record says how much was put aside, and why.
"""

import os
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from appliance import durable
from appliance.audit import segment
from appliance.audit.checkpoint import VerifierKey
from appliance.audit.segment import segment_paths
from appliance.audit.signed import head_tree, walk
from appliance.audit.tree import Tree
from appliance.audit.verify import verify
from appliance.errors import AuditLogError, ConfigError


@dataclass(frozen=True, slots=True)
class Gap:
    """The records from ``first`` to ``size`` are whole; ``segments``, from the damaged one on, are put aside, but for the
    ``kept`` bytes of that.
    """

    first: int
    size: int
    segments: tuple[Path, ...]
    kept: bytes


def find(directory: Path, key: VerifierKey) -> Gap:
    """Where the damage begins.

    Raises:
        ConfigError: nothing is damaged.
    """
    try:
        verify(directory, key)
    except AuditLogError:
        pass
    else:
        raise ConfigError("the audit log is whole: there is no gap to accept")
    paths = segment_paths(directory)
    tree = _before(paths, key)
    first = tree.size
    for place, path in enumerate(paths):
        data, end = _readable(path), 0
        if int(path.stem) == tree.size:
            tree, end = _whole_part(data, tree, key)
        if not end or not segment.is_blank(data, end):
            return Gap(first, tree.size, tuple(paths[place:]), data[:end])
    return Gap(first, tree.size, (), b"")  # what is missing is before it


def _readable(path: Path) -> bytes:
    """A segment's bytes; nothing, where the disk does not give them."""
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _before(paths: list[Path], key: VerifierKey) -> Tree:
    """The tree of what was pruned or is missing, by the word of the first segment's head; none without such a word."""
    with suppress(AuditLogError):
        tree = head_tree(_readable(paths[0]), key) if paths else None
        if tree is not None and tree.size == int(paths[0].stem):
            return tree
    return Tree()


def put_aside(directory: Path, gap: Gap, now: datetime) -> Path:
    """Moves the damaged segments to a folder beside the others, and puts the whole part of the first in its place."""
    aside = directory / f"set-aside-{now:%Y%m%dT%H%M%S%fZ}"
    aside.mkdir(mode=0o700)
    if not gap.segments:
        return aside
    place, *later = gap.segments
    beside = place.with_name(f"{place.name}.new")
    beside.touch(0o600)
    durable.write(beside, gap.kept)
    # After each step the log is either damaged still, and this can be done again, or whole.
    for path in reversed(later):
        path.rename(aside / path.name)
    os.link(place, aside / place.name)
    if gap.kept:
        beside.replace(place)
    else:
        place.unlink()
        beside.unlink()
    for folder in (aside, directory):
        durable.sync(folder)
    return aside


def _whole_part(data: bytes, tree: Tree, key: VerifierKey) -> tuple[Tree, int]:
    """The tree after a segment's last checkpoint that continues ``tree``, and where that ends; 0 without a whole head."""
    whole, end = tree, 0
    with suppress(AuditLogError):
        for count, (frame, grown) in enumerate(walk(data, key, tree.copy())):
            if count and frame.kind != segment.RECORD:
                whole, end = grown.copy(), frame.end
    return whole, end
