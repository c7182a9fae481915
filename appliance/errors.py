"""Everything that can go wrong, and whose fault it is.

::

    ApplianceError
    ├── RequestError            the caller's call cannot be answered
    │   ├── InvalidInput            the request itself is wrong
    │   ├── Unauthenticated         no usable identity
    │   ├── PermissionDenied        an identity without the role
    │   ├── UnknownModel            no such model or version here
    │   ├── Overloaded              refused at the door; try again later
    │   │   ├── QueueFull               by the model's queue
    │   │   ├── CallerTooFast           by the caller's own rate
    │   │   └── CallerTooMany           by what the caller has under way
    │   ├── DeadlinePassed          the caller's deadline passed
    │   │   └── DeadlineUnreachable     it would have, by the time of an answer
    │   ├── NotReady                the appliance is starting or stopping
    │   ├── AuditUnavailable        no record can be written, so there is no answer
    │   └── InferenceFailed         the model could not be run
    ├── ConfigError             the operator's configuration or command; lists every problem at once
    ├── BundleError             a file the vendor or the medium brought
    │   ├── MalformedBundle         not the format
    │   ├── UntrustedSignature      not signed by a key we trust for this
    │   ├── NewVendor               a trust repository whose root nobody has compared here yet
    │   ├── Revoked                 its vendor has taken it, or the key that signed it, back
    │   ├── RolledBack              older than what was seen here before
    │   ├── NotAdmitted             genuine, but not for now or not for here
    │   ├── WrongKey                granted to another appliance
    │   ├── CorruptPayload          a part is not what was signed
    │   ├── RefusedGraph            a graph that must not reach the runtime
    │   └── FailedGoldenCase        this machine does not reproduce the vendor's answers
    ├── KeyUnavailable          a secret of this site cannot be read: missing, altered, or the wrong passphrase
    ├── StateError              what this site remembers was altered, is missing, or contradicts its audit log
    ├── AuditLogError           the log on disk is not what was acknowledged
    ├── FeedFailed              who is to get the log cannot be reached, or does not take it
    ├── EngineFailed            a model that ran cannot be run any more in this process
    └── CallFailed              what a client of ours sees of any of this: a status and the sentence

A message is one sentence, safe to show to a stranger: it never carries a path, a traceback, a patient's data, or
anything the caller did not send. No protocol's status appears here; ``server/status.py`` has that table.
"""

RETRY_KEY = "grpc-status-details-bin"  # the trailing metadata that carries google.rpc.RetryInfo
CODE_KEY = "appliance-error"  # the trailing metadata that carries the code of an operator's error


class ApplianceError(Exception):
    """The root; never raised itself. ``str(error)`` is the public sentence, ``code`` a stable word for it.

    The codes stand in metrics, in the audit record and, of bundles, in the published vectors.
    """

    code = "internal"


class RequestError(ApplianceError):
    """A call that cannot be answered. ``retry_s`` are the seconds after which it may be, where that is known."""

    def __init__(self, sentence: str, retry_s: float | None = None) -> None:
        super().__init__(sentence)
        self.retry_s = retry_s


class InvalidInput(RequestError):
    code = "invalid_input"


class Unauthenticated(RequestError):
    code = "unauthenticated"


class PermissionDenied(RequestError):
    code = "permission_denied"


class UnknownModel(RequestError):
    code = "unknown_model"


class Overloaded(RequestError):
    code = "overloaded"


class QueueFull(Overloaded):
    code = "queue_full"


class CallerTooFast(Overloaded):
    code = "caller_rate"


class CallerTooMany(Overloaded):
    code = "caller_rows"


class DeadlinePassed(RequestError):
    code = "deadline_passed"


class DeadlineUnreachable(DeadlinePassed):
    code = "deadline_unreachable"


class NotReady(RequestError):
    code = "not_ready"


class AuditUnavailable(RequestError):
    code = "audit_unavailable"


class InferenceFailed(RequestError):
    code = "inference_failed"


class ConfigError(ApplianceError):
    """Start-up or a command cannot go on. ``problems`` has one sentence for each thing to mend."""

    code = "config"

    def __init__(self, *problems: str) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


class BundleError(ApplianceError):
    """A bundle, a grant or a trust repository that must not be used."""


class MalformedBundle(BundleError):
    code = "malformed"


class UntrustedSignature(BundleError):
    code = "untrusted_signature"


class NewVendor(BundleError):
    code = "new_vendor"


class Revoked(BundleError):
    code = "revoked"


class RolledBack(BundleError):
    code = "rolled_back"


class NotAdmitted(BundleError):
    code = "not_admitted"


class WrongKey(BundleError):
    code = "wrong_key"


class CorruptPayload(BundleError):
    code = "corrupt_payload"


class RefusedGraph(BundleError):
    code = "refused_graph"


class FailedGoldenCase(BundleError):
    code = "failed_golden_case"


class KeyUnavailable(ApplianceError):
    """A secret of this site cannot be read."""

    code = "key_unavailable"


class StateError(ApplianceError):
    """What this site remembers cannot be believed."""

    code = "state"


class AuditLogError(ApplianceError):
    """The audit log on disk is damaged, altered, or not ours."""

    code = "audit_log"


class FeedFailed(ApplianceError):
    """Whoever is to get the audit log cannot be reached, or does not take it."""

    code = "feed"


class EngineFailed(ApplianceError):
    """A model stopped working while it served; after certain errors of a GPU only a new process helps."""

    code = "engine"


class CallFailed(ApplianceError):
    """A call of our client was not answered.

    ``status`` is gRPC's name for why, such as ``INVALID_ARGUMENT``; ``reason`` the code of one of the errors above, where
    the appliance gave it; ``retry_s`` the seconds after which to try again, likewise.
    """

    reason = ""

    def __init__(self, status: str, sentence: str, reason: str = "", retry_s: float | None = None) -> None:
        super().__init__(sentence)
        self.status, self.reason, self.retry_s = status, reason, retry_s


def with_code(code: str) -> type[ApplianceError]:
    """The kind of error that has a code; the root where none has."""
    waiting = [ApplianceError]
    for kind in waiting:  # grows while it is walked
        if kind.code == code and kind is not ApplianceError:
            return kind
        waiting += kind.__subclasses__()
    return ApplianceError
