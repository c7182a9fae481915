"""``inference.GRPCInferenceService``: Open Inference Protocol v2, for any Triton or KServe client.

An input that takes images has three forms under one name: ``UINT8 [rows, height, width, channels]``, ``FP32`` of the same
shape holding whole pixels, or ``BYTES [rows]`` holding PNG or JPEG files. One that takes texts is ``BYTES [rows]`` holding
them in UTF-8. Other inputs are tensors of their datatype. The outputs are ``probabilities`` and ``logits`` (FP32
``[rows, classes]``), ``label`` and ``decision`` (BYTES ``[rows]``), and ``distance`` (FP32 ``[rows]``) where the model
measures it.
"""

import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NoReturn, TypeVar

import grpc
import numpy as np

from appliance.access import Action, Caller
from appliance.engine.queue import Priority
from appliance.errors import InvalidInput, PermissionDenied
from appliance.load import LoadedModel
from appliance.model.inputs import DTYPES, Content, Encoded, Raw
from appliance.oip import open_inference_pb2 as pb
from appliance.predict import Call, Desk, Prediction, Request, about, inquire, predict
from appliance.servables import Servable
from appliance.server import wire
from appliance.server.status import Context, Method, answer, handler_of, not_a_message, or_refused

T = TypeVar("T")
Metadata = pb.ModelMetadataResponse.TensorMetadata

SERVICE = "inference.GRPCInferenceService"
EXTENSIONS = ("classification", "model_configuration", "model_repository", "statistics")
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


class Inference:
    """The service's methods by name; ``handler`` is what a gRPC server is given."""

    def __init__(self, desk: Desk, product_version: str) -> None:
        self._desk, self._product_version = desk, product_version

    def handler(self) -> grpc.GenericRpcHandler:
        """Every method of the protocol; those that are not ours to give refuse, on record like any other call."""
        raw = {"ModelInfer": self.model_infer, "ModelStreamInfer": self._refuse_stream}  # without protobuf's copies

        def method(name: str) -> Callable[..., Any]:
            if name in raw:
                return raw[name]
            known = getattr(self, name, None) or self._refuse(name)
            return or_refused(known, lambda context: self._inquire(context, name, not_a_message))

        return handler_of(pb.DESCRIPTOR.services_by_name["GRPCInferenceService"], method, raw)

    async def model_infer(self, data: bytes, context: Context) -> bytes:
        message, wrong = _read(data)

        def ask() -> Request:
            if wrong is not None:
                raise wrong
            return read_request(message)

        async def work(call: Call) -> bytes:
            prediction = await predict(self._desk, call, ask)
            return write_response(message.header, prediction).SerializeToString()

        return await answer(context, f"/{SERVICE}/ModelInfer", work, message.header.id)

    async def ServerLive(self, request: pb.ServerLiveRequest, context: Context) -> pb.ServerLiveResponse:  # noqa: N802
        return await self._inquire(context, "ServerLive", lambda caller: pb.ServerLiveResponse(live=True))

    async def ServerReady(self, request: pb.ServerReadyRequest, context: Context) -> pb.ServerReadyResponse:  # noqa: N802
        return await self._inquire(context, "ServerReady", lambda caller: pb.ServerReadyResponse(ready=True))

    async def ServerMetadata(  # noqa: N802
        self, request: pb.ServerMetadataRequest, context: Context
    ) -> pb.ServerMetadataResponse:
        made = pb.ServerMetadataResponse(name="appliance", version=self._product_version, extensions=EXTENSIONS)
        return await self._inquire(context, "ServerMetadata", lambda caller: made)

    async def ModelReady(self, request: pb.ModelReadyRequest, context: Context) -> pb.ModelReadyResponse:  # noqa: N802
        def ready(servable: Servable) -> pb.ModelReadyResponse:
            return pb.ModelReadyResponse(ready=not servable.batcher.broken)

        return await self._about(context, "ModelReady", request, ready)

    async def ModelMetadata(  # noqa: N802
        self, request: pb.ModelMetadataRequest, context: Context
    ) -> pb.ModelMetadataResponse:
        def metadata(servable: Servable) -> pb.ModelMetadataResponse:
            return describe(servable.model, self._desk.servables.versions(request.name))

        return await self._about(context, "ModelMetadata", request, metadata)

    async def ModelConfig(self, request: pb.ModelConfigRequest, context: Context) -> pb.ModelConfigResponse:  # noqa: N802
        def config(servable: Servable) -> pb.ModelConfigResponse:
            return pb.ModelConfigResponse(config=configuration(servable.model, self._desk.request_rows_max))

        return await self._about(context, "ModelConfig", request, config)

    async def ModelStatistics(  # noqa: N802
        self, request: pb.ModelStatisticsRequest, context: Context
    ) -> pb.ModelStatisticsResponse:
        if request.name:

            def one(servable: Servable) -> pb.ModelStatisticsResponse:
                return pb.ModelStatisticsResponse(model_stats=[statistics(servable)])

            return await self._about(context, "ModelStatistics", request, one)
        return await self._inquire(
            context,
            "ModelStatistics",
            lambda caller: pb.ModelStatisticsResponse(model_stats=map(statistics, self._shown(caller))),
        )

    async def RepositoryIndex(  # noqa: N802
        self, request: pb.RepositoryIndexRequest, context: Context
    ) -> pb.RepositoryIndexResponse:
        def index(caller: Caller) -> pb.RepositoryIndexResponse:
            named = ((servable.model.name, str(servable.model.version)) for servable in self._shown(caller))
            models = [
                pb.RepositoryIndexResponse.ModelIndex(name=name, version=version, state="READY") for name, version in named
            ]
            return pb.RepositoryIndexResponse(models=models)

        return await self._inquire(context, "RepositoryIndex", index)

    def _shown(self, caller: Caller) -> Iterable[Servable]:
        return (servable for servable in self._desk.servables if caller.may_use(servable.model.name))

    def _refuse(self, name: str) -> Method:
        async def refuse(request: object, context: Context) -> NoReturn:
            def sentence(caller: Caller) -> NoReturn:
                raise PermissionDenied(
                    "This port changes nothing of what serves: models are installed and activated through "
                    "appliance.v1.Administration, or `appliance models`, on record."
                )

            await self._inquire(context, name, sentence)
            raise AssertionError("never answered")

        return refuse

    async def _refuse_stream(self, requests: object, context: Context) -> None:
        def sentence(caller: Caller) -> NoReturn:
            raise PermissionDenied("Ask with ModelInfer, or stream through appliance.v1.Classification/ClassifyStream.")

        await self._inquire(context, "ModelStreamInfer", sentence)

    async def _inquire(self, context: Context, name: str, work: Callable[[Caller], T]) -> T:
        return await answer(context, f"/{SERVICE}/{name}", lambda call: inquire(self._desk, call, Action.OBSERVE, work))

    async def _about(self, context: Context, name: str, request: Any, work: Callable[[Servable], T]) -> T:
        """Answers what is asked of one model; an empty version is the active one."""

        def ask() -> tuple[str, int]:
            return request.name, _version(request.version)

        return await answer(context, f"/{SERVICE}/{name}", lambda call: about(self._desk, call, ask, work))


def describe(model: LoadedModel, versions: Iterable[int]) -> pb.ModelMetadataResponse:
    """What a client may send to a model, what it gets back, and which versions of it serve."""
    return pb.ModelMetadataResponse(
        name=model.name,
        versions=map(str, versions),
        platform="onnxruntime_onnx",
        inputs=[Metadata(name=name, datatype=kind, shape=[-1, *shape]) for name, kind, shape in _inputs(model)],
        outputs=[Metadata(name=name, datatype=kind, shape=[-1, *shape]) for name, kind, shape in _outputs(model)],
    )


def configuration(model: LoadedModel, rows_max: int) -> pb.ModelConfig:
    """The same in Triton's words, in which a model that batches has dimensions without the rows."""
    return pb.ModelConfig(
        name=model.name,
        platform="onnxruntime_onnx",
        backend="onnxruntime",
        max_batch_size=rows_max,
        input=[
            pb.ModelInput(name=name, data_type=_data_type(kind), dims=shape or [1]) for name, kind, shape in _inputs(model)
        ],
        output=[
            pb.ModelOutput(name=name, data_type=_data_type(kind), dims=shape or [1]) for name, kind, shape in _outputs(model)
        ],
        dynamic_batching=pb.ModelDynamicBatching(
            preferred_batch_size=[model.session.batch_rows], preserve_ordering=False, priority_levels=2
        ),
    )


def _data_type(kind: str) -> pb.DataType:
    found: pb.DataType = getattr(pb, "TYPE_STRING" if kind == "BYTES" else f"TYPE_{kind}")
    return found


def statistics(servable: Servable) -> pb.ModelStatistics:
    """What a model has answered since it serves, and how long that took."""
    model, told, tally = servable.model, servable.told, servable.batcher.tally
    stages = {
        "compute_input": told.decode_ns,
        "queue": told.queue_ns,
        "compute_infer": told.run_ns,
        "success": told.call_ns,
        "compute_output": 0,
    }
    inference = pb.InferStatistics(fail=pb.StatisticDuration(count=told.failed, ns=told.failed_ns))
    for name, ns in stages.items():
        getattr(inference, name).CopyFrom(pb.StatisticDuration(count=told.answered, ns=ns))
    batches = sorted(tally.batches.items())
    return pb.ModelStatistics(
        name=model.name,
        version=str(model.version),
        last_inference=told.last_ms,
        inference_count=told.rows,
        execution_count=sum(tally.batches.values()),
        inference_stats=inference,
        batch_stats=[
            pb.InferBatchStatistics(
                batch_size=rows, compute_infer=pb.StatisticDuration(count=count, ns=tally.nanoseconds.get(rows, 0))
            )
            for rows, count in batches
        ],
    )


def _inputs(model: LoadedModel) -> list[tuple[str, str, tuple[int, ...]]]:
    """Name, datatype and shape of a row of each input, as callers know them: words become numbers on our side."""
    return [(s.name, s.datatype, s.shape) if s.text is None else (s.name, "BYTES", ()) for s in model.manifest.inputs]


def _outputs(model: LoadedModel) -> list[tuple[str, str, list[int]]]:
    """Name, datatype and shape of a row of each output."""
    shapes = {name: [len(model.manifest.labels)] for name in ("probabilities", "logits")}
    kinds = dict.fromkeys(("label", "decision"), "BYTES")
    return [(name, kinds.get(name, "FP32"), shapes.get(name, [])) for name in model.outputs]


def _read(data: bytes) -> tuple[wire.Message, InvalidInput | None]:
    """The message; of bytes that are none, an empty one and what is wrong, which the call's record is to say."""
    try:
        return wire.read(data), None
    except InvalidInput as error:
        return wire.Message(pb.ModelInferRequest(), ()), error


def read_request(message: wire.Message) -> Request:
    """What is asked for. Only the protocol is looked at here; shapes and sizes are the model's to judge.

    Raises:
        InvalidInput
    """
    header, raw = message
    if raw and len(raw) != len(header.inputs):
        raise InvalidInput("raw_input_contents must hold one item for each input, or none.")
    given = [(tensor.name, _content(i + 1, tensor, raw[i] if raw else None)) for i, tensor in enumerate(header.inputs)]
    if not given:
        raise InvalidInput("The request has no input.")
    for output in header.outputs:
        classes_asked(output)
    priority, patience_s = _parameters(header.parameters)
    return Request(
        header.model_name,
        _version(header.model_version),
        given,
        frozenset(output.name for output in header.outputs),
        priority,
        patience_s,
    )


def _content(number: int, tensor: pb.ModelInferRequest.InferInputTensor, raw: memoryview | None) -> Content:
    """One input. Messages tell its number in the request, not its name, which is the caller's word."""
    kind, shape = tensor.datatype, tuple(tensor.shape)
    if not 1 <= len(shape) <= DIMENSIONS_MAX or min(shape) < 0:
        raise InvalidInput(f"The shape of input {number} must have 1 to {DIMENSIONS_MAX} dimensions, none negative.")
    if kind not in DTYPES and kind != "BYTES":
        raise InvalidInput(f"The datatype of input {number} is not one of {', '.join((*DTYPES, 'BYTES'))}.")
    if "shared_memory_region" in tensor.parameters:
        raise InvalidInput("Shared memory is not offered: send the input in the message.")
    if raw is not None and tensor.HasField("contents"):
        raise InvalidInput("An input's contents must be given once, raw or typed.")
    if kind == "BYTES":
        elements = tensor.contents.bytes_contents if raw is None else _split_bytes(raw)
        if len(elements) != shape[0] or any(size != 1 for size in shape[1:]):
            raise InvalidInput(f"The shape of input {number} must be [rows], with one encoded image or text for each row.")
        return Encoded(list(elements))
    return Raw(kind, shape, _typed(kind, tensor.contents) if raw is None else raw)


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


def write_response(request: pb.ModelInferRequest, prediction: Prediction) -> pb.ModelInferResponse:
    """The outputs that were asked for, all of them where none was named, and the receipt."""
    model = prediction.model
    response = pb.ModelInferResponse(model_name=model.name, model_version=str(model.version), id=request.id)
    response.parameters["model_digest"].string_param = model.digest
    response.parameters["log_index"].int64_param = prediction.receipt.index
    response.parameters["leaf_hash"].string_param = prediction.receipt.leaf_hash.hex()
    rows = len(prediction.judgement.decisions)
    wanted = {output.name: classes_asked(output) for output in request.outputs}
    for name, kind, shape in _outputs(model):
        if wanted and name not in wanted:
            continue
        if classes := wanted.get(name, 0):
            best = min(classes, *shape)
            response.outputs.add(name=name, datatype="BYTES", shape=[rows, best])
            response.raw_output_contents.append(_classification(prediction, name, best))
        else:
            response.outputs.add(name=name, datatype=kind, shape=[rows, *shape])
            response.raw_output_contents.append(_output(prediction, name))
    return response


def classes_asked(output: pb.ModelInferRequest.InferRequestedOutputTensor) -> int:
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


def _version(text: str) -> int:
    if text and not (text.isascii() and text.isdigit() and len(text) < 10):
        raise InvalidInput("A model's version is a whole number.")
    return int(text or 0)


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
