"""The outermost layer of a bundle (bundle-format section 2): magic, envelope, parts."""

import struct

from appliance.errors import MalformedBundle

MAGIC = b"\x89MB\x01\r\n\x1a\n"
ENVELOPE_BYTES_MAX = 1 << 20
_HEADER = struct.Struct(">8sI")
HEAD_BYTES_MAX = _HEADER.size + ENVELOPE_BYTES_MAX


def join(envelope: bytes, parts: list[bytes]) -> bytes:
    """The bytes of a bundle file.

    Raises:
        MalformedBundle: the envelope is longer than a reader takes.
    """
    if len(envelope) > ENVELOPE_BYTES_MAX:
        raise MalformedBundle(
            f"The bundle's envelope would be over {ENVELOPE_BYTES_MAX:,} bytes: it has too many labels or words."
        )
    return b"".join([_HEADER.pack(MAGIC, len(envelope)), envelope, *parts])


def split(data: bytes) -> tuple[bytes, memoryview]:
    """The envelope, and all that follows it.

    Raises:
        MalformedBundle: not a bundle of this version, or shorter than it says.
    """
    if len(data) < _HEADER.size:
        raise MalformedBundle("The file is too short to be a bundle.")
    magic, length = _HEADER.unpack_from(data)
    if magic != MAGIC:
        raise MalformedBundle("The file is not a bundle of version 1.")
    if not 1 <= length <= ENVELOPE_BYTES_MAX or len(data) < _HEADER.size + length:
        raise MalformedBundle("The bundle's envelope is cut off, or its length is impossible.")
    end = _HEADER.size + length
    return bytes(data[_HEADER.size : end]), memoryview(data)[end:]
