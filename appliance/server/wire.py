"""Reads a ``ModelInferRequest`` off the wire without copying its tensors.

Protobuf copies each ``raw_input_contents``: 73 µs at 602 KB, 66 ms at 19 MB. Here they are views of the message as it
arrived. Everything else, some hundred bytes, is protobuf's to read, and is remembered: a client's next request differs
from its last in little but the tensor. Typed contents are part of it, and cost accordingly: 12.8 ms at 602 KB. A request
that has none but those is not remembered: they may be a patient's words, and must be gone when the call is.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from google.protobuf.message import DecodeError

from appliance.errors import InvalidInput
from appliance.oip.open_inference_pb2 import ModelInferRequest

RAW_INPUT_CONTENTS = 7 << 3 | 2
REMEMBERED_BYTES_MAX = 512
_TAG_BYTES_MAX, _LENGTH_BYTES_MAX = 5, 10


class Message(NamedTuple):
    """A request, without its ``raw_input_contents``, and those as they lie in the message. Do not change ``header``."""

    header: ModelInferRequest
    raw: Sequence[memoryview]


def read(data: bytes) -> Message:
    """Raises InvalidInput where the bytes are not a ModelInferRequest."""
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
                raise _not_a_request()
        if place > len(data):
            raise _not_a_request()
        others.append(view[start:place])
    header = b"".join(others)
    known = _remembered(header) if raw and len(header) <= REMEMBERED_BYTES_MAX else None
    return Message(known or _parse(header), raw)


def _varint(data: bytes, place: int, bytes_max: int) -> tuple[int, int]:
    """A base 128 varint, and the place behind it."""
    value = shift = 0
    for byte in data[place : place + bytes_max]:
        value |= (byte & 0x7F) << shift
        place += 1
        if byte < 0x80:
            return value, place
        shift += 7
    raise _not_a_request()


def _parse(header: bytes) -> ModelInferRequest:
    try:
        return ModelInferRequest.FromString(header)
    except DecodeError:
        raise _not_a_request() from None


@lru_cache(maxsize=4096)
def _remembered(header: bytes) -> ModelInferRequest | None:
    """None for one that holds contents, of a text say, beside the raw ones: what is remembered outlives its call."""
    request = _parse(header)
    return None if any(tensor.HasField("contents") for tensor in request.inputs) else request


def _not_a_request() -> InvalidInput:
    return InvalidInput("The message is not a ModelInferRequest.")
