"""Canonical JSON and times: one exact byte string for each value, so that bytes can be signed, hashed and compared.

This is RFC 8785 (JSON Canonicalization Scheme) restricted to what we use: objects with ASCII keys, arrays, strings,
booleans, null, and integers of at most 53 bits. There are no fractions: a score of 0.25 is written as 250000 in a
field whose name ends in ``_e6``. So no two writers can disagree about how a number is printed.

    >>> encode({"b": 1, "a": ["é", None]})
    b'{"a":["\\xc3\\xa9",null],"b":1}'
"""

import hashlib
import json
from datetime import UTC, datetime
from typing import Any

INTEGER_MAX = 2**53 - 1
DEPTH_MAX = 16
_PLAIN = frozenset({str, bool, type(None)})
_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def encode(value: object) -> bytes:
    """The canonical bytes of a value.

    Raises:
        TypeError: the value holds a float, a non-string key, or another type that has no canonical form.
        ValueError: an integer or the nesting is over the limit, or a string is not valid Unicode.
    """
    _check(value, 0)
    return _ENCODER.encode(value).encode()


def decode(data: bytes) -> Any:
    """The value of canonical bytes.

    Raises:
        ValueError: the bytes are not JSON, or not the one canonical form of what they say.
    """
    try:
        value = json.loads(data)
        if encode(value) != data:
            raise ValueError("not canonical")
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError("not canonical JSON") from error
    return value


def fingerprint(data: bytes, groups: int = 5) -> str:
    """Groups of four hex digits of a SHA-256, for people to read to each other (section 1)."""
    digits = hashlib.sha256(data).hexdigest()[: 4 * groups]
    return " ".join(digits[i : i + 4] for i in range(0, len(digits), 4))


def is_fingerprint(read_out: str, expected: str) -> bool:
    """Whether what somebody read out is this fingerprint; case and spaces are theirs to choose."""
    return "".join(read_out.lower().split()) == expected.replace(" ", "")


def format_time(moment: datetime) -> str:
    """``YYYY-MM-DDTHH:MM:SSZ`` (section 1)."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_time(text: str) -> datetime:
    """The moment of one exact spelling; raises ValueError for any other."""
    moment = datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    if format_time(moment) != text:
        raise ValueError("not the canonical spelling of a time")
    return moment


def _check(value: object, depth: int) -> None:
    if type(value) in _PLAIN:  # most are: every call's record passes here
        return
    if isinstance(value, int):
        if abs(value) > INTEGER_MAX:
            raise ValueError("integer over 53 bits")
    elif isinstance(value, dict | list | tuple) and depth == DEPTH_MAX:
        raise ValueError(f"nested deeper than {DEPTH_MAX}")
    elif isinstance(value, dict):
        for key, item in value.items():
            if not (isinstance(key, str) and key.isascii()):
                raise TypeError("keys are ASCII strings")
            _check(item, depth + 1)
    elif isinstance(value, list | tuple):
        for item in value:
            _check(item, depth + 1)
    elif not isinstance(value, str):
        raise TypeError(f"{type(value).__name__} has no canonical form")
