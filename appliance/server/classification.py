"""``appliance.v1.Classification``: encoded images or texts in; labels, probabilities and a decision out."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from functools import partial

import grpc

from appliance.bundle.manifest import Label
from appliance.engine.queue import Priority
from appliance.errors import InvalidInput
from appliance.model.decision import Decision
from appliance.model.inputs import Encoded
from appliance.predict import Call, Desk, Prediction, Request, predict
from appliance.server.status import Context, answer, handler_of, new_call, not_a_message, refusal
from appliance.v1 import classification_pb2 as pb

SERVICE = "/appliance.v1.Classification/"
UNDER_WAY_MAX = 32  # requests of one stream
_DECISIONS = {
    Decision.ACCEPT: pb.ACCEPT,
    Decision.ABSTAIN: pb.ABSTAIN,
    Decision.OUT_OF_DISTRIBUTION: pb.OUT_OF_DISTRIBUTION,
}


class Classification:
    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def handler(self) -> grpc.GenericRpcHandler:
        """The service's methods, which are given None where a message is none."""
        return handler_of(pb.DESCRIPTOR.services_by_name["Classification"], partial(getattr, self))

    async def Classify(  # noqa: N802  the protocol's name
        self, request: pb.ClassifyRequest | None, context: Context
    ) -> pb.ClassifyResponse:
        return await answer(context, f"{SERVICE}Classify", lambda call: self._classify(request, call), _reference(request))

    async def ClassifyStream(  # noqa: N802
        self, requests: AsyncIterator[pb.ClassifyRequest | None], context: Context
    ) -> None:
        """Each request is a call of its own. Reading stops while too many are under way, so HTTP/2 holds the sender back."""
        places, writing = asyncio.Semaphore(UNDER_WAY_MAX), asyncio.Lock()

        async def one(number: int, request: pb.ClassifyRequest | None) -> None:
            try:
                call = new_call(context, f"{SERVICE}ClassifyStream", _reference(request))
                response = await self._answer_one(number, request, call)
                async with writing:
                    await context.write(response)
            finally:
                places.release()

        async with asyncio.TaskGroup() as calls:  # a stream that is broken off cancels what is under way
            number = 0
            await places.acquire()
            async for request in requests:
                calls.create_task(one(number, request))
                number += 1
                await places.acquire()

    async def _answer_one(self, number: int, request: pb.ClassifyRequest | None, call: Call) -> pb.ClassifyStreamResponse:
        try:
            return pb.ClassifyStreamResponse(number=number, answer=await self._classify(request, call))
        except Exception as error:
            refused = refusal(error, call.request_id)
            retry_ms = round((refused.retry_s or 0) * 1000)
            told = pb.StreamError(code=refused.status.value[0], message=refused.sentence, retry_after_ms=retry_ms)
            return pb.ClassifyStreamResponse(number=number, error=told)

    async def _classify(self, request: pb.ClassifyRequest | None, call: Call) -> pb.ClassifyResponse:
        return _response(await predict(self._desk, call, lambda: _asked(request)), call.request_id)


def _reference(request: pb.ClassifyRequest | None) -> str:
    return "" if request is None else request.client_reference


def _asked(request: pb.ClassifyRequest | None) -> Request:
    if request is None:
        not_a_message()
    return Request(
        request.model,
        request.version,
        [("", _content(request))],
        priority=Priority.STAT if request.priority == pb.STAT else Priority.ROUTINE,
        wants_proof=request.receipt,
    )


def _content(request: pb.ClassifyRequest) -> Encoded:
    """What is to be classified. Of a request with nothing in it the number of rows is what is wrong."""
    if request.images and request.texts:
        raise InvalidInput("A request has images or texts, not both.")
    if request.texts:
        return Encoded([text.encode() for text in request.texts], "texts")  # the bytes that came: UTF-8 has one form
    return Encoded(request.images, "images" if request.images else "")


def _response(prediction: Prediction, request_id: str) -> pb.ClassifyResponse:
    model = prediction.model
    return pb.ClassifyResponse(
        model=model.name,
        version=model.version,
        model_digest=model.digest,
        results=_results(prediction),
        log_index=prediction.receipt.index,
        leaf_hash=prediction.receipt.leaf_hash,
        receipt=prediction.receipt.proof,
        request_id=request_id,
        intended_use=model.manifest.intended_use,
        timings=pb.Timings(
            decode_us=round(prediction.decode_s * 1e6),
            queue_us=round(prediction.queue_s * 1e6),
            run_us=round(prediction.run_s * 1e6),
        ),
    )


def _results(prediction: Prediction) -> Iterator[pb.Result]:
    labels = [_label(label) for label in prediction.model.manifest.labels]
    judgement = prediction.judgement
    for i, decision in enumerate(judgement.decisions):
        row = judgement.probabilities[i]
        order = (-row).argsort(kind="stable").tolist()
        kept = None if judgement.label_sets is None else judgement.label_sets[i]
        yield pb.Result(
            decision=_DECISIONS[decision],
            label=labels[order[0]],
            confidence=row[order[0]],
            scores=[pb.Score(label=labels[k], probability=row[k]) for k in order],
            distance=None if judgement.distance is None else judgement.distance[i],
            label_set=[] if kept is None else [labels[k] for k in order if kept[k]],
        )


def _label(label: Label) -> pb.Label:
    if label.code is None:
        return pb.Label(name=label.name)
    return pb.Label(name=label.name, code_system=label.code.system, code=label.code.value)
