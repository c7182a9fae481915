"""Everything that can go wrong, and whose fault it is.

::

    ApplianceError
    ├── RequestError            the caller's call cannot be answered
    │   ├── InvalidInput            the request itself is wrong
    │   ├── Unauthenticated         no usable identity
    │   ├── PermissionDenied        an identity without the role
    │   ├── UnknownModel            no such model or version here
    │   ├── Overloaded              refused at the door; try again later
    │   ├── DeadlinePassed          the caller's deadline passed, or cannot be met
    │   ├── NotReady                the appliance is starting or stopping
    │   ├── AuditUnavailable        no record can be written, so there is no answer
    │   └── InferenceFailed         the model could not be run
    ├── ConfigError             the operator's configuration or command; lists every problem at once
    ├── BundleError             a file the vendor or the medium brought
    │   ├── MalformedBundle         not the format
    │   ├── UntrustedSignature      not signed by a key we trust for this
    │   ├── NotAdmitted             genuine, but not for now or not for here
    │   ├── WrongKey                granted to another appliance
    │   ├── CorruptPayload          a part is not what was signed
    │   ├── RefusedGraph            a graph that must not reach the runtime
    │   └── FailedGoldenCase        this machine does not reproduce the vendor's answers
    ├── KeyUnavailable          a secret of this site cannot be read: missing, altered, or the wrong passphrase
    ├── AuditLogError           the log on disk is not what was acknowledged
    └── CallFailed              what a client of ours sees of any of this: a status and the sentence

A message is one sentence, safe to show to a stranger: it never carries a path, a traceback, a patient's data, or
anything the caller did not send. No protocol's status appears here; ``server/status.py`` has that table.
"""


class ApplianceError(Exception):
    """The root; never raised itself. ``str(error)`` is the public sentence."""


class RequestError(ApplianceError):
    """A call that cannot be answered. ``code`` is the stable word used in metrics and in the audit record."""

    code = "request_error"


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


class DeadlinePassed(RequestError):
    code = "deadline_passed"


class NotReady(RequestError):
    code = "not_ready"


class AuditUnavailable(RequestError):
    code = "audit_unavailable"


class InferenceFailed(RequestError):
    code = "inference_failed"


class ConfigError(ApplianceError):
    """Start-up or a command cannot go on. ``problems`` has one sentence for each thing to mend."""

    def __init__(self, *problems: str) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


class BundleError(ApplianceError):
    """A bundle or a grant that must not be used. ``code`` is the typed outcome of the published vectors."""

    code = "bundle_error"


class MalformedBundle(BundleError):
    code = "malformed"


class UntrustedSignature(BundleError):
    code = "untrusted_signature"


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


class AuditLogError(ApplianceError):
    """The audit log on disk is damaged, altered, or not ours."""


class CallFailed(ApplianceError):
    """A call of our client was not answered. ``status`` is gRPC's name for why, such as ``INVALID_ARGUMENT``."""

    def __init__(self, status: str, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status
