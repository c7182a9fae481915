"""``inference.GRPCInferenceService``: Open Inference Protocol v2, for any Triton or KServe client.

One input takes two forms: ``UINT8 [rows, height, width, channels]``, or ``BYTES [rows]`` holding whole PNG or JPEG files.
The outputs are ``probabilities`` and ``logits`` (FP32 ``[rows, classes]``), ``label`` and ``decision`` (BYTES ``[rows]``),
and ``distance`` (FP32 ``[rows]``) where the model measures it.
"""

import struct
from collections.abc import Callable, Iterable
from typing import TypeVar

import numpy as np

from appliance.access import Action
from appliance.errors import InvalidInput
from appliance.load import LoadedModel
from appliance.oip import open_inference_pb2 as pb
from appliance.oip.open_inference_pb2_grpc import GRPCInferenceServiceServicer
from appliance.predict import Call, Desk, Encoded, Prediction, Raw, Request, inquire, predict
from appliance.server.status import Context, answer

T = TypeVar("T")
Metadata = pb.ModelMetadataResponse.TensorMetadata

_SERVICE = "/inference.GRPCInferenceService/"
_LENGTH = struct.Struct("<I")
DIMENSIONS_MAX = 8


class Inference(GRPCInferenceServiceServicer):
    def __init__(self, desk: Desk, product_version: str) -> None:
        self._desk, self._product_version = desk, product_version

    async def ServerLive(self, request: pb.ServerLiveRequest, context: Context) -> pb.ServerLiveResponse:  # noqa: N802
        return await self._inquire(context, "ServerLive", lambda: pb.ServerLiveResponse(live=True))

    async def ServerReady(self, request: pb.ServerReadyRequest, context: Context) -> pb.ServerReadyResponse:  # noqa: N802
        return await self._inquire(context, "ServerReady", lambda: pb.ServerReadyResponse(ready=True))

    async def ModelReady(self, request: pb.ModelReadyRequest, context: Context) -> pb.ModelReadyResponse:  # noqa: N802
        def ready() -> pb.ModelReadyResponse:
            self._desk.servables.find(request.name, _version(request.version))
            return pb.ModelReadyResponse(ready=True)

        return await self._inquire(context, "ModelReady", ready, request.name)

    async def ServerMetadata(  # noqa: N802
        self, request: pb.ServerMetadataRequest, context: Context
    ) -> pb.ServerMetadataResponse:
        def metadata() -> pb.ServerMetadataResponse:
            return pb.ServerMetadataResponse(name="appliance", version=self._product_version)

        return await self._inquire(context, "ServerMetadata", metadata)

    async def ModelMetadata(  # noqa: N802
        self, request: pb.ModelMetadataRequest, context: Context
    ) -> pb.ModelMetadataResponse:
        def metadata() -> pb.ModelMetadataResponse:
            model = self._desk.servables.find(request.name, _version(request.version)).model
            return describe(model, self._desk.servables.versions(request.name))

        return await self._inquire(context, "ModelMetadata", metadata, request.name)

    async def ModelInfer(self, request: pb.ModelInferRequest, context: Context) -> pb.ModelInferResponse:  # noqa: N802
        async def work(call: Call) -> pb.ModelInferResponse:
            prediction = await predict(self._desk, call, lambda: read_request(request))
            return write_response(request, prediction)

        return await answer(context, f"{_SERVICE}ModelInfer", work, request.id)

    async def _inquire(self, context: Context, name: str, work: Callable[[], T], model: str | None = None) -> T:
        return await answer(
            context, _SERVICE + name, lambda call: inquire(self._desk, call, Action.OBSERVE, lambda caller: work(), model)
        )


def describe(model: LoadedModel, versions: Iterable[int]) -> pb.ModelMetadataResponse:
    """What a client may send to a model, what it gets back, and which versions of it serve."""
    spec = model.manifest.input
    image = Metadata(name=spec.name, datatype="UINT8", shape=[-1, spec.height, spec.width, spec.channels])
    outputs = [Metadata(name=name, datatype=kind, shape=shape) for name, kind, shape in _outputs(model)]
    return pb.ModelMetadataResponse(
        name=model.name, versions=map(str, versions), platform="onnxruntime_onnx", inputs=[image], outputs=outputs
    )


def _outputs(model: LoadedModel) -> list[tuple[str, str, list[int]]]:
    """Name, datatype and shape of each output; -1 stands for the number of rows."""
    shapes = {"probabilities": [-1, len(model.manifest.labels)], "logits": [-1, len(model.manifest.labels)]}
    kinds = {"label": "BYTES", "decision": "BYTES"}
    return [(name, kinds.get(name, "FP32"), shapes.get(name, [-1])) for name in model.outputs]


def read_request(request: pb.ModelInferRequest) -> Request:
    """What is asked for. Only the protocol is looked at here; shapes and sizes are the model's to judge.

    Raises:
        InvalidInput
    """
    if len(request.inputs) != 1:
        raise InvalidInput("The request must have exactly one input.")
    tensor = request.inputs[0]
    if not 1 <= len(tensor.shape) <= DIMENSIONS_MAX:
        raise InvalidInput(f"The input's shape must have 1 to {DIMENSIONS_MAX} dimensions.")
    if request.raw_input_contents and (len(request.raw_input_contents) != 1 or tensor.HasField("contents")):
        raise InvalidInput("The input's contents must be given once, raw or typed.")
    raw = request.raw_input_contents[0] if request.raw_input_contents else None
    match tensor.datatype:
        case "UINT8":
            rows: Encoded | Raw = Raw(_typed_bytes(tensor.contents) if raw is None else raw, tuple(tensor.shape))
        case "BYTES":
            images = list(tensor.contents.bytes_contents) if raw is None else _split_bytes(raw)
            if len(images) != tensor.shape[0] or any(size != 1 for size in tensor.shape[1:]):
                raise InvalidInput("The input's shape must be [rows], with one encoded image for each row.")
            rows = Encoded(images)
        case _:
            raise InvalidInput("The input's datatype must be UINT8 or BYTES.")
    outputs = frozenset(output.name for output in request.outputs)
    return Request(request.model_name, _version(request.model_version), rows, tensor.name, outputs)


def write_response(request: pb.ModelInferRequest, prediction: Prediction) -> pb.ModelInferResponse:
    """The outputs that were asked for, all of them where none was named, and the receipt."""
    model, judgement = prediction.model, prediction.judgement
    response = pb.ModelInferResponse(model_name=model.name, model_version=str(model.version), id=request.id)
    response.parameters["model_digest"].string_param = model.digest
    response.parameters["log_index"].int64_param = prediction.receipt.index
    response.parameters["leaf_hash"].string_param = prediction.receipt.leaf_hash.hex()
    rows = len(judgement.decisions)
    wanted = {output.name for output in request.outputs}
    for name, kind, shape in _outputs(model):
        if wanted and name not in wanted:
            continue
        response.outputs.add(name=name, datatype=kind, shape=[rows, *shape[1:]])
        match name:
            case "label":
                labels = model.manifest.labels
                content = _join_bytes([labels[top].name.encode() for top in judgement.top])
            case "decision":
                content = _join_bytes([decision.value.encode() for decision in judgement.decisions])
            case _:
                content = np.ascontiguousarray(getattr(judgement, name), "<f4").tobytes()
        response.raw_output_contents.append(content)
    return response


def _version(text: str) -> int:
    if text and not (text.isascii() and text.isdigit() and len(text) < 10):
        raise InvalidInput("A model's version is a whole number.")
    return int(text or 0)


def _typed_bytes(contents: pb.InferTensorContents) -> bytes:
    try:
        return bytes(contents.uint_contents)
    except ValueError:
        raise InvalidInput("The input holds a value over 255.") from None


def _split_bytes(raw: bytes) -> list[bytes]:
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


def _join_bytes(elements: list[bytes]) -> bytes:
    return b"".join(_LENGTH.pack(len(element)) + element for element in elements)
