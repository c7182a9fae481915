"""``ModelInfer``: from a message to what is asked, and from an answer to its message.

A client's next request differs from its last in little but the tensor. So what the rest says is read once and remembered,
and so is what all answers to it have in common. A request whose contents are typed is not remembered: they may be a
patient's words, and must be gone when the call is.
"""

import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from google.protobuf.message import DecodeError

from appliance.engine.queue import Priority
from appliance.errors import InvalidInput
from appliance.model.inputs import DTYPES, Content, Encoded, Raw
from appliance.oip import open_inference_pb2 as pb
from appliance.predict import Prediction, Request
from appliance.server import wire

REMEMBERED_BYTES_MAX = 512
DIMENSIONS_MAX = 8
TIMEOUT_US_MAX = 3_600_000_000
_LENGTH = struct.Struct("<I")
# Where a tensor's typed contents are. FP16 has none: it is raw.
_TYPED = {
    "BOOL": "bool_contents",
    **dict.fromkeys(("INT8", "INT16", "INT32"), "int_contents"),
    "INT64": "int64_contents",
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), "uint_contents"),
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}


@dataclass(frozen=True, eq=False, slots=True)
class Tensor:
    """An input as its message tells of it; ``typed`` are its contents where they are not raw."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    typed: pb.InferTensorContents | None


@dataclass(frozen=True, eq=False, slots=True)
class Asked:
    """Everything a message says but its raw contents. ``outputs`` are names, each with how many classes of it are wanted.

    ``wrong`` is a sentence where the message cannot be used, for the call's record to say.
    """

    id: str = ""
    model: str = ""
    version: int = 0
    inputs: tuple[Tensor, ...] = ()
    outputs: tuple[tuple[str, int], ...] = ()
    priority: Priority = Priority.ROUTINE
    patience_s: float | None = None
    wrong: str = ""

    def request(self, raw: Sequence[memoryview]) -> Request:
        """What is asked for. Only the protocol is looked at here; shapes and sizes are the model's to judge.

        Raises:
            InvalidInput
        """
        if self.wrong:
            raise InvalidInput(self.wrong)
        if raw and len(raw) != len(self.inputs):
            raise InvalidInput("raw_input_contents must hold one item for each input, or none.")
        given = [(tensor.name, _content(i, tensor, raw[i] if raw else None)) for i, tensor in enumerate(self.inputs)]
        return Request(
            self.model,
            self.version,
            given,
            frozenset([name for name, _ in self.outputs]),
            self.priority,
            self.patience_s,
        )

    def answer(self, prediction: Prediction) -> bytes:
        """The outputs that were asked for, all of them where none was named, and the receipt."""
        model, rows = prediction.model, len(prediction.judgement.decisions)
        wanted = dict(self.outputs) or dict.fromkeys(model.outputs, 0)
        chosen = tuple([(name, wanted[name]) for name in model.outputs if name in wanted])
        response = pb.ModelInferResponse(
            id=self.id,
            raw_output_contents=[
                _classification(prediction, name, classes) if classes else _output(prediction, name)
                for name, classes in chosen
            ],
        )
        response.parameters["log_index"].int64_param = prediction.receipt.index
        response.parameters["leaf_hash"].string_param = prediction.receipt.leaf_hash.hex()
        # Protobuf reads two messages in a row as one with the fields of both.
        common = _common(model.name, str(model.version), model.digest, chosen, len(model.manifest.labels), rows)
        return common + response.SerializeToString()


def read(data: bytes) -> tuple[Asked, Sequence[memoryview]]:
    """What is asked, and the raw contents as they lie in the message."""
    try:
        header, raw = wire.split(data)
        known = _remembered(header) if raw and len(header) <= REMEMBERED_BYTES_MAX else None
        return known or _asked(_parse(header)), raw
    except InvalidInput as error:
        return Asked(wrong=str(error)), ()


def version_of(text: str) -> int:
    """A version as the protocol spells it, empty for the active one. Raises InvalidInput."""
    if text and not (text.isascii() and text.isdigit() and len(text) < 10):
        raise InvalidInput("A model's version is a whole number.")
    return int(text or 0)


def outputs_of(names: Iterable[str], classes: int) -> list[tuple[str, str, list[int]]]:
    """Name, datatype and shape of a row of each output."""
    shapes = {name: [classes] for name in ("probabilities", "logits")}
    kinds = dict.fromkeys(("label", "decision"), "BYTES")
    return [(name, kinds.get(name, "FP32"), shapes.get(name, [])) for name in names]


def _parse(header: bytes) -> pb.ModelInferRequest:
    try:
        return pb.ModelInferRequest.FromString(header)
    except DecodeError:
        raise wire.not_a_request() from None


@lru_cache(maxsize=4096)
def _remembered(header: bytes) -> Asked | None:
    """None for one that holds contents, of a text say, beside the raw ones: what is remembered outlives its call."""
    request = _parse(header)
    return None if any(tensor.HasField("contents") for tensor in request.inputs) else _asked(request)


def _asked(request: pb.ModelInferRequest) -> Asked:
    try:
        inputs = tuple([_tensor(i + 1, tensor) for i, tensor in enumerate(request.inputs)])
        if not inputs:
            raise InvalidInput("The request has no input.")
        outputs = tuple([(output.name, _classes(output)) for output in request.outputs])
        priority, patience_s = _parameters(request.parameters)
        version = version_of(request.model_version)
        return Asked(request.id, request.model_name, version, inputs, outputs, priority, patience_s)
    except InvalidInput as error:
        return Asked(request.id, wrong=str(error))


def _tensor(number: int, tensor: pb.ModelInferRequest.InferInputTensor) -> Tensor:
    """One input. Messages tell its number in the request, not its name, which is the caller's word."""
    kind, shape = tensor.datatype, tuple(tensor.shape)
    if not 1 <= len(shape) <= DIMENSIONS_MAX or min(shape) < 0:
        raise InvalidInput(f"The shape of input {number} must have 1 to {DIMENSIONS_MAX} dimensions, none negative.")
    if kind not in DTYPES and kind != "BYTES":
        raise InvalidInput(f"The datatype of input {number} is not one of {', '.join((*DTYPES, 'BYTES'))}.")
    if "shared_memory_region" in tensor.parameters:
        raise InvalidInput("Shared memory is not offered: send the input in the message.")
    return Tensor(tensor.name, kind, shape, tensor.contents if tensor.HasField("contents") else None)


def _content(i: int, tensor: Tensor, raw: memoryview | None) -> Content:
    if raw is not None and tensor.typed is not None:
        raise InvalidInput("An input's contents must be given once, raw or typed.")
    typed = pb.InferTensorContents() if tensor.typed is None else tensor.typed
    if tensor.datatype == "BYTES":
        elements = typed.bytes_contents if raw is None else _split_bytes(raw)
        if len(elements) != tensor.shape[0] or any(size != 1 for size in tensor.shape[1:]):
            raise InvalidInput(f"The shape of input {i + 1} must be [rows], with one encoded image or text for each row.")
        return Encoded(list(elements))
    return Raw(tensor.datatype, tensor.shape, _typed(tensor.datatype, typed) if raw is None else raw)


def _typed(kind: str, contents: pb.InferTensorContents) -> bytes:
    """Typed contents as the bytes that raw ones would be."""
    field = _TYPED.get(kind)
    if any(other.name != field for other, _ in contents.ListFields()):
        raise InvalidInput(f"The contents of an input of datatype {kind} must be {field or 'raw'}.")
    values = getattr(contents, field) if field else ()
    try:
        return np.array(values, DTYPES[kind]).tobytes()
    except (OverflowError, ValueError):
        raise InvalidInput(f"The input holds a value that is not of the datatype {kind}.") from None


def _parameters(given: Mapping[str, pb.InferParameter]) -> tuple[Priority, float | None]:
    """The priority, and the seconds to wait at most. Other parameters are of no concern here."""
    priority, patience_s = Priority.ROUTINE, None
    if "timeout" in given:
        timeout_us = _number(given["timeout"])
        if timeout_us is None or not 0 <= timeout_us <= TIMEOUT_US_MAX:
            raise InvalidInput(f"The parameter timeout must be a whole number of microseconds, 0 to {TIMEOUT_US_MAX}.")
        patience_s = timeout_us / 1e6 or None  # as in Triton, 0 says nothing
    if "priority" in given:
        asked = given["priority"]
        if asked.string_param in ("stat", "routine"):
            priority = Priority[asked.string_param.upper()]
        elif (level := _number(asked)) is not None and 0 <= level <= 2:
            priority = Priority.STAT if level == 1 else Priority.ROUTINE
        else:
            raise InvalidInput('The parameter priority must be "stat" or "routine", or 1 or 2 for them.')
    return priority, patience_s


def _number(parameter: pb.InferParameter) -> int | None:
    field = parameter.WhichOneof("parameter_choice")
    return int(getattr(parameter, field)) if field in ("int64_param", "uint64_param") else None


@lru_cache(maxsize=1024)
def _common(name: str, version: str, digest: str, chosen: tuple[tuple[str, int], ...], classes: int, rows: int) -> bytes:
    """What all answers with these outputs and so many rows have in common, serialised."""
    response = pb.ModelInferResponse(model_name=name, model_version=version)
    response.parameters["model_digest"].string_param = digest
    wanted = dict(chosen)
    for output, kind, shape in outputs_of(wanted, classes):
        if wanted[output]:
            response.outputs.add(name=output, datatype="BYTES", shape=[rows, min(wanted[output], classes)])
        else:
            response.outputs.add(name=output, datatype=kind, shape=[rows, *shape])
    return response.SerializeToString()


def _classes(output: pb.ModelInferRequest.InferRequestedOutputTensor) -> int:
    """How many classes the classification extension is to give of an output; 0 where it is not used. Raises InvalidInput."""
    if "classification" not in output.parameters:
        return 0
    count = _number(output.parameters["classification"])
    if output.name not in ("probabilities", "logits") or count is None or count < 1:
        raise InvalidInput("The parameter classification is a whole number from 1, of probabilities or logits.")
    return count


def _output(prediction: Prediction, name: str) -> bytes:
    judgement = prediction.judgement
    match name:
        case "label":
            labels = prediction.model.manifest.labels
            return _join_bytes(labels[top].name.encode() for top in judgement.top)
        case "decision":
            return _join_bytes(decision.value.encode() for decision in judgement.decisions)
    return np.ascontiguousarray(getattr(judgement, name), "<f4").tobytes()


def _classification(prediction: Prediction, name: str, count: int) -> bytes:
    """Triton's classification extension: ``value:index:label`` of the best classes of each row."""
    labels, values = prediction.model.manifest.labels, getattr(prediction.judgement, name)
    order = (-values).argsort(axis=1, kind="stable")[:, :count]
    return _join_bytes(
        f"{values[i, k]:f}:{k}:{labels[k].name}".encode() for i, best in enumerate(order.tolist()) for k in best
    )


def _split_bytes(raw: memoryview) -> Sequence[memoryview]:
    elements, start = [], 0
    while start < len(raw):
        if start + _LENGTH.size > len(raw):
            raise InvalidInput("The input's elements are cut off.")
        end = start + _LENGTH.size + _LENGTH.unpack_from(raw, start)[0]
        if end > len(raw):
            raise InvalidInput("The input's elements are cut off.")
        elements.append(raw[start + _LENGTH.size : end])
        start = end
    return elements


def _join_bytes(elements: Iterable[bytes]) -> bytes:
    return b"".join(_LENGTH.pack(len(element)) + element for element in elements)
