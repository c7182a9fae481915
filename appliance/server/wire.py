"""Splits a ``ModelInferRequest`` as it comes off the wire, without copying its tensors.

Protobuf copies each ``raw_input_contents``: 73 µs at 602 KB, 66 ms at 19 MB. Here they are views of the message as it
arrived. Everything else, some hundred bytes, is protobuf's to read. Typed contents are part of that, and cost accordingly:
12.8 ms at 602 KB.
"""

from collections.abc import Sequence

from appliance.errors import InvalidInput

RAW_INPUT_CONTENTS = 7 << 3 | 2
_TAG_BYTES_MAX, _LENGTH_BYTES_MAX = 5, 10


def split(data: bytes) -> tuple[bytes, Sequence[memoryview]]:
    """The message without its ``raw_input_contents``, and those as they lie in it.

    Raises:
        InvalidInput: no protobuf message could have these bytes.
    """
    view, raw, others, place = memoryview(data), list[memoryview](), list[memoryview](), 0
    while place < len(data):
        start = place
        tag, place = _varint(data, place, _TAG_BYTES_MAX)
        match tag & 7:
            case 2:
                length, place = _varint(data, place, _LENGTH_BYTES_MAX)
                content, place = view[place : place + length], place + length
                if tag == RAW_INPUT_CONTENTS and place <= len(data):
                    raw.append(content)
                    continue
            case 0:
                _, place = _varint(data, place, _LENGTH_BYTES_MAX)
            case 1 | 5 as kind:
                place += 8 if kind == 1 else 4
            case _:  # groups, which this protocol has none of
                raise not_a_request()
        if place > len(data):
            raise not_a_request()
        others.append(view[start:place])
    return b"".join(others), raw


def _varint(data: bytes, place: int, bytes_max: int) -> tuple[int, int]:
    """A base 128 varint, and the place behind it."""
    value = shift = 0
    for byte in data[place : place + bytes_max]:
        value |= (byte & 0x7F) << shift
        place += 1
        if byte < 0x80:
            return value, place
        shift += 7
    raise not_a_request()


def not_a_request() -> InvalidInput:
    return InvalidInput("The message is not a ModelInferRequest.")
