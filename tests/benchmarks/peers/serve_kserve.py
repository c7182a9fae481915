# mypy: disable-error-code="import-not-found,misc,method-assign"
"""KServe's Python server, its gRPC side alone. It has no batching of its own: that is left to an agent in Go beside it."""

import asyncio
import sys
from pathlib import Path
from typing import Any

import grpc.aio
import networks
import uvloop
from kserve import InferOutput, InferRequest, InferResponse, Model, ModelRepository
from kserve.protocol.dataplane import DataPlane
from kserve.protocol.grpc.server import GRPCServer
from kserve.protocol.model_repository_extension import ModelRepositoryExtension

MESSAGE_BYTES_MAX = 64 << 20


class Served(Model):
    def __init__(self, network: networks.Network) -> None:
        super().__init__(network.name)
        self.network = network
        self.ready = True

    def predict(self, payload: InferRequest, headers: "dict[str, str] | None" = None) -> InferResponse:
        logits = self.network.run(payload.inputs[0].as_numpy())
        output = InferOutput(self.network.output.name, list(logits.shape), self.network.output.datatype)
        output.set_data_from_numpy(logits, binary_data=True)
        return InferResponse(payload.id or "", self.name, [output])


def serve(folder: Path, port: int, threads: int) -> None:
    _stay_on_loopback()
    models = ModelRepository()
    for network in networks.load_all(folder, threads):
        models.update(Served(network))
    limits = {f"grpc_max_{way}_message_length": MESSAGE_BYTES_MAX for way in ("send", "receive")}
    server = GRPCServer(port, DataPlane(models), ModelRepositoryExtension(models), kwargs=limits)
    uvloop.install()
    asyncio.run(server.start(max_workers=4))


def _stay_on_loopback() -> None:
    """It binds every address of the machine, and has no setting for that."""
    made = grpc.aio.server

    def local(*given: Any, **named: Any) -> Any:
        server = made(*given, **named)
        bind = server.add_insecure_port
        server.add_insecure_port = lambda address: bind(address.replace("[::]", "127.0.0.1"))
        return server

    grpc.aio.server = local


if __name__ == "__main__":
    serve(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
