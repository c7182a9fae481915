"""The segments of a log and their frames (audit-format section 3)."""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

RECORD, CHECKPOINT, TREE = b"R", b"C", b"T"
PAYLOAD_BYTES_MAX = 65_535
HEADER_BYTES = 9
READS_MAX = 10  # of a segment that is being written, until what is read is no write half done
_HEADER = struct.Struct(">II")


@dataclass(frozen=True, slots=True)
class Frame:
    kind: bytes
    payload: bytes
    end: int


def frame(kind: bytes, payload: bytes) -> bytes:
    """The bytes of one frame."""
    body = kind + payload
    return _HEADER.pack(len(body), zlib.crc32(body)) + body


def frames(data: bytes, start: int = 0) -> Iterator[Frame]:
    """The whole frames from ``start`` on; ends at the closing zeros, or at the first frame that is not whole."""
    while (found := read(data, start)) is not None:
        yield found
        start = found.end


def read(data: bytes, start: int) -> Frame | None:
    """The frame at ``start``, if a whole one stands there."""
    if start < 0 or start + HEADER_BYTES > len(data):
        return None
    length, checksum = _HEADER.unpack_from(data, start)
    end = start + _HEADER.size + length
    if not 1 <= length <= PAYLOAD_BYTES_MAX + 1 or end > len(data):
        return None
    body = data[start + _HEADER.size : end]
    if zlib.crc32(body) != checksum or body[:1] not in (RECORD, CHECKPOINT, TREE):
        return None
    return Frame(body[:1], body[1:], end)


def is_blank(data: bytes, start: int) -> bool:
    """Whether nothing but the preallocated zeros follows."""
    return not data[start:].strip(b"\x00")


def checkpoints_after(data: bytes, start: int, origin: str) -> Iterator[Frame]:
    """Whole checkpoint frames of this log anywhere after ``start``, even behind bytes that make no sense."""
    mark = CHECKPOINT + origin.encode() + b"\n"
    at = data.find(mark, start)
    while at >= 0:
        found = read(data, at - _HEADER.size)
        if found is not None:
            yield found
        at = data.find(mark, at + 1)


def segment_paths(directory: Path) -> list[Path]:
    """The segments of a log, oldest first."""
    return sorted(directory.glob("[0-9]" * 20 + ".log"))
