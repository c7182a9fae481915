"""Forges logs byte by byte, without the journal, so that a test can break one thing and expect one error."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from appliance.audit import segment
from appliance.audit.checkpoint import Checkpoint, LogKey
from appliance.audit.journal import Journal
from appliance.audit.record import Origin
from appliance.audit.tree import Tree, leaf_hash

KEY = LogKey("appliance-audit/0123456789abcdef", Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
OTHER_KEY = LogKey(KEY.name, Ed25519PrivateKey.from_private_bytes(bytes(32)))
VERIFIER = KEY.verifier
ORIGIN = Origin("ab" * 32, "0.0.0", "5f2c0b7e-0000-4000-8000-000000000000")


def journal(directory: Path, **options: Any) -> Journal:
    """A log of its own in a folder, made where it is not there yet."""
    directory.mkdir(exist_ok=True)
    return Journal(directory, KEY, ORIGIN, **({"segment_bytes": 1 << 16} | options))


@dataclass(frozen=True)
class Forged:
    """A log's segments. Each frame of each is known: kind, start, end."""

    segments: tuple[bytes, ...]
    names: tuple[str, ...]

    def write(self, directory: Path) -> Path:
        directory.mkdir()
        for name, data in zip(self.names, self.segments, strict=True):
            (directory / name).write_bytes(data)
        return directory


def forged(*segments: Sequence[int], key: LogKey = KEY, zeros: int = 64) -> Forged:
    """A valid log: for each segment, the number of records in each of its groups."""
    tree, made, names = Tree(), [], []
    for groups in segments:
        names.append(f"{tree.size:020d}.log")
        data = signed(tree, key) + segment.frame(segment.TREE, b"".join(tree.frontier))
        for records in groups:
            for _ in range(records):
                record = small_record(tree.size)
                tree.append(leaf_hash(record))
                data += segment.frame(segment.RECORD, record)
            data += signed(tree, key)
        made.append(data + bytes(zeros))
    return Forged(tuple(made), tuple(names))


def small_record(index: int) -> bytes:
    return b'{"index":%d,"v":1}' % index


def signed(tree: Tree, key: LogKey = KEY) -> bytes:
    """The frame of a tree's checkpoint."""
    return segment.frame(segment.CHECKPOINT, key.sign(Checkpoint(tree.size, tree.root()), key.verifier.id))


def frames(data: bytes) -> list[tuple[bytes, int, int]]:
    """Kind, start and end of each frame."""
    found, start = [], 0
    for frame in segment.frames(data):
        found.append((frame.kind, start, frame.end))
        start = frame.end
    return found


def payloads(directory: Path) -> list[bytes]:
    """Every record's bytes, in order; the log need not be at rest."""
    return [
        frame.payload
        for path in segment.segment_paths(directory)
        for frame in segment.frames(path.read_bytes())
        if frame.kind == segment.RECORD
    ]


def records(directory: Path) -> list[dict[str, Any]]:
    return [json.loads(payload) for payload in payloads(directory)]
