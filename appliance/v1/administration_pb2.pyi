from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ListModelsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Model(_message.Message):
    __slots__ = ("name", "version", "digest", "intended_use", "labels", "provider", "grant_not_after", "active", "vendor", "override")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    INTENDED_USE_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    PROVIDER_FIELD_NUMBER: _ClassVar[int]
    GRANT_NOT_AFTER_FIELD_NUMBER: _ClassVar[int]
    ACTIVE_FIELD_NUMBER: _ClassVar[int]
    VENDOR_FIELD_NUMBER: _ClassVar[int]
    OVERRIDE_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: int
    digest: str
    intended_use: str
    labels: _containers.RepeatedScalarFieldContainer[str]
    provider: str
    grant_not_after: str
    active: bool
    vendor: str
    override: Override
    def __init__(self, name: _Optional[str] = ..., version: _Optional[int] = ..., digest: _Optional[str] = ..., intended_use: _Optional[str] = ..., labels: _Optional[_Iterable[str]] = ..., provider: _Optional[str] = ..., grant_not_after: _Optional[str] = ..., active: _Optional[bool] = ..., vendor: _Optional[str] = ..., override: _Optional[_Union[Override, _Mapping]] = ...) -> None: ...

class Override(_message.Message):
    __slots__ = ("accept_at_least_e6", "reject_above_e6")
    ACCEPT_AT_LEAST_E6_FIELD_NUMBER: _ClassVar[int]
    REJECT_ABOVE_E6_FIELD_NUMBER: _ClassVar[int]
    accept_at_least_e6: int
    reject_above_e6: int
    def __init__(self, accept_at_least_e6: _Optional[int] = ..., reject_above_e6: _Optional[int] = ...) -> None: ...

class ListModelsResponse(_message.Message):
    __slots__ = ("models",)
    MODELS_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[Model]
    def __init__(self, models: _Optional[_Iterable[_Union[Model, _Mapping]]] = ...) -> None: ...

class DescribeModelRequest(_message.Message):
    __slots__ = ("name", "version")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: int
    def __init__(self, name: _Optional[str] = ..., version: _Optional[int] = ...) -> None: ...

class DescribeModelResponse(_message.Message):
    __slots__ = ("name", "version", "digest", "card")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    CARD_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: int
    digest: str
    card: str
    def __init__(self, name: _Optional[str] = ..., version: _Optional[int] = ..., digest: _Optional[str] = ..., card: _Optional[str] = ...) -> None: ...

class InstallModelRequest(_message.Message):
    __slots__ = ("grant", "bundle")
    GRANT_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_FIELD_NUMBER: _ClassVar[int]
    grant: bytes
    bundle: bytes
    def __init__(self, grant: _Optional[bytes] = ..., bundle: _Optional[bytes] = ...) -> None: ...

class InstallModelResponse(_message.Message):
    __slots__ = ("name", "version", "digest")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: int
    digest: str
    def __init__(self, name: _Optional[str] = ..., version: _Optional[int] = ..., digest: _Optional[str] = ...) -> None: ...

class RenewGrantRequest(_message.Message):
    __slots__ = ("grant",)
    GRANT_FIELD_NUMBER: _ClassVar[int]
    grant: bytes
    def __init__(self, grant: _Optional[bytes] = ...) -> None: ...

class RenewGrantResponse(_message.Message):
    __slots__ = ("name", "version", "not_after")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    NOT_AFTER_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: int
    not_after: str
    def __init__(self, name: _Optional[str] = ..., version: _Optional[int] = ..., not_after: _Optional[str] = ...) -> None: ...

class ActivateModelRequest(_message.Message):
    __slots__ = ("name", "version")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: int
    def __init__(self, name: _Optional[str] = ..., version: _Optional[int] = ...) -> None: ...

class ActivateModelResponse(_message.Message):
    __slots__ = ("digest",)
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    digest: str
    def __init__(self, digest: _Optional[str] = ...) -> None: ...

class RollBackModelRequest(_message.Message):
    __slots__ = ("name", "version", "reason")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: int
    reason: str
    def __init__(self, name: _Optional[str] = ..., version: _Optional[int] = ..., reason: _Optional[str] = ...) -> None: ...

class RollBackModelResponse(_message.Message):
    __slots__ = ("digest",)
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    digest: str
    def __init__(self, digest: _Optional[str] = ...) -> None: ...

class DeactivateModelRequest(_message.Message):
    __slots__ = ("name", "reason")
    NAME_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    name: str
    reason: str
    def __init__(self, name: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class DeactivateModelResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class SetThresholdRequest(_message.Message):
    __slots__ = ("name", "version", "override", "as_signed", "reason")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    OVERRIDE_FIELD_NUMBER: _ClassVar[int]
    AS_SIGNED_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: int
    override: Override
    as_signed: bool
    reason: str
    def __init__(self, name: _Optional[str] = ..., version: _Optional[int] = ..., override: _Optional[_Union[Override, _Mapping]] = ..., as_signed: _Optional[bool] = ..., reason: _Optional[str] = ...) -> None: ...

class SetThresholdResponse(_message.Message):
    __slots__ = ("override",)
    OVERRIDE_FIELD_NUMBER: _ClassVar[int]
    override: Override
    def __init__(self, override: _Optional[_Union[Override, _Mapping]] = ...) -> None: ...

class RemoveModelRequest(_message.Message):
    __slots__ = ("name", "version")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: int
    def __init__(self, name: _Optional[str] = ..., version: _Optional[int] = ...) -> None: ...

class RemoveModelResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class UpdateTrustRequest(_message.Message):
    __slots__ = ("files", "fingerprint")
    class FilesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: bytes
        def __init__(self, key: _Optional[str] = ..., value: _Optional[bytes] = ...) -> None: ...
    FILES_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    files: _containers.ScalarMap[str, bytes]
    fingerprint: str
    def __init__(self, files: _Optional[_Mapping[str, bytes]] = ..., fingerprint: _Optional[str] = ...) -> None: ...

class UpdateTrustResponse(_message.Message):
    __slots__ = ("vendor", "expires")
    VENDOR_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_FIELD_NUMBER: _ClassVar[int]
    vendor: str
    expires: str
    def __init__(self, vendor: _Optional[str] = ..., expires: _Optional[str] = ...) -> None: ...

class AcceptStateRequest(_message.Message):
    __slots__ = ("reason",)
    REASON_FIELD_NUMBER: _ClassVar[int]
    reason: str
    def __init__(self, reason: _Optional[str] = ...) -> None: ...

class AcceptStateResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ReadAuditRequest(_message.Message):
    __slots__ = ("first", "limit", "newest", "receipts")
    FIRST_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    NEWEST_FIELD_NUMBER: _ClassVar[int]
    RECEIPTS_FIELD_NUMBER: _ClassVar[int]
    first: int
    limit: int
    newest: int
    receipts: bool
    def __init__(self, first: _Optional[int] = ..., limit: _Optional[int] = ..., newest: _Optional[int] = ..., receipts: _Optional[bool] = ...) -> None: ...

class AuditRecord(_message.Message):
    __slots__ = ("index", "record", "receipt")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    RECORD_FIELD_NUMBER: _ClassVar[int]
    RECEIPT_FIELD_NUMBER: _ClassVar[int]
    index: int
    record: bytes
    receipt: bytes
    def __init__(self, index: _Optional[int] = ..., record: _Optional[bytes] = ..., receipt: _Optional[bytes] = ...) -> None: ...
