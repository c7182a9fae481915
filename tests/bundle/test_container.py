"""The outermost layer: magic, envelope, parts."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.bundle import container
from appliance.errors import MalformedBundle


@given(st.binary(min_size=1, max_size=300), st.lists(st.binary(max_size=50), max_size=4))
def test_what_is_joined_splits_again(envelope: bytes, parts: list[bytes]) -> None:
    found, body = container.split(container.join(envelope, parts))
    assert (found, bytes(body)) == (envelope, b"".join(parts))


@given(st.binary(max_size=64))
def test_any_bytes_split_or_are_malformed(data: bytes) -> None:
    for start in (b"", container.MAGIC):
        try:
            envelope, body = container.split(start + data)
        except MalformedBundle:
            continue
        assert container.join(envelope, [bytes(body)]) == start + data


def test_known_answer() -> None:
    """The bytes of section 2."""
    assert container.join(b"{}", [b"one", b"two"]) == bytes.fromhex("894d42010d0a1a0a 00000002") + b"{}onetwo"


@pytest.mark.parametrize("length", range(15))
def test_every_truncation_before_the_parts_is_malformed(length: int) -> None:
    whole = container.join(b"{} ", [b"part"])
    with pytest.raises(MalformedBundle):
        container.split(whole[:length])


@pytest.mark.parametrize("magic", [
    b"\x89MB\x02\r\n\x1a\n", b"\x89MB\x01\n\x1a\n\n", b"\x09MB\x01\r\n\x1a\n", b"\x89PNG\r\n\x1a\n", b"PK\x03\x04\0\0\0\0",
])  # fmt: skip
def test_another_version_or_a_file_in_text_mode_is_malformed(magic: bytes) -> None:
    with pytest.raises(MalformedBundle, match="not a bundle of version 1"):
        container.split(magic + struct.pack(">I", 2) + b"{}")


@pytest.mark.parametrize("length", [0, container.ENVELOPE_BYTES_MAX + 1, 2**32 - 1])
def test_impossible_envelope_lengths_are_malformed(length: int) -> None:
    data = container.MAGIC + struct.pack(">I", length) + bytes(container.ENVELOPE_BYTES_MAX + 2)
    with pytest.raises(MalformedBundle, match="impossible"):
        container.split(data)


def test_envelope_that_no_reader_would_take_is_not_written() -> None:
    with pytest.raises(MalformedBundle, match="over 1,048,576 bytes"):
        container.join(bytes(container.ENVELOPE_BYTES_MAX + 1), [b"x"])


def test_the_longest_envelope_is_read() -> None:
    envelope, body = container.split(container.join(bytes(container.ENVELOPE_BYTES_MAX), [b"x"]))
    assert (len(envelope), bytes(body)) == (container.ENVELOPE_BYTES_MAX, b"x")
