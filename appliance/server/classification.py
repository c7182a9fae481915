"""``appliance.v1.Classification``: encoded images in; labels, probabilities and a decision out."""

from collections.abc import Iterator

from appliance.bundle.manifest import Label
from appliance.model.decision import Decision
from appliance.predict import Call, Desk, Encoded, Prediction, Request, predict
from appliance.server.status import Context, answer
from appliance.v1 import classification_pb2 as pb
from appliance.v1.classification_pb2_grpc import ClassificationServicer

METHOD = "/appliance.v1.Classification/Classify"
_DECISIONS = {
    Decision.ACCEPT: pb.ACCEPT,
    Decision.ABSTAIN: pb.ABSTAIN,
    Decision.OUT_OF_DISTRIBUTION: pb.OUT_OF_DISTRIBUTION,
}


class Classification(ClassificationServicer):
    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def Classify(  # noqa: N802  the protocol's name
        self, request: pb.ClassifyRequest, context: Context
    ) -> pb.ClassifyResponse:
        async def work(call: Call) -> pb.ClassifyResponse:
            prediction = await predict(
                self._desk, call, lambda: Request(request.model, request.version, Encoded(request.images))
            )
            return _response(prediction, call.request_id)

        return await answer(context, METHOD, work, request.client_reference)


def _response(prediction: Prediction, request_id: str) -> pb.ClassifyResponse:
    model = prediction.model
    return pb.ClassifyResponse(
        model=model.name,
        version=model.version,
        model_digest=model.digest,
        results=_results(prediction),
        log_index=prediction.receipt.index,
        leaf_hash=prediction.receipt.leaf_hash,
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
        top = int(judgement.top[i])
        yield pb.Result(
            decision=_DECISIONS[decision],
            label=labels[top],
            confidence=row[top],
            scores=[pb.Score(label=labels[k], probability=row[k]) for k in (-row).argsort(kind="stable")],
            distance=None if judgement.distance is None else judgement.distance[i],
        )


def _label(label: Label) -> pb.Label:
    if label.code is None:
        return pb.Label(name=label.name)
    return pb.Label(name=label.name, code_system=label.code.system, code=label.code.value)
