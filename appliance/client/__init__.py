"""A small client for programs inside the hospital's network: gRPC and certificates, no numpy, no runtime.

with Client.from_files("appliance.hospital:8443", ca, certificate, key) as client:
    answer = client.classify("chest", [path.read_bytes()])
    if answer.results[0].decision == ACCEPT: ...
    answer = client.classify("report", texts=["No effusion. Heart of normal size."])
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import grpc
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from grpc_health.v1 import health_pb2, health_pb2_grpc

from appliance.errors import CODE_KEY, RETRY_KEY, CallFailed, ConfigError
from appliance.v1 import administration_pb2 as admin
from appliance.v1 import administration_pb2_grpc, classification_pb2, classification_pb2_grpc
from appliance.v1.classification_pb2 import ABSTAIN, ACCEPT, OUT_OF_DISTRIBUTION, ROUTINE, STAT, ClassifyRequest

__all__ = ["ABSTAIN", "ACCEPT", "OUT_OF_DISTRIBUTION", "ROUTINE", "STAT", "CallFailed", "ClassifyRequest", "Client"]

MESSAGE_BYTES_MAX = 64 << 20
PIECE_BYTES = 1 << 20
ACT_S_MAX = 3600.0


class Client:
    """A connection to one appliance. Thread-safe. Every method raises CallFailed with the status and one sentence."""

    def __init__(self, channel: grpc.Channel, timeout_s: float = 30.0) -> None:
        self._channel, self._timeout_s = channel, timeout_s
        self._classification = classification_pb2_grpc.ClassificationStub(channel)
        self._administration = administration_pb2_grpc.AdministrationStub(channel)
        self._health = health_pb2_grpc.HealthStub(channel)

    @classmethod
    def from_files(cls, address: str, ca: Path, certificate: Path, key: Path, timeout_s: float = 30.0) -> "Client":
        """Connects over mutual TLS; the files are PEM. Raises ConfigError where they are not."""
        roots, private, chain = ca.read_bytes(), key.read_bytes(), certificate.read_bytes()
        try:
            for certificates in (roots, chain):
                x509.load_pem_x509_certificates(certificates)
            load_pem_private_key(private, None)
        except (ValueError, TypeError):
            raise ConfigError("the CA, the certificate or the key is not readable PEM") from None
        credentials = grpc.ssl_channel_credentials(roots, private, chain)
        options = [("grpc.max_receive_message_length", MESSAGE_BYTES_MAX)]
        return cls(grpc.secure_channel(address, credentials, options), timeout_s)

    @classmethod
    def on_socket(cls, path: Path) -> "Client":
        """Connects to the operators' socket of an appliance on this machine, for administration alone."""
        return cls(grpc.insecure_channel(f"unix:{path.absolute()}"))

    def classify(
        self,
        model: str,
        images: Sequence[bytes] = (),
        *,
        texts: Sequence[str] = (),
        version: int = 0,
        client_reference: str = "",
        urgent: bool = False,
        receipt: bool = False,
    ) -> classification_pb2.ClassifyResponse:
        """Classifies whole PNG or JPEG files, or ``texts``: what the model takes. Version 0 is the active one.

        An urgent study goes before routine ones.

        With ``receipt`` the answer carries a proof that it is in the audit log.
        """
        request = classification_pb2.ClassifyRequest(
            model=model,
            version=version,
            images=images,
            texts=texts,
            client_reference=client_reference,
            priority=STAT if urgent else ROUTINE,
            receipt=receipt,
        )
        response: classification_pb2.ClassifyResponse = self._call(self._classification.Classify, request)
        return response

    def classify_stream(
        self, requests: Iterable[classification_pb2.ClassifyRequest], *, timeout_s: float | None = None
    ) -> Iterator[classification_pb2.ClassifyStreamResponse]:
        """Classifies many studies over one call; each answer or error has its request's ``number``, counted from 0.

        Answers come as they are ready. The appliance reads on as it answers, so ``requests`` may be without end.
        """
        try:
            yield from self._classification.ClassifyStream(iter(requests), timeout=timeout_s)
        except grpc.RpcError as error:
            raise _failure(error) from error

    def list_models(self) -> admin.ListModelsResponse:
        """The models that serve; needs the role ``administer``, as what follows does unless it says otherwise."""
        response: admin.ListModelsResponse = self._call(self._administration.ListModels, admin.ListModelsRequest())
        return response

    def describe_model(self, name: str, version: int = 0) -> admin.DescribeModelResponse:
        """The model card, in Markdown, of a version that answers (version 0: the active one), for whoever may use the model.

        With the role ``administer``: of any that is installed.
        """
        request = admin.DescribeModelRequest(name=name, version=version)
        response: admin.DescribeModelResponse = self._act(self._administration.DescribeModel, request)
        return response

    def install_model(self, bundle: Path, grant: bytes) -> admin.InstallModelResponse:
        """Sends a bundle and its grant, which are verified, and do not serve yet."""
        response: admin.InstallModelResponse = self._act(self._administration.InstallModel, _pieces(bundle, grant))
        return response

    def renew_grant(self, grant: bytes) -> admin.RenewGrantResponse:
        """Puts another grant in the place of an installed one."""
        response: admin.RenewGrantResponse = self._act(self._administration.RenewGrant, admin.RenewGrantRequest(grant=grant))
        return response

    def activate_model(self, name: str, version: int) -> str:
        """Lets an installed version answer; its digest. Whatever served before serves until it does."""
        request = admin.ActivateModelRequest(name=name, version=version)
        return str(self._act(self._administration.ActivateModel, request).digest)

    def roll_back_model(self, name: str, version: int, reason: str) -> str:
        """Lets an older version answer again; its digest."""
        request = admin.RollBackModelRequest(name=name, version=version, reason=reason)
        return str(self._act(self._administration.RollBackModel, request).digest)

    def deactivate_model(self, name: str, reason: str) -> None:
        """Lets a model answer nobody."""
        self._act(self._administration.DeactivateModel, admin.DeactivateModelRequest(name=name, reason=reason))

    def set_threshold(
        self, name: str, version: int, override: admin.Override | None, reason: str
    ) -> admin.SetThresholdResponse:
        """Lets a version that serves decide by some thresholds of the site's own; None: by the signed ones again."""
        request = admin.SetThresholdRequest(
            name=name, version=version, override=override, as_signed=override is None, reason=reason
        )
        response: admin.SetThresholdResponse = self._act(self._administration.SetThreshold, request)
        return response

    def remove_model(self, name: str, version: int) -> None:
        """Deletes a version that does not serve."""
        self._act(self._administration.RemoveModel, admin.RemoveModelRequest(name=name, version=version))

    def update_trust(self, files: Mapping[str, bytes], fingerprint: str = "") -> admin.UpdateTrustResponse:
        """Sends a vendor's trust repository, by the names of its files."""
        request = admin.UpdateTrustRequest(files=dict(files), fingerprint=fingerprint)
        response: admin.UpdateTrustResponse = self._act(self._administration.UpdateTrust, request)
        return response

    def accept_state(self, reason: str) -> None:
        """Lets the appliance go on from its clock's time, after that was wrong."""
        self._act(self._administration.AcceptState, admin.AcceptStateRequest(reason=reason))

    def read_audit(
        self, first: int = 0, *, limit: int = 0, newest: int = 0, receipts: bool = False
    ) -> Iterator[admin.AuditRecord]:
        """The records of the audit log from an index on, or the ``newest`` so many; needs the role ``audit``.

        ``appliance.audit.proof.decode`` checks a receipt with nothing but the log's public key.
        """
        request = admin.ReadAuditRequest(first=first, limit=limit, newest=newest, receipts=receipts)
        try:
            yield from self._administration.ReadAudit(request)
        except grpc.RpcError as error:
            raise _failure(error) from error

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
        return _answer(method, request, self._timeout_s)

    def _act(self, method: Callable[..., Any], request: object) -> Any:
        """An act may have to wait for a large model, and for other acts."""
        return _answer(method, request, max(self._timeout_s, ACT_S_MAX))


def _answer(method: Callable[..., Any], request: object, timeout_s: float) -> Any:
    try:
        return method(request, timeout=timeout_s)
    except grpc.RpcError as error:
        raise _failure(error) from error


def _failure(error: grpc.RpcError) -> CallFailed:
    trailers = {m.key: m.value for m in error.trailing_metadata() or ()}
    sentence = error.details() or ""
    if sentence.startswith("failed to connect"):  # gRPC's own words, which name its sources
        sentence = "The appliance cannot be reached at this address, or TLS is refused."
    return CallFailed(error.code().name, sentence, str(trailers.get(CODE_KEY, "")), _retry_s(trailers.get(RETRY_KEY, b"")))


def _retry_s(details: bytes) -> float | None:
    """When to try again, of a google.rpc.Status that says so."""
    retry = RetryInfo()
    for detail in Status.FromString(details).details:
        if detail.Unpack(retry):
            return float(retry.retry_delay.ToNanoseconds() / 1e9)
    return None


def _pieces(bundle: Path, grant: bytes) -> Iterator[admin.InstallModelRequest]:
    yield admin.InstallModelRequest(grant=grant)
    with bundle.open("rb") as file:
        while piece := file.read(PIECE_BYTES):
            yield admin.InstallModelRequest(bundle=piece)
