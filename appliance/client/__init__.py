"""A small client for programs inside the hospital's network: gRPC and certificates, no numpy, no runtime.

with Client.from_files("appliance.hospital:8443", ca, certificate, key) as client:
    answer = client.classify("chest", [path.read_bytes()])
    if answer.results[0].decision == ACCEPT: ...
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from appliance.errors import CallFailed
from appliance.v1 import administration_pb2, administration_pb2_grpc, classification_pb2, classification_pb2_grpc
from appliance.v1.classification_pb2 import ABSTAIN, ACCEPT, OUT_OF_DISTRIBUTION

__all__ = ["ABSTAIN", "ACCEPT", "OUT_OF_DISTRIBUTION", "CallFailed", "Client"]

MESSAGE_BYTES_MAX = 64 << 20


class Client:
    """A connection to one appliance. Thread-safe. Every method raises CallFailed with the status and one sentence."""

    def __init__(self, channel: grpc.Channel, timeout_s: float = 30.0) -> None:
        self._channel, self._timeout_s = channel, timeout_s
        self._classification = classification_pb2_grpc.ClassificationStub(channel)
        self._administration = administration_pb2_grpc.AdministrationStub(channel)
        self._health = health_pb2_grpc.HealthStub(channel)

    @classmethod
    def from_files(cls, address: str, ca: Path, certificate: Path, key: Path, timeout_s: float = 30.0) -> "Client":
        """Connects over mutual TLS; the files are PEM."""
        credentials = grpc.ssl_channel_credentials(ca.read_bytes(), key.read_bytes(), certificate.read_bytes())
        options = [("grpc.max_receive_message_length", MESSAGE_BYTES_MAX)]
        return cls(grpc.secure_channel(address, credentials, options), timeout_s)

    def classify(
        self, model: str, images: Sequence[bytes], *, version: int = 0, client_reference: str = ""
    ) -> classification_pb2.ClassifyResponse:
        """Classifies whole PNG or JPEG files; version 0 is the active one."""
        request = classification_pb2.ClassifyRequest(
            model=model, version=version, images=images, client_reference=client_reference
        )
        response: classification_pb2.ClassifyResponse = self._call(self._classification.Classify, request)
        return response

    def list_models(self) -> administration_pb2.ListModelsResponse:
        """The models that serve; needs the role ``administer``."""
        request = administration_pb2.ListModelsRequest()
        response: administration_pb2.ListModelsResponse = self._call(self._administration.ListModels, request)
        return response

    def serves(self, model: str = "") -> bool:
        """Whether a model, or the appliance as a whole, serves."""
        response = self._call(self._health.Check, health_pb2.HealthCheckRequest(service=model))
        return bool(response.status == health_pb2.HealthCheckResponse.SERVING)

    def close(self) -> None:
        self._channel.close()

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _call(self, method: Callable[..., Any], request: object) -> Any:
        try:
            return method(request, timeout=self._timeout_s)
        except grpc.RpcError as error:
            raise CallFailed(error.code().name, error.details() or "") from error
