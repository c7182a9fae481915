"""The reader of ModelInferRequest: it sees what protobuf sees, and copies no tensor."""

from contextlib import suppress

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.errors import InvalidInput
from appliance.oip import open_inference_pb2 as pb
from appliance.server import wire

texts = st.text(max_size=20)
parameters = st.dictionaries(
    texts,
    st.one_of(
        st.integers(-(2**63), 2**63 - 1).map(lambda n: pb.InferParameter(int64_param=n)),
        texts.map(lambda t: pb.InferParameter(string_param=t)),
    ),
    max_size=3,
)


@st.composite
def requests(draw: st.DrawFn) -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(model_name=draw(texts), model_version=draw(texts), id=draw(texts))
    for name, value in draw(parameters).items():
        request.parameters[name].CopyFrom(value)
    for _ in range(draw(st.integers(0, 3))):
        shape = draw(st.lists(st.integers(-5, 2**40), max_size=4))
        tensor = request.inputs.add(name=draw(texts), datatype=draw(texts), shape=shape)
        tensor.contents.fp32_contents.extend(draw(st.lists(st.floats(width=32, allow_nan=False), max_size=3)))
        tensor.contents.bytes_contents.extend(draw(st.lists(st.binary(max_size=10), max_size=2)))
    for _ in range(draw(st.integers(0, 2))):
        request.outputs.add(name=draw(texts))
    request.raw_input_contents.extend(draw(st.lists(st.binary(max_size=300), max_size=3)))
    return request


def merged(data: bytes) -> pb.ModelInferRequest:
    """What was split, as protobuf puts it together. Raises InvalidInput, DecodeError."""
    header, raw = wire.split(data)
    whole = pb.ModelInferRequest.FromString(header)
    assert not whole.raw_input_contents
    whole.raw_input_contents.extend(map(bytes, raw))
    return whole


@settings(max_examples=300)
@given(requests())
def test_what_is_read_is_what_protobuf_reads(request: pb.ModelInferRequest) -> None:
    assert merged(request.SerializeToString()) == request


@settings(max_examples=500)
@given(requests(), st.data())
def test_of_damaged_bytes_it_sees_what_protobuf_sees_or_refuses(request: pb.ModelInferRequest, data: st.DataObject) -> None:
    whole = bytearray(request.SerializeToString())
    for _ in range(data.draw(st.integers(1, 3))):
        if whole:
            place = data.draw(st.integers(0, len(whole) - 1))
            match data.draw(st.sampled_from(["flip", "cut", "insert"])):
                case "flip":
                    whole[place] ^= 1 << data.draw(st.integers(0, 7))
                case "cut":
                    del whole[place:]
                case "insert":
                    whole[place:place] = data.draw(st.binary(min_size=1, max_size=4))
    try:
        found = merged(bytes(whole))
    except (InvalidInput, DecodeError):
        return
    assert found.SerializeToString(deterministic=True) == pb.ModelInferRequest.FromString(bytes(whole)).SerializeToString(
        deterministic=True
    )


@given(st.binary(max_size=200))
def test_any_bytes_can_be_split_or_are_refused(data: bytes) -> None:
    with suppress(InvalidInput):
        wire.split(data)


def test_a_tensor_is_a_view_of_the_message() -> None:
    data = pb.ModelInferRequest(model_name="m", raw_input_contents=[bytes(1000)]).SerializeToString()
    _, [raw] = wire.split(data)
    assert np.shares_memory(np.frombuffer(raw, np.uint8), np.frombuffer(data, np.uint8))


@pytest.mark.parametrize(
    "data",
    [
        b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01x",
        b"\x3a\x05abcd",
        b"\x0b",
        b"\xff" * 12,
        b"\x3a",
        b"\x08",
        b"\x0d\x00",
    ],
)
def test_lengths_that_lie_are_refused(data: bytes) -> None:
    with pytest.raises(InvalidInput):
        wire.split(data)
