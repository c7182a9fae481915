"""``ModelInfer``: from a message to what is asked, and from an answer to its message.

A client's next request differs from its last in little but the tensor. So what the rest of one says that was answered is
remembered, as long as it has no word of the caller's own: contents, references and other parameters may be about a patient,
and must be gone when the call is. What all such answers have in common is remembered, too.
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

REMEMBERED_MAX, REMEMBERED_BYTES_MAX = 256, 512
DIMENSIONS_MAX = 8
TIMEOUT_US_MAX = 3_600_000_000
_LENGTH = struct.Struct("<I")
_NO_CONTENTS = pb.InferTensorContents()
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

    ``wrong`` is a sentence where the message cannot be used, for the call's record to say. ``header`` are the bytes that say
    all this, where they may be remembered; otherwise it is empty.
    """

    id: str = ""
    model: str = ""
    version: int = 0
    inputs: tuple[Tensor, ...] = ()
    outputs: tuple[tuple[str, int], ...] = ()
    priority: Priority = Priority.ROUTINE
    patience_s: float | None = None
    wrong: str = ""
    header: bytes = b""

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
        wanted, labels = dict(self.outputs) or dict.fromkeys(model.outputs, 0), len(model.manifest.labels)
        chosen = tuple([(name, min(wanted[name], labels)) for name in model.outputs if name in wanted])
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
        common = _common(model.name, str(model.version), model.digest, chosen, labels, rows)
        return common + response.SerializeToString()


class Reader:
    """Reads messages, and remembers what those that were answered have said. Use from one event loop."""

    def __init__(self) -> None:
        self._remembered: dict[bytes, Asked] = {}

    def read(self, data: bytes) -> tuple[Asked, Sequence[memoryview]]:
        """What is asked, and the raw contents as they lie in the message."""
        try:
            header, raw = wire.split(data)
            return self._remembered.get(header) or _asked(header), raw
        except InvalidInput as error:
            return Asked(wrong=str(error)), ()

    def remember(self, asked: Asked) -> None:
        """Hears that the model it names has answered this, so its names are the model's and not somebody's free text."""
        if not asked.header or asked.header in self._remembered:
            return
        if len(self._remembered) >= REMEMBERED_MAX:
            del self._remembered[next(iter(self._remembered))]  # the oldest
        self._remembered[asked.header] = asked


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


def _asked(header: bytes) -> Asked:
    """Raises InvalidInput where the bytes are no message at all."""
    try:
        request = pb.ModelInferRequest.FromString(header)
    except DecodeError:
        raise wire.not_a_request() from None
    try:
        inputs = tuple([_tensor(i + 1, tensor) for i, tensor in enumerate(request.inputs)])
        if not inputs:
            raise InvalidInput("The request has no input.")
        outputs = tuple([(output.name, _classes(output)) for output in request.outputs])
        priority, patience_s = _parameters(request.parameters)
        version = version_of(request.model_version)
    except InvalidInput as error:
        return Asked(request.id, wrong=str(error))
    kept = header if len(header) <= REMEMBERED_BYTES_MAX and not _has_own_words(request, header) else b""
    return Asked(request.id, request.model_name, version, inputs, outputs, priority, patience_s, header=kept)


def _has_own_words(request: pb.ModelInferRequest, header: bytes) -> bool:
    """Whether the bytes of a message that is in order hold more than names, numbers and our own parameters."""
    request.DiscardUnknownFields()
    return bool(
        request.id
        or set(request.parameters) - {"timeout", "priority"}
        or any(tensor.HasField("contents") or tensor.parameters for tensor in request.inputs)
        or any(set(output.parameters) - {"classification"} for output in request.outputs)
        or request.SerializeToString(deterministic=True) != header  # what is unknown, or was said twice
    )


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
    typed = _NO_CONTENTS if tensor.typed is None else tensor.typed
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


@lru_cache(maxsize=REMEMBERED_MAX)
def _common(name: str, version: str, digest: str, chosen: tuple[tuple[str, int], ...], classes: int, rows: int) -> bytes:
    """What all answers with these outputs and so many rows have in common, serialised."""
    response = pb.ModelInferResponse(model_name=name, model_version=version)
    response.parameters["model_digest"].string_param = digest
    wanted = dict(chosen)
    for output, kind, shape in outputs_of(wanted, classes):
        if wanted[output]:
            response.outputs.add(name=output, datatype="BYTES", shape=[rows, wanted[output]])
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
