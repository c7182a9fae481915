"""``appliance.v1.Administration``: for people with the role ``administer``."""

from appliance.access import Action
from appliance.canonical import format_time
from appliance.load import LoadedModel
from appliance.predict import Desk, inquire
from appliance.server.status import Context, answer
from appliance.v1 import administration_pb2 as pb
from appliance.v1.administration_pb2_grpc import AdministrationServicer

METHOD = "/appliance.v1.Administration/ListModels"


class Administration(AdministrationServicer):
    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def ListModels(  # noqa: N802  the protocol's name
        self, request: pb.ListModelsRequest, context: Context
    ) -> pb.ListModelsResponse:
        return await answer(context, METHOD, lambda call: inquire(self._desk, call, Action.ADMINISTER, self._list))

    def _list(self) -> pb.ListModelsResponse:
        return pb.ListModelsResponse(models=[_model(serving.model) for serving in self._desk.serving.values()])


def _model(model: LoadedModel) -> pb.Model:
    return pb.Model(
        name=model.name,
        version=model.version,
        digest=model.digest,
        intended_use=model.manifest.intended_use,
        labels=[label.name for label in model.manifest.labels],
        provider=model.session.provider,
        grant_not_after=format_time(model.terms.not_after),
    )
