"""Where our services meet gRPC: how their methods are called, one table of errors, and where calls end without an answer."""

import logging
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from time import monotonic
from typing import Any, NoReturn, TypeAlias, TypeVar

import grpc.aio
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from grpc import StatusCode

from appliance import errors
from appliance.audit.record import new_request_id
from appliance.predict import Call
from appliance.server.identity import PeerOf, peer_of

T = TypeVar("T")
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Method: TypeAlias = Callable[[Any, Context], Awaitable[Any]]

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

RETRY_PUSHBACK = "grpc-retry-pushback-ms"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Refusal:
    """What a caller is told in the place of an answer."""

    status: StatusCode
    sentence: str
    retry_s: float | None = None
    code: str = ""

    @property
    def trailers(self) -> tuple[tuple[str, str | bytes], ...]:
        """Trailing metadata: an operator's error has its code; where it is known when to try again, that is said twice, as
        ``google.rpc.RetryInfo`` and as gRPC's own retries read it (gRFC A6)."""
        if self.code:
            return ((errors.CODE_KEY, self.code),)
        if self.retry_s is None:
            return ()
        delay, details = Duration(), AnyMessage()
        delay.FromNanoseconds(round(self.retry_s * 1e9))
        details.Pack(RetryInfo(retry_delay=delay))
        status = Status(code=self.status.value[0], message=self.sentence, details=[details])
        return ((errors.RETRY_KEY, status.SerializeToString()), (RETRY_PUSHBACK, str(round(self.retry_s * 1000))))


def refusal(error: Exception, request_id: str) -> Refusal:
    """What an error means to its caller: one sentence that is safe for a stranger. What it is really goes to the log."""
    match error:
        case errors.RequestError():
            status = next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)
            return Refusal(status, str(error), error.retry_s)
        case errors.ApplianceError():  # an operator's: a file, a version or the site does not allow it
            return Refusal(StatusCode.FAILED_PRECONDITION, str(error), code=error.code)
    log.error("call %s failed", request_id, exc_info=error)
    return Refusal(StatusCode.INTERNAL, f"Internal error; quote reference {request_id}.")


async def answer(
    context: Context,
    method: str,
    work: Callable[[Call], Awaitable[T]],
    client_reference: str = "",
    peer_of: PeerOf = peer_of,
) -> T:
    """Does the work of one call; whatever it raises becomes a refusal."""
    call = new_call(context, method, client_reference, peer_of)
    try:
        return await work(call)
    except Exception as error:
        refused = refusal(error, call.request_id)
        await context.abort(refused.status, refused.sentence, refused.trailers)
    raise AssertionError("abort does not return")


def handler_of(
    service: ServiceDescriptor, methods: Callable[[str], Callable[..., Any]], raw: Collection[str] = ()
) -> grpc.GenericRpcHandler:
    """What a gRPC server is given of a service: each of its methods by its name. ``raw`` ones read and write bytes.

    The others are given messages, and None where the bytes are none: gRPC would answer that without anybody's knowing.
    """
    made: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}
    for method in service.methods:
        kinds = ("stream" if streaming else "unary" for streaming in (method.client_streaming, method.server_streaming))
        make = getattr(grpc, "_".join([*kinds, "rpc_method_handler"]))
        coders = () if method.name in raw else (_parser(GetMessageClass(method.input_type)), _serialize)
        made[method.name] = make(methods(method.name), *coders)
    return grpc.method_handlers_generic_handler(service.full_name, made)


def _parser(kind: type[Message]) -> Callable[[bytes], Any]:
    def parse(data: bytes) -> Any:
        try:
            return kind.FromString(data)
        except DecodeError:
            return None

    return parse


def _serialize(message: Message) -> bytes:
    return message.SerializeToString()


def or_refused(method: Method, refuse: Callable[[Context], Awaitable[Any]]) -> Method:
    """A method of one request, which is never given None."""

    async def answer_or_refuse(request: Any, context: Context) -> Any:
        return await (refuse(context) if request is None else method(request, context))

    return answer_or_refuse


def not_a_message(*given: object) -> NoReturn:
    """Raises InvalidInput."""
    raise errors.InvalidInput("The message is not what this call takes.")


def new_call(context: Context, method: str, client_reference: str, peer_of: PeerOf = peer_of) -> Call:
    """A call as its transport tells of it."""
    remaining = context.time_remaining()
    deadline = None if remaining is None else monotonic() + remaining
    return Call(method, peer_of(context), new_request_id(), client_reference, deadline)
