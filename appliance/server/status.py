"""Where our errors meet gRPC: one table, and the one place that ends a call without an answer."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias, TypeVar

import grpc.aio
from grpc import StatusCode

from appliance import errors
from appliance.audit.record import new_request_id
from appliance.predict import Call
from appliance.server.identity import PeerOf, peer_of

T = TypeVar("T")
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"

STATUS: dict[type[errors.RequestError], StatusCode] = {
    errors.InvalidInput: StatusCode.INVALID_ARGUMENT,
    errors.Unauthenticated: StatusCode.UNAUTHENTICATED,
    errors.PermissionDenied: StatusCode.PERMISSION_DENIED,
    errors.UnknownModel: StatusCode.NOT_FOUND,
    errors.Overloaded: StatusCode.RESOURCE_EXHAUSTED,
    errors.DeadlinePassed: StatusCode.DEADLINE_EXCEEDED,
    errors.NotReady: StatusCode.UNAVAILABLE,
    errors.AuditUnavailable: StatusCode.UNAVAILABLE,
    errors.InferenceFailed: StatusCode.INTERNAL,
}

log = logging.getLogger(__name__)


async def answer(
    context: Context,
    method: str,
    work: Callable[[Call], Awaitable[T]],
    client_reference: str = "",
    peer_of: PeerOf = peer_of,
) -> T:
    """Does the work of one call; whatever it raises becomes a status and one sentence that is safe for a stranger."""
    remaining = context.time_remaining()
    deadline = None if remaining is None else asyncio.get_running_loop().time() + remaining
    call = Call(method, peer_of(context), new_request_id(), client_reference, deadline)
    try:
        return await work(call)
    except errors.RequestError as error:
        await context.abort(STATUS[type(error)], str(error))
    except errors.ApplianceError as error:  # an operator's: a file, a version or the site does not allow it
        await context.abort(StatusCode.FAILED_PRECONDITION, str(error), ((errors.CODE_KEY, error.code),))
    except Exception:
        log.exception("call %s failed", call.request_id)
        await context.abort(StatusCode.INTERNAL, f"Internal error; quote reference {call.request_id}.")
    raise AssertionError("abort does not return")
