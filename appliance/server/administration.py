"""``appliance.v1.Administration``: the acts of ``registry.py``, for people with the role ``administer``; model cards, for
whoever may use the model; and the audit log, for auditors.
"""

import asyncio
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import grpc

from appliance.access import Action, Caller
from appliance.audit import stored
from appliance.audit.record import new_request_id
from appliance.canonical import format_time
from appliance.cards import Card
from appliance.errors import InvalidInput, Overloaded
from appliance.override import Override
from appliance.predict import Call, Desk, about, act, inquire
from appliance.registry import Registry
from appliance.servables import Servable
from appliance.server.identity import PeerOf
from appliance.server.status import Context, answer, handler_of, not_a_message, or_refused, refusal
from appliance.site import RESERVE_BYTES
from appliance.v1 import administration_pb2 as pb

T = TypeVar("T")
STREAM_S_MAX = 60  # between two messages of a bundle
PORTION_RECORDS = 64
_SERVICE = "/appliance.v1.Administration/"


class Administration:
    """``changed`` is awaited after each act: what serves may be another."""

    def __init__(
        self,
        desk: Desk,
        registry: Registry,
        incoming: Path,
        bundle_bytes_max: int,
        peer_of: PeerOf,
        changed: Callable[[], Awaitable[None]],
    ) -> None:
        self._desk, self._registry, self._incoming = desk, registry, incoming
        self._bundle_bytes_max, self._peer_of, self._changed = bundle_bytes_max, peer_of, changed
        self._receiving = asyncio.Lock()

    def handler(self) -> grpc.GenericRpcHandler:
        """The service's methods. Bytes that are no message are refused on record, like any other call."""
        streams = ("InstallModel", "ReadAudit")  # which see for themselves

        def method(name: str) -> Callable[..., Any]:
            known = getattr(self, name)
            return known if name in streams else or_refused(known, partial(self._refuse, name))

        return handler_of(pb.DESCRIPTOR.services_by_name["Administration"], method)

    async def ListModels(  # noqa: N802  the protocol's names
        self, request: pb.ListModelsRequest, context: Context
    ) -> pb.ListModelsResponse:
        def models(caller: Caller) -> pb.ListModelsResponse:
            active, shown = self._desk.servables.active, (s for s in self._desk.servables if caller.may_use(s.model.name))
            return pb.ListModelsResponse(models=[_model(servable, active) for servable in shown])

        return await self._inquire(context, "ListModels", Action.ADMINISTER, models)

    async def DescribeModel(  # noqa: N802
        self, request: pb.DescribeModelRequest, context: Context
    ) -> pb.DescribeModelResponse:
        name, version = request.name, request.version

        def loaded(servable: Servable) -> pb.DescribeModelResponse:
            return described(Card.of(servable.model))

        def on_record(call: Call) -> Awaitable[pb.DescribeModelResponse]:
            return about(self._desk, call, lambda: (name, version), loaded)

        async def installed(by: Caller, call: Call) -> pb.DescribeModelResponse:
            return described(await self._registry.cards.read(by, name, version, call.request_id))

        if self._desk.servables.serves(name, version) or not self._desk.open:
            return await answer(context, _SERVICE + "DescribeModel", on_record, peer_of=self._peer_of)
        return await self._act(context, "DescribeModel", installed)

    async def InstallModel(  # noqa: N802
        self, requests: AsyncIterator[pb.InstallModelRequest | None], context: Context
    ) -> pb.InstallModelResponse:
        async def install(by: Caller, call: Call) -> pb.InstallModelResponse:
            bundle = self._incoming / f"{call.request_id}.bundle"
            try:
                grant = await self._receive(requests, bundle)
                found = await self._registry.install(by, bundle, grant, call.request_id)
            finally:
                bundle.unlink(missing_ok=True)
            return pb.InstallModelResponse(name=found.name, version=found.version, digest=found.digest)

        return await self._act(context, "InstallModel", install)

    async def RenewGrant(  # noqa: N802
        self, request: pb.RenewGrantRequest, context: Context
    ) -> pb.RenewGrantResponse:
        async def renew(by: Caller, call: Call) -> pb.RenewGrantResponse:
            terms = await self._registry.renew(by, request.grant, call.request_id)
            return pb.RenewGrantResponse(name=terms.model, version=terms.version, not_after=format_time(terms.not_after))

        return await self._act(context, "RenewGrant", renew)

    async def ActivateModel(  # noqa: N802
        self, request: pb.ActivateModelRequest, context: Context
    ) -> pb.ActivateModelResponse:
        async def activate(by: Caller, call: Call) -> pb.ActivateModelResponse:
            model = await self._registry.activate(by, request.name, request.version, call.request_id)
            return pb.ActivateModelResponse(digest=model.digest)

        return await self._act(context, "ActivateModel", activate)

    async def RollBackModel(  # noqa: N802
        self, request: pb.RollBackModelRequest, context: Context
    ) -> pb.RollBackModelResponse:
        async def roll_back(by: Caller, call: Call) -> pb.RollBackModelResponse:
            model = await self._registry.roll_back(by, request.name, request.version, request.reason, call.request_id)
            return pb.RollBackModelResponse(digest=model.digest)

        return await self._act(context, "RollBackModel", roll_back)

    async def DeactivateModel(  # noqa: N802
        self, request: pb.DeactivateModelRequest, context: Context
    ) -> pb.DeactivateModelResponse:
        async def deactivate(by: Caller, call: Call) -> pb.DeactivateModelResponse:
            await self._registry.deactivate(by, request.name, request.reason, call.request_id)
            return pb.DeactivateModelResponse()

        return await self._act(context, "DeactivateModel", deactivate)

    async def SetThreshold(  # noqa: N802
        self, request: pb.SetThresholdRequest, context: Context
    ) -> pb.SetThresholdResponse:
        async def set_threshold(by: Caller, call: Call) -> pb.SetThresholdResponse:
            found = await self._registry.set_threshold(
                by,
                request.name,
                request.version,
                override_of(request.override),
                request.reason,
                as_signed=request.as_signed,
                request_id=call.request_id,
            )
            return pb.SetThresholdResponse(override=override_message(found))

        return await self._act(context, "SetThreshold", set_threshold)

    async def RemoveModel(  # noqa: N802
        self, request: pb.RemoveModelRequest, context: Context
    ) -> pb.RemoveModelResponse:
        async def remove(by: Caller, call: Call) -> pb.RemoveModelResponse:
            await self._registry.remove(by, request.name, request.version, call.request_id)
            return pb.RemoveModelResponse()

        return await self._act(context, "RemoveModel", remove)

    async def UpdateTrust(  # noqa: N802
        self, request: pb.UpdateTrustRequest, context: Context
    ) -> pb.UpdateTrustResponse:
        async def update(by: Caller, call: Call) -> pb.UpdateTrustResponse:
            name, vendor = await self._registry.update_trust(by, dict(request.files), request.fingerprint, call.request_id)
            return pb.UpdateTrustResponse(vendor=name, expires=format_time(vendor.expires))

        return await self._act(context, "UpdateTrust", update)

    async def AcceptState(  # noqa: N802
        self, request: pb.AcceptStateRequest, context: Context
    ) -> pb.AcceptStateResponse:
        async def accept(by: Caller, call: Call) -> pb.AcceptStateResponse:
            await self._registry.acts.accept(by, request.reason, call.request_id)
            return pb.AcceptStateResponse()

        return await self._act(context, "AcceptState", accept)

    async def ReadAudit(  # noqa: N802
        self, request: pb.ReadAuditRequest | None, context: Context
    ) -> AsyncIterator[pb.AuditRecord]:
        def admitted(caller: Caller) -> pb.ReadAuditRequest:
            caller.authorise_every_model()
            return request or not_a_message()

        request = await self._inquire(context, "ReadAudit", Action.AUDIT, admitted)
        journal = self._desk.journal
        records = audit_records(journal.directory, journal.position.size, request)
        try:
            while portion := await asyncio.to_thread(lambda: list(islice(records, PORTION_RECORDS))):
                for record in portion:
                    yield record
        except Exception as error:
            refused = refusal(error, new_request_id())
            await context.abort(refused.status, refused.sentence, refused.trailers)

    async def _refuse(self, name: str, context: Context) -> Any:
        action = Action.OBSERVE if name == "DescribeModel" else Action.ADMINISTER
        return await self._inquire(context, name, action, not_a_message)

    async def _inquire(self, context: Context, name: str, action: Action, work: Callable[[Caller], T]) -> T:
        return await answer(
            context, _SERVICE + name, lambda call: inquire(self._desk, call, action, work), peer_of=self._peer_of
        )

    async def _act(self, context: Context, name: str, work: Callable[[Caller, Call], Awaitable[T]]) -> T:
        async def do(caller: Caller, call: Call) -> T:
            try:
                return await work(caller, call)
            finally:
                await self._changed()

        def on_record(call: Call) -> Awaitable[T]:
            return act(self._desk, call, lambda caller: do(caller, call))

        return await answer(context, _SERVICE + name, on_record, peer_of=self._peer_of)

    async def _receive(self, requests: AsyncIterator[pb.InstallModelRequest | None], bundle: Path) -> bytes:
        """Writes a bundle as it comes, one at a time, and returns its grant.

        Raises:
            Overloaded: another is coming in, or the disk is nearly full, which the audit log needs.
            InvalidInput: it is over the limit, or stopped coming.
        """
        if self._receiving.locked():
            raise Overloaded("Another bundle is coming in; try again when it is here.")
        grant, size = b"", 0
        async with self._receiving:
            with bundle.open("xb") as file:
                while (request := await _next(requests)) is not None:
                    grant = grant or request.grant
                    size += len(request.bundle)
                    if size > self._bundle_bytes_max:
                        raise InvalidInput(f"The bundle is over limits.bundle_bytes_max, {self._bundle_bytes_max} bytes.")
                    if shutil.disk_usage(self._incoming).free < RESERVE_BYTES + len(request.bundle):
                        raise Overloaded("There is no room for the bundle on the appliance's disk.")
                    await asyncio.to_thread(file.write, request.bundle)
        return grant


def described(card: Card) -> pb.DescribeModelResponse:
    return pb.DescribeModelResponse(name=card.name, version=card.version, digest=card.digest, card=card.text)


def audit_records(directory: Path, size: int, request: pb.ReadAuditRequest) -> Iterator[pb.AuditRecord]:
    """What is asked for of a log of so many records. Raises AuditLogError."""
    first = max(0, size - request.newest) if request.newest else request.first
    stop = min(size, first + request.limit) if request.limit else size
    for found in stored.read(directory, first, stop):
        yield pb.AuditRecord(index=found.index, record=found.data, receipt=found.receipt() if request.receipts else b"")


def override_message(override: Override) -> pb.Override | None:
    return pb.Override(**override.encode()) if override else None


def override_of(message: pb.Override) -> Override:
    """What a message says; one that is absent says nothing."""
    said = {field.name: value for field, value in message.ListFields()}
    return Override(**said)


async def _next(requests: AsyncIterator[T | None]) -> T | None:
    """The next message of a stream, None at its end. Raises InvalidInput where it does not come, or is none."""
    try:
        return await asyncio.wait_for(anext(requests), STREAM_S_MAX) or not_a_message()
    except StopAsyncIteration:
        return None
    except TimeoutError:
        raise InvalidInput(f"The bundle stopped coming for {STREAM_S_MAX} seconds.") from None


def _model(servable: Servable, active: dict[str, int]) -> pb.Model:
    model = servable.model
    return pb.Model(
        name=model.name,
        version=model.version,
        digest=model.digest,
        intended_use=model.manifest.intended_use,
        labels=[label.name for label in model.manifest.labels],
        provider=model.session.provider,
        grant_not_after=format_time(model.terms.not_after),
        active=active.get(model.name) == model.version,
        vendor=model.vendor,
        override=override_message(model.override),
    )
