"""``grpc.health.v1``: NOT_SERVING before the port opens, per model, with ``Watch``; and the same for plain HTTP."""

from collections.abc import Collection

from grpc_health.v1 import health, health_pb2

_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING

SERVICES = ("", "inference.GRPCInferenceService", "appliance.v1.Classification", "appliance.v1.Administration")


class Health:
    """The state that load balancers ask for. ``servicer`` answers them over gRPC, ``ready`` over HTTP."""

    def __init__(self) -> None:
        self.servicer = health.aio.HealthServicer()
        self.ready = False
        self._known = set(SERVICES)

    async def close(self) -> None:
        """Nothing serves: before the port opens, while draining, and when the audit log has failed."""
        self.ready = False
        for service in self._known:
            await self.servicer.set(service, _NOT_SERVING)

    async def open(self, models: Collection[str]) -> None:
        """These models serve, and no other; without any, there is nothing to be ready for."""
        self._known.update(models)
        for service in self._known:
            serves = service in models or (service in SERVICES and bool(models))
            await self.servicer.set(service, _SERVING if serves else _NOT_SERVING)
        self.ready = bool(models)
