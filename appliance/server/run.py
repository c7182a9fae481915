"""From start to SIGTERM: the ports, the order in which they open, and the order in which everything ends."""

import asyncio
import logging
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import grpc.aio
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from grpc_health.v1 import health_pb2_grpc

from appliance.audit.record import Entry
from appliance.config import Config, Tls
from appliance.errors import ConfigError
from appliance.oip import open_inference_pb2_grpc
from appliance.predict import Desk
from appliance.registry import Registry
from appliance.server.administration import Administration
from appliance.server.classification import Classification
from appliance.server.health import Health
from appliance.server.identity import PeerOf, operator_of, peer_of
from appliance.server.inference import Inference
from appliance.server.metrics import Metrics, MetricsServer
from appliance.v1 import administration_pb2_grpc, classification_pb2_grpc

METADATA_BYTES_MAX = 16 * 1024
OPERATORS_MESSAGE_BYTES_MAX = 64 << 20  # a whole trust repository is one message

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Ports:
    """Where the appliance listens. ``plaintext`` is 0 where there is no such listener, or it is a Unix socket."""

    tls: int
    plaintext: int
    metrics: int


class Appliance:
    """A running appliance: its ports, and how they end."""

    def __init__(
        self, config: Config, desk: Desk, registry: Registry, metrics: Metrics, incoming: Path, product_version: str
    ) -> None:
        self._config, self.desk, self.metrics = config, desk, metrics
        self._registry, self._incoming = registry, incoming
        self.health = Health()
        self._inference = Inference(desk, product_version)
        self._loop, self._end, self._failed = asyncio.get_running_loop(), asyncio.Event(), False
        desk.journal.on_failure = self._log_failed

    def _log_failed(self) -> None:
        self._loop.call_soon_threadsafe(self._fail)

    def _fail(self) -> None:
        """The audit log cannot be written: nothing is answered any more, and the process is to end."""
        self._failed = True
        self.desk.open = False
        self._end.set()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[Ports]:
        """Opens the ports, closed for business until ``serve``; on leaving, drains what was accepted.

        Raises:
            ConfigError: a port cannot be bound, or the TLS files do not fit together.
        """
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._end.set)
        config = self._config
        await self.health.close()
        server, local_server = self._grpc_server(), self._operators_server()
        credentials = _credentials(config.tls)
        tls = _bind(config.address, lambda: server.add_secure_port(config.address, credentials))
        plaintext = 0
        if (local := config.plaintext_address) is not None:
            plaintext = _bind(local, lambda: server.add_insecure_port(local))
        try:
            pages = MetricsServer(config.metrics_address, self.metrics, lambda: self.health.ready)
        except OSError:
            raise ConfigError("metrics.address cannot be bound: it is in use, or not this machine's") from None
        await server.start()
        await local_server.start()
        try:
            yield Ports(tls, 0 if config.plaintext_address is None else plaintext, pages.port)
        finally:
            await self.health.close()
            await asyncio.gather(server.stop(config.drain_s_max), local_server.stop(config.drain_s_max))
            await self._registry.acts.settle()  # an act that is under way is finished
            await self.desk.servables.drain()
            pages.close()

    async def serve(self) -> bool:
        """Opens for business until SIGTERM or SIGINT. False where the audit log failed."""
        if not self._failed:
            self.desk.open = True
            await self._show_health()
        watching = asyncio.create_task(self._registry.acts.watch(self._end))
        await self._end.wait()
        await watching
        await self.health.close()
        if not self._failed:
            await asyncio.sleep(self._config.lame_duck_s)  # load balancers see NOT_SERVING while calls are still answered
        return not self._failed

    async def record(self, event: str, **detail: int | str) -> None:
        """Puts an act of the appliance on record. Raises AuditUnavailable."""
        await self.desk.journal.append(Entry(event, outcome="done", detail=detail or None))

    async def _show_health(self) -> None:
        """Tells who asks for health what serves now."""
        if self.desk.open and not self._end.is_set():
            await self.health.open(self.desk.servables.active)

    def _operators_server(self) -> "grpc.aio.Server":
        """Administration on a socket in the site directory, for whoever the file system lets in there."""
        path = self._config.operators_socket
        path.unlink(missing_ok=True)  # left by a crash: the audit log's lock says that no other appliance is here
        server = grpc.aio.server(options=[("grpc.max_receive_message_length", OPERATORS_MESSAGE_BYTES_MAX)])
        administration_pb2_grpc.add_AdministrationServicer_to_server(self._administration(operator_of), server)
        umask = os.umask(0o177)  # so that nobody else can be in before it is closed to them
        try:
            _bind(f"unix:{path}", lambda: server.add_insecure_port(f"unix:{path}"))
        finally:
            os.umask(umask)
        return server

    def _administration(self, peer_of: PeerOf) -> Administration:
        bundle_bytes_max = self._config.limits.bundle_bytes_max
        return Administration(
            self.desk, self._registry, self._incoming, bundle_bytes_max, peer_of, changed=self._show_health
        )

    def _grpc_server(self) -> "grpc.aio.Server":
        limits = self._config.limits
        server = grpc.aio.server(
            options=[
                ("grpc.so_reuseport", 0),  # a second appliance on this port is a mistake, not a helper
                ("grpc.max_receive_message_length", limits.message_bytes_max),
                ("grpc.max_send_message_length", limits.message_bytes_max),
                ("grpc.max_concurrent_streams", limits.streams_max),
                ("grpc.max_connection_age_ms", limits.connection_age_s_max * 1000),
                ("grpc.max_connection_age_grace_ms", self._config.drain_s_max * 1000),
                ("grpc.max_metadata_size", METADATA_BYTES_MAX),
            ],
        )
        open_inference_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(self._inference, server)
        classification_pb2_grpc.add_ClassificationServicer_to_server(Classification(self.desk), server)
        administration_pb2_grpc.add_AdministrationServicer_to_server(self._administration(peer_of), server)
        health_pb2_grpc.add_HealthServicer_to_server(self.health.servicer, server)
        return server


def _bind(address: str, bind: Callable[[], int]) -> int:
    try:
        return bind()
    except RuntimeError:
        raise ConfigError(f"{address} cannot be bound: it is in use, or not this machine's") from None


def _credentials(tls: Tls) -> "grpc.ServerCredentials":
    """Mutual TLS. Checked here first: grpc accepts files that do not fit together, and then fails every handshake."""
    try:
        certificate, key, ca = (path.read_bytes() for path in (tls.certificate, tls.key, tls.client_ca))
        leaf, private = x509.load_pem_x509_certificate(certificate), load_pem_private_key(key, None)
        x509.load_pem_x509_certificates(ca)
    except (OSError, ValueError, TypeError):
        raise ConfigError("a file of server.certificate, server.key, server.client_ca is not readable PEM") from None
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if leaf.public_key().public_bytes(*form) != private.public_key().public_bytes(*form):
        raise ConfigError("server.key is not the key of server.certificate")
    return grpc.ssl_server_credentials([(key, certificate)], root_certificates=ca, require_client_auth=True)
