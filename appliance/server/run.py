"""From start to SIGTERM: the ports, the order in which they open, and the order in which everything ends."""

import asyncio
import logging
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import grpc
import grpc.aio
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from grpc_health.v1 import health_pb2_grpc

from appliance.audit.record import Entry
from appliance.config import Config, Tls
from appliance.errors import ApplianceError, AuditLogError, ConfigError
from appliance.predict import Desk
from appliance.registry import Registry
from appliance.server.administration import Administration
from appliance.server.classification import Classification
from appliance.server.health import Health
from appliance.server.identity import PeerOf, operator_of, peer_of
from appliance.server.inference import Inference
from appliance.server.metrics import Metrics, MetricsServer

METADATA_BYTES_MAX = 16 * 1024
KEEPALIVE_S, KEEPALIVE_ANSWER_S, PING_S_MIN = 60, 20, 30
OPERATORS_MESSAGE_BYTES_MAX = 64 << 20  # a whole trust repository is one message

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Ports:
    """Where the appliance listens. ``plaintext`` is 0 where there is no such listener, or it is a Unix socket."""

    tls: int
    plaintext: int
    metrics: int


class Ends:
    """Whether and why the appliance is to end. ``fail`` may be called from any thread, of one event loop's process."""

    def __init__(self) -> None:
        self.wanted = asyncio.Event()
        self.failed: ApplianceError | None = None
        self._loop = asyncio.get_running_loop()

    def fail(self, error: ApplianceError) -> None:
        """Ends it because it cannot do its work; the first reason counts."""

        def end() -> None:
            self.failed = self.failed or error
            self.wanted.set()

        self._loop.call_soon_threadsafe(end)


class Appliance:
    """A running appliance: its ports, and how they end."""

    def __init__(
        self,
        config: Config,
        desk: Desk,
        registry: Registry,
        metrics: Metrics,
        incoming: Path,
        product_version: str,
        ends: Ends,
    ) -> None:
        self._config, self.desk, self.metrics = config, desk, metrics
        self._registry, self._incoming = registry, incoming
        self.health = Health()
        self._inference = Inference(desk, product_version)
        self._loop, self._ends = asyncio.get_running_loop(), ends
        desk.journal.on_failure = lambda: ends.fail(
            AuditLogError("The audit log could not be written; the appliance has stopped.")
        )

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[Ports]:
        """Opens the ports, closed for business until ``serve``; on leaving, drains what was accepted.

        Raises:
            ConfigError: a port cannot be bound, or the TLS files do not fit together.
        """
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._ends.wanted.set)
        config = self._config
        await self.health.close()
        server, local_server = self._grpc_server(), self._operators_server()
        credentials, not_after = _credentials(config.tls)
        self.metrics.certificate(not_after)
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

    async def serve(self) -> None:
        """Opens for business until SIGTERM or SIGINT, or until it cannot do its work any more."""
        if self._ends.failed is None:
            self.desk.open = True
            await self._show_health()
        watching = asyncio.create_task(self._registry.acts.watch(self._ends.wanted))
        await self._ends.wanted.wait()
        await self.health.close()
        await watching
        if self._ends.failed is None:
            await asyncio.sleep(self._config.lame_duck_s)  # load balancers see NOT_SERVING while calls are still answered
        else:
            self.desk.open = False

    async def record(self, event: str, **detail: int | str) -> None:
        """Puts an act of the appliance on record. Raises AuditUnavailable."""
        await self.desk.journal.append(Entry(event, outcome="done", detail=detail or None))

    async def _show_health(self) -> None:
        """Tells who asks for health what serves now."""
        if self.desk.open and not self._ends.wanted.is_set():
            await self.health.open(self.desk.servables.active)

    def _operators_server(self) -> "grpc.aio.Server":
        """Administration on a socket in the site directory, for whoever the file system lets in there."""
        path = self._config.operators_socket
        path.unlink(missing_ok=True)  # left by a crash: the audit log's lock says that no other appliance is here
        server = grpc.aio.server(options=[("grpc.max_receive_message_length", OPERATORS_MESSAGE_BYTES_MAX)])
        server.add_generic_rpc_handlers((self._administration(operator_of).handler(),))
        umask = os.umask(0o177)  # so that nobody else can be in before it is closed to them
        try:
            _bind(f"unix:{path}", lambda: server.add_insecure_port(f"unix:{path}"))
        finally:
            os.umask(umask)
        return server

    def _administration(self, peer_of: PeerOf) -> Administration:
        bundle_bytes_max = self._config.limits.bundle_bytes_max
        return Administration(
            self.desk,
            self._registry,
            self._incoming,
            bundle_bytes_max,
            peer_of,
            changed=self._show_health,
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
                ("grpc.max_connection_idle_ms", limits.idle_s_max * 1000),
                ("grpc.max_metadata_size", METADATA_BYTES_MAX),
                # A peer that vanished without a word is noticed, and one that pings for fun is sent away.
                ("grpc.keepalive_time_ms", KEEPALIVE_S * 1000),
                ("grpc.keepalive_timeout_ms", KEEPALIVE_ANSWER_S * 1000),
                ("grpc.http2.min_ping_interval_without_data_ms", PING_S_MIN * 1000),
            ],
        )
        services = (self._inference, Classification(self.desk), self._administration(peer_of))
        server.add_generic_rpc_handlers(tuple(service.handler() for service in services))
        health_pb2_grpc.add_HealthServicer_to_server(self.health.servicer, server)
        return server


def _bind(address: str, bind: Callable[[], int]) -> int:
    try:
        return bind()
    except RuntimeError:
        raise ConfigError(f"{address} cannot be bound: it is in use, or not this machine's") from None


def _credentials(tls: Tls) -> "tuple[grpc.ServerCredentials, datetime]":
    """Mutual TLS, and until when it is good.

    Checked here first: grpc accepts files that do not fit together, and then fails every handshake.
    """
    try:
        certificate, key, ca = (path.read_bytes() for path in (tls.certificate, tls.key, tls.client_ca))
        leaf, private = x509.load_pem_x509_certificate(certificate), load_pem_private_key(key, None)
        x509.load_pem_x509_certificates(ca)
    except (OSError, ValueError, TypeError):
        raise ConfigError("a file of server.certificate, server.key, server.client_ca is not readable PEM") from None
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if leaf.public_key().public_bytes(*form) != private.public_key().public_bytes(*form):
        raise ConfigError("server.key is not the key of server.certificate")
    credentials = grpc.ssl_server_credentials([(key, certificate)], root_certificates=ca, require_client_auth=True)
    return credentials, leaf.not_valid_after_utc
