"""ModelInfer's messages: what is remembered of a request changes nothing of its answer, and is nobody's secret."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.errors import InvalidInput
from appliance.oip import open_inference_pb2 as pb
from appliance.predict import Request
from appliance.server import infer

SHAPE = (2, 3)
WORDS = b"No effusion."


def message(name: str = "lungs", **fields: str) -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(model_name=name, **fields)
    request.inputs.add(name="image", datatype="UINT8", shape=SHAPE)
    return request


def asked(request: pb.ModelInferRequest) -> Request:
    header, raw = infer.read(request.SerializeToString())
    return header.request(raw)


@given(first=st.binary(min_size=6, max_size=6), second=st.binary(min_size=6, max_size=6))
def test_of_two_requests_that_differ_in_the_tensor_alone_each_has_its_own(first: bytes, second: bytes) -> None:
    found = []
    for data in (first, second):
        request = message(id="7", model_version="3")
        request.raw_input_contents.append(data)
        found.append(asked(request))
        [(name, content)] = found[-1].inputs
        assert (name, bytes(content.data)) == ("image", data)  # type: ignore[union-attr]
    assert [(one.model, one.version) for one in found] == [("lungs", 3)] * 2


def test_what_was_refused_once_is_refused_in_the_same_words_again() -> None:
    request = message(model_version="x")
    request.raw_input_contents.append(bytes(6))
    data, said = request.SerializeToString(), []
    for _ in range(2):
        header, raw = infer.read(data)
        with pytest.raises(InvalidInput) as refused:
            header.request(raw)
        said.append(str(refused.value))
    assert said == ["A model's version is a whole number."] * 2


def test_a_request_that_cannot_be_used_still_has_its_callers_reference() -> None:
    header, _ = infer.read(message(id="ward-7", model_version="x").SerializeToString())
    assert header.id == "ward-7"


@pytest.mark.parametrize("with_raw", [True, False])
def test_a_request_whose_contents_are_typed_is_not_remembered(*, with_raw: bool) -> None:
    """They may be a patient's words, and would stay in memory when the call is long over."""
    request = pb.ModelInferRequest(model_name="reports")
    request.inputs.add(name="report", datatype="BYTES", shape=[1]).contents.bytes_contents.append(WORDS)
    if with_raw:
        request.raw_input_contents.append(b"x")
    infer._remembered.cache_clear()
    header, _ = infer.read(request.SerializeToString())
    assert header.inputs[0].typed is not None
    assert header is not infer.read(request.SerializeToString())[0]


def test_a_tensor_that_is_sent_raw_stays_where_it_arrived() -> None:
    request = message()
    request.raw_input_contents.append(bytes(6))
    data = request.SerializeToString()
    _, [raw] = infer.read(data)
    assert np.shares_memory(np.frombuffer(raw, np.uint8), np.frombuffer(data, np.uint8))


@given(st.binary(max_size=200))
def test_reading_never_raises(data: bytes) -> None:
    header, raw = infer.read(data)
    assert header.wrong or (header.inputs and isinstance(raw, list))
