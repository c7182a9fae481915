"""Whoever does what an operator asks for: the running appliance, over its socket, or this process where it is stopped."""

import asyncio
import contextlib
import shutil
import socket
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Protocol, TypeVar

from appliance import wiring
from appliance.access import OPERATOR
from appliance.canonical import format_time
from appliance.cards import Card
from appliance.client import Client
from appliance.config import Config
from appliance.registry import InstalledModel, Registry
from appliance.server.administration import audit_records, described, override_message, override_of
from appliance.site import Site
from appliance.v1 import administration_pb2 as pb

T = TypeVar("T")


class Operator(Protocol):
    """The acts, as ``Client`` has them."""

    def describe_model(self, name: str, version: int = 0) -> pb.DescribeModelResponse: ...
    def install_model(self, bundle: Path, grant: bytes) -> pb.InstallModelResponse: ...
    def renew_grant(self, grant: bytes) -> pb.RenewGrantResponse: ...
    def activate_model(self, name: str, version: int) -> str: ...
    def roll_back_model(self, name: str, version: int, reason: str) -> str: ...
    def deactivate_model(self, name: str, reason: str) -> None: ...
    def set_threshold(
        self, name: str, version: int, override: pb.Override | None, reason: str
    ) -> pb.SetThresholdResponse: ...
    def remove_model(self, name: str, version: int) -> None: ...
    def update_trust(self, files: Mapping[str, bytes], fingerprint: str = "") -> pb.UpdateTrustResponse: ...
    def accept_state(self, reason: str) -> None: ...
    def read_audit(
        self, first: int = 0, *, limit: int = 0, newest: int = 0, receipts: bool = False
    ) -> Iterator[pb.AuditRecord]: ...


@contextlib.contextmanager
def operator(settings: Config) -> Iterator[Operator]:
    """The appliance if it is running, otherwise a stand-in that has the same effect from its next start on."""
    if is_running(settings):
        with Client.on_socket(settings.operators_socket) as client:
            yield client
    else:
        yield _AtRest(settings)


def is_running(settings: Config) -> bool:
    """Whether an appliance listens on the site's socket."""
    with socket.socket(socket.AF_UNIX) as probe, contextlib.suppress(OSError):
        probe.connect(str(settings.operators_socket))
        return True
    return False


class _AtRest:
    """Acts on a site whose appliance is stopped. Raises what ``Registry`` raises."""

    def __init__(self, settings: Config) -> None:
        self._settings = settings

    def describe_model(self, name: str, version: int = 0) -> pb.DescribeModelResponse:
        async def read(registry: Registry) -> Card:
            card = await registry.cards.read(OPERATOR, name, version)
            await registry.acts.settle()  # a log that is cut back to before this reading is to show
            return card

        return described(self._act(read))

    def install_model(self, bundle: Path, grant: bytes) -> pb.InstallModelResponse:
        async def install(registry: Registry) -> InstalledModel:
            incoming = Site(self._settings.site).empty_incoming() / "bundle"  # ours alone: the audit log is locked
            try:
                await asyncio.to_thread(shutil.copyfile, bundle, incoming)
                return await registry.install(OPERATOR, incoming, grant)
            finally:
                incoming.unlink(missing_ok=True)

        found = self._act(install)
        return pb.InstallModelResponse(name=found.name, version=found.version, digest=found.digest)

    def renew_grant(self, grant: bytes) -> pb.RenewGrantResponse:
        terms = self._act(lambda registry: registry.renew(OPERATOR, grant))
        return pb.RenewGrantResponse(name=terms.model, version=terms.version, not_after=format_time(terms.not_after))

    def activate_model(self, name: str, version: int) -> str:
        return self._act(lambda registry: registry.activate(OPERATOR, name, version)).digest

    def roll_back_model(self, name: str, version: int, reason: str) -> str:
        return self._act(lambda registry: registry.roll_back(OPERATOR, name, version, reason)).digest

    def deactivate_model(self, name: str, reason: str) -> None:
        self._act(lambda registry: registry.deactivate(OPERATOR, name, reason))

    def set_threshold(self, name: str, version: int, override: pb.Override | None, reason: str) -> pb.SetThresholdResponse:
        wanted, as_signed = override_of(override or pb.Override()), override is None
        found = self._act(
            lambda registry: registry.set_threshold(OPERATOR, name, version, wanted, reason, as_signed=as_signed)
        )
        return pb.SetThresholdResponse(override=override_message(found))

    def remove_model(self, name: str, version: int) -> None:
        self._act(lambda registry: registry.remove(OPERATOR, name, version))

    def update_trust(self, files: Mapping[str, bytes], fingerprint: str = "") -> pb.UpdateTrustResponse:
        name, vendor = self._act(lambda registry: registry.update_trust(OPERATOR, files, fingerprint))
        return pb.UpdateTrustResponse(vendor=name, expires=format_time(vendor.expires))

    def accept_state(self, reason: str) -> None:
        self._act(lambda registry: registry.acts.accept(OPERATOR, reason), accepting=True)

    def read_audit(
        self, first: int = 0, *, limit: int = 0, newest: int = 0, receipts: bool = False
    ) -> Iterator[pb.AuditRecord]:
        async def put_on_record(registry: Registry) -> int:
            size = registry.acts.journal.position.size
            async with registry.acts.act("audit.read", OPERATOR):
                return size

        request = pb.ReadAuditRequest(first=first, limit=limit, newest=newest, receipts=receipts)
        yield from audit_records(self._settings.audit, self._act(put_on_record), request)

    def _act(self, work: Callable[[Registry], Awaitable[T]], *, accepting: bool = False) -> T:
        async def do() -> T:
            async with wiring.registry_at_rest(self._settings, accepting=accepting) as registry:
                return await work(registry)

        return asyncio.run(do())
