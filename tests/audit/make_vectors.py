"""Makes ``tests/vectors/audit``: logs and receipts that are whole, and one failure in each of the others.

``python -m tests.audit.make_vectors`` adds what the folder lacks. What the rows of the index mean stands in its README.
"""

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from appliance.audit import proof, segment, stored
from appliance.audit.checkpoint import Checkpoint
from appliance.audit.tree import Tree, leaf_hash
from tests.audit import logs

FOLDER = Path(__file__).parents[1] / "vectors" / "audit"
WHOLE, DAMAGED, CUT, EXPECTED_SIZE = "whole", "damaged", "does not continue", 9


@dataclass(frozen=True)
class Log:
    """Segments by name. ``noted``: an auditor has noted the whole log's size and root earlier."""

    name: str
    expect: str
    segments: dict[str, bytes]
    noted: bool = False


@dataclass(frozen=True)
class Receipt:
    name: str
    expect: str
    data: bytes


def whole() -> logs.Forged:
    """Nine records: three segments, groups of 1 to 3."""
    return logs.forged([1, 3], [2], [1, 2], zeros=32)


def log_vectors() -> Iterator[Log]:
    made = whole()
    named = dict(zip(made.names, made.segments, strict=True))
    first, second, third = made.names
    yield Log("valid", WHOLE, named)
    yield Log("valid-and-noted", WHOLE, named, noted=True)
    yield Log("valid-without-records", WHOLE, _named(logs.forged([])))
    head, *_, last = logs.frames(named[third])
    yield Log("valid-with-a-torn-group-at-the-end", WHOLE, named | {third: named[third][: last[2]] + _torn()})
    yield Log("a-later-segment-is-missing-and-was-noted", CUT, {n: named[n] for n in (first, second)}, noted=True)
    yield Log("a-segment-in-the-middle-is-missing", DAMAGED, {n: named[n] for n in (first, third)})
    yield Log("the-first-segment-is-missing", DAMAGED, {n: named[n] for n in (second, third)})
    yield Log("two-segments-are-exchanged", DAMAGED, named | {first: named[second], second: named[first]})
    yield Log("a-segment-is-there-twice", DAMAGED, named | {f"{9:020d}.log": named[third]})
    for what, kind in (("record", segment.RECORD), ("checkpoint", segment.CHECKPOINT), ("tree", segment.TREE)):
        start, end = next((start, end) for found, start, end in logs.frames(named[second]) if found == kind)
        yield Log(f"a-bit-of-a-{what}-is-flipped", DAMAGED, named | {second: _flipped(named[second], (start + end) // 2)})
        yield Log(f"a-{what}-is-taken-out", DAMAGED, named | {second: named[second][:start] + named[second][end:]})
    records = [(start, end) for kind, start, end in logs.frames(named[first]) if kind == segment.RECORD]
    (a, b), (c, d) = records[1], records[2]
    data = named[first]
    yield Log("two-records-are-exchanged", DAMAGED, named | {first: data[:a] + data[c:d] + data[b:c] + data[a:b] + data[d:]})
    yield Log("a-record-is-there-twice", DAMAGED, named | {first: data[:b] + data[a:b] + data[b:]})
    yield Log("of-another-key", DAMAGED, _named(logs.forged([1, 3], [2], [1, 2], key=logs.OTHER_KEY)))
    spaced = logs.small_record(0).replace(b",", b", ")
    yield Log("a-record-is-not-canonical", DAMAGED, _one(spaced))
    yield Log("a-record-has-another-index", DAMAGED, _one(logs.small_record(1)))
    assert head[0] == segment.CHECKPOINT


def receipt_vectors(folder: Path) -> Iterator[Receipt]:
    """``folder`` has the valid log."""
    kept = list(stored.read(folder))
    for number in (0, 3, 8):
        yield Receipt(f"valid-{number}", "proved", kept[number].receipt())
    good = kept[3].receipt()
    lines = good.split(b"\n")
    yield Receipt("another-index", "not proved", good.replace(b"index 3\n", b"index 2\n"))
    yield Receipt("an-index-of-another-spelling", "not proved", good.replace(b"index 3\n", b"index 03\n"))
    other = b"extra " + base64.b64encode(logs.small_record(4))
    yield Receipt("another-record", "not proved", b"\n".join([lines[0], other, *lines[2:]]))
    yield Receipt("a-hash-is-missing", "not proved", b"\n".join(lines[:3] + lines[4:]))
    yield Receipt("a-hash-too-many", "not proved", b"\n".join([*lines[:3], lines[3], *lines[3:]]))
    yield Receipt("without-its-checkpoint", "not proved", good.partition(b"\n\n")[0] + b"\n\n")
    yield Receipt("of-another-version", "not proved", good.replace(b"@v1", b"@v2", 1))
    tree = Tree()
    tree.append(leaf_hash(logs.small_record(0)))
    note = logs.OTHER_KEY.sign(Checkpoint(1, tree.root()), logs.OTHER_KEY.verifier.id)
    yield Receipt("of-another-key", "not proved", proof.encode(0, [], note, logs.small_record(0)))


def _named(made: logs.Forged) -> dict[str, bytes]:
    return dict(zip(made.names, made.segments, strict=True))


def _one(record: bytes) -> dict[str, bytes]:
    """A log of one record, rightly signed."""
    tree = Tree()
    data = logs.signed(tree) + segment.frame(segment.TREE, b"") + segment.frame(segment.RECORD, record)
    tree.append(leaf_hash(record))
    return {f"{0:020d}.log": data + logs.signed(tree) + bytes(32)}


def _torn() -> bytes:
    return segment.frame(segment.RECORD, logs.small_record(9)) + segment.frame(segment.RECORD, logs.small_record(10))[:-3]


def _flipped(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


def files() -> Iterator[tuple[str, bytes]]:
    """Every file of the folder but its README, by its name there."""
    root = _root()
    rows: list[dict[str, object]] = []
    for log in log_vectors():
        row: dict[str, object] = {"kind": "log", "name": log.name, "expect": log.expect, "segments": sorted(log.segments)}
        rows.append(row | ({"noted": {"size": EXPECTED_SIZE, "root": root}} if log.noted else {}))
        for name, data in log.segments.items():
            yield f"{log.name}/{name}", data
    for receipt in receipt_vectors(FOLDER / "valid"):
        rows.append({"kind": "receipt", "name": receipt.name, "expect": receipt.expect})
        yield f"{receipt.name}.receipt", receipt.data
    index = {"verifier_key": logs.VERIFIER.encode(), "vectors": rows}
    yield "vectors.json", json.dumps(index, indent=1).encode() + b"\n"


def _root() -> str:
    tree = Tree()
    for number in range(EXPECTED_SIZE):
        tree.append(leaf_hash(logs.small_record(number)))
    return tree.root().hex()


def main() -> None:
    for name, data in files():
        path = FOLDER / name
        if not path.exists() or name == "vectors.json":
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)


if __name__ == "__main__":
    main()
