"""``inference.GRPCInferenceService``: Open Inference Protocol v2, for any Triton or KServe client.

An input that takes images has three forms under one name: ``UINT8 [rows, height, width, channels]``, ``FP32`` of the same
shape holding whole pixels, or ``BYTES [rows]`` holding PNG or JPEG files. One that takes texts is ``BYTES [rows]`` holding
them in UTF-8. Other inputs are tensors of their datatype. The outputs are ``probabilities`` and ``logits`` (FP32
``[rows, classes]``), ``label`` and ``decision`` (BYTES ``[rows]``), and ``distance`` (FP32 ``[rows]``) where the model
measures it.
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, NoReturn, TypeVar

import grpc

from appliance.access import Action, Caller
from appliance.errors import PermissionDenied
from appliance.load import LoadedModel
from appliance.oip import open_inference_pb2 as pb
from appliance.predict import Call, Desk, about, inquire, predict
from appliance.servables import Servable
from appliance.server import infer_messages
from appliance.server.status import Context, Method, answer, handler_of, not_a_message, or_refused

T = TypeVar("T")
Metadata = pb.ModelMetadataResponse.TensorMetadata

SERVICE = "inference.GRPCInferenceService"
EXTENSIONS = ("classification", "model_configuration", "model_repository", "statistics")


class Inference:
    """The service's methods by name; ``handler`` is what a gRPC server is given."""

    def __init__(self, desk: Desk, product_version: str) -> None:
        self._desk, self._product_version, self._reader = desk, product_version, infer_messages.Reader()

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
        asked, raw = self._reader.read(data)

        async def work(call: Call) -> bytes:
            prediction = await predict(self._desk, call, partial(asked.request, raw))
            self._reader.remember(asked)
            return asked.answer(prediction)

        return await answer(context, f"/{SERVICE}/ModelInfer", work, asked.id)

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
            return request.name, infer_messages.version_of(request.version)

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
    """The same of each output."""
    return infer_messages.outputs_of(model.outputs, len(model.manifest.labels))
