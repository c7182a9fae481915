"""ModelInfer's messages: what is remembered of a request changes nothing of its answer, and is nobody's secret."""

import gc
from dataclasses import astuple, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.audit.record import Receipt
from appliance.errors import InvalidInput
from appliance.model.decision import Decision, Judgement
from appliance.oip import open_inference_pb2 as pb
from appliance.predict import Prediction
from appliance.server.infer_messages import REMEMBERED_MAX, Asked, Reader
from tests.isolation.desk import model

SHAPE = (2, 3)
WORDS = "Mr Smith: no effusion."


def message(name: str = "lungs", **fields: str) -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(model_name=name, **fields)
    request.inputs.add(name="image", datatype="UINT8", shape=SHAPE)
    request.raw_input_contents.append(bytes(6))
    return request


names = st.sampled_from(["probabilities", "logits", "label"])


@st.composite
def messages(draw: st.DrawFn) -> bytes:
    """Requests as clients send them, some with words of their own."""
    request = pb.ModelInferRequest(
        model_name=draw(st.sampled_from("ab")), model_version=draw(st.sampled_from(["", "3", "x"]))
    )
    request.id = draw(st.sampled_from(["", "7"]))
    if draw(st.booleans()):
        request.parameters["priority"].string_param = draw(st.sampled_from(["stat", "routine", "now"]))
    if draw(st.booleans()):
        request.parameters["timeout"].int64_param = draw(st.integers(-1, 5))
    for number in range(draw(st.integers(0, 2))):
        request.inputs.add(name=f"input {number}", datatype="UINT8", shape=draw(st.lists(st.integers(0, 3), max_size=2)))
        request.raw_input_contents.append(draw(st.binary(max_size=4)))
    for name in draw(st.lists(names, max_size=2)):
        output = request.outputs.add(name=name)
        if draw(st.booleans()):
            output.parameters["classification"].int64_param = draw(st.integers(0, 3))
    return request.SerializeToString()


def said(asked: Asked, raw: object) -> object:
    try:
        return asked.request(raw)  # type: ignore[arg-type]
    except InvalidInput as error:
        return str(error)


@given(st.lists(messages(), max_size=6))
def test_what_is_remembered_is_what_would_be_read_anew(sent: list[bytes]) -> None:
    reader = Reader()
    for data in sent * 2:
        asked, raw = reader.read(data)
        anew, _ = Reader().read(data)
        assert astuple(asked) == astuple(anew)
        assert said(asked, raw) == said(anew, raw)
        reader.remember(asked)


def predicted(rows: int, digest: str, index: int) -> Prediction:
    """An answer of which every row differs."""
    loaded = replace(model(), digest=digest)
    classes = len(loaded.manifest.labels)
    logits = np.arange(rows * classes, dtype=np.float32).reshape(rows, classes) + index
    judgement = Judgement(
        logits=logits,
        probabilities=np.asarray(logits, np.float64) / logits.sum(axis=1, keepdims=True),
        top=logits.argmax(axis=1),
        certainty=logits.max(axis=1).astype(np.float64),
        distance=np.arange(rows) / 2,
        decisions=(Decision.ABSTAIN,) * rows,
        label_sets=None,
    )
    return Prediction(loaded, judgement, 0.0, 0.0, 0.0, Receipt(index, bytes([index]) * 32))


@given(
    st.lists(
        st.tuples(st.integers(1, 3), st.sampled_from(["aa", "bb"]), st.integers(1, 99), st.lists(names, max_size=2)),
        max_size=8,
    ),
    st.integers(0, 2**62),
)
def test_an_answer_is_about_its_own_request_whoever_was_answered_before(
    asked: list[tuple[int, str, int, list[str]]], best: int
) -> None:
    for rows, digest, index, outputs in asked:
        made, prediction = Asked(id=str(index), outputs=tuple((name, 0) for name in outputs)), predicted(rows, digest, index)
        answer = pb.ModelInferResponse.FromString(made.answer(prediction))
        assert (answer.model_name, answer.id) == (prediction.model.name, str(index))
        assert answer.parameters["model_digest"].string_param == digest
        assert answer.parameters["log_index"].int64_param == index
        assert answer.parameters["leaf_hash"].string_param == f"{index:02x}" * 32
        wanted = [name for name in prediction.model.outputs if not outputs or name in outputs]
        assert [output.name for output in answer.outputs] == wanted
        assert {output.shape[0] for output in answer.outputs} == {rows}
        assert len(answer.raw_output_contents) == len(wanted)
        if "logits" in wanted:
            raw = answer.raw_output_contents[wanted.index("logits")]
            assert raw == prediction.judgement.logits.astype("<f4").tobytes()
        made = Asked(outputs=(("logits", best),))
        [output] = pb.ModelInferResponse.FromString(made.answer(prediction)).outputs
        classes = prediction.judgement.logits.shape[1]
        assert list(output.shape) == [rows, min(best, classes) or classes]


def test_a_request_is_remembered_once_it_was_answered() -> None:
    reader, data = Reader(), message().SerializeToString()
    first, _ = reader.read(data)
    assert reader.read(data)[0] is not first, "whoever asks in vain leaves nothing behind"
    reader.remember(first)
    assert reader.read(data)[0] is first
    for number in range(REMEMBERED_MAX):
        reader.remember(reader.read(message(f"model-{number}").SerializeToString())[0])
    assert reader.read(data)[0] is not first, "nor is there no end of them"


def with_words(request: pb.ModelInferRequest, place: str) -> bytes:
    match place:
        case "contents":
            request.inputs[0].contents.bytes_contents.append(WORDS.encode())
        case "id":
            request.id = WORDS
        case "parameter":
            request.parameters["note"].string_param = WORDS
        case "parameter of an input":
            request.inputs[0].parameters["note"].string_param = WORDS
        case "parameter of an output":
            request.outputs.add(name="label").parameters["note"].string_param = WORDS
        case "field that nobody knows":
            return request.SerializeToString() + b"\x82\x06" + bytes([len(WORDS)]) + WORDS.encode()
        case "name that is said twice":
            return b"\x0a" + bytes([len(WORDS)]) + WORDS.encode() + request.SerializeToString()
    return request.SerializeToString()


@pytest.mark.parametrize(
    "place",
    [
        "contents",
        "id",
        "parameter",
        "parameter of an input",
        "parameter of an output",
        "field that nobody knows",
        "name that is said twice",
    ],
)
def test_a_callers_own_words_are_gone_when_the_call_is(place: str) -> None:
    reader = Reader()
    asked, _ = reader.read(with_words(message(), place))
    reader.remember(asked)
    del asked
    gc.collect()
    kept = reader._remembered
    assert not kept, f"{place} stays"
    reader.remember(reader.read(message().SerializeToString())[0])
    assert len(kept) == 1, "which one without any does"


def test_a_request_that_cannot_be_used_still_has_its_callers_reference() -> None:
    asked, _ = Reader().read(message(id="ward-7", model_version="x").SerializeToString())
    assert asked.id == "ward-7"


def test_a_tensor_that_is_sent_raw_stays_where_it_arrived() -> None:
    data = message().SerializeToString()
    _, [raw] = Reader().read(data)
    assert np.shares_memory(np.frombuffer(raw, np.uint8), np.frombuffer(data, np.uint8))


@given(st.binary(max_size=200))
def test_reading_never_raises(data: bytes) -> None:
    asked, raw = Reader().read(data)
    assert asked.wrong or (asked.inputs and isinstance(raw, list))
