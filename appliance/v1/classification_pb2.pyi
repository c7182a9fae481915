from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Priority(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ROUTINE: _ClassVar[Priority]
    STAT: _ClassVar[Priority]

class Decision(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DECISION_UNSPECIFIED: _ClassVar[Decision]
    ACCEPT: _ClassVar[Decision]
    ABSTAIN: _ClassVar[Decision]
    OUT_OF_DISTRIBUTION: _ClassVar[Decision]
ROUTINE: Priority
STAT: Priority
DECISION_UNSPECIFIED: Decision
ACCEPT: Decision
ABSTAIN: Decision
OUT_OF_DISTRIBUTION: Decision

class ClassifyRequest(_message.Message):
    __slots__ = ("model", "version", "images", "client_reference", "priority", "receipt", "texts")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    CLIENT_REFERENCE_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    RECEIPT_FIELD_NUMBER: _ClassVar[int]
    TEXTS_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: int
    images: _containers.RepeatedScalarFieldContainer[bytes]
    client_reference: str
    priority: Priority
    receipt: bool
    texts: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, model: _Optional[str] = ..., version: _Optional[int] = ..., images: _Optional[_Iterable[bytes]] = ..., client_reference: _Optional[str] = ..., priority: _Optional[_Union[Priority, str]] = ..., receipt: _Optional[bool] = ..., texts: _Optional[_Iterable[str]] = ...) -> None: ...

class Label(_message.Message):
    __slots__ = ("name", "code_system", "code")
    NAME_FIELD_NUMBER: _ClassVar[int]
    CODE_SYSTEM_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    name: str
    code_system: str
    code: str
    def __init__(self, name: _Optional[str] = ..., code_system: _Optional[str] = ..., code: _Optional[str] = ...) -> None: ...

class Score(_message.Message):
    __slots__ = ("label", "probability")
    LABEL_FIELD_NUMBER: _ClassVar[int]
    PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    label: Label
    probability: float
    def __init__(self, label: _Optional[_Union[Label, _Mapping]] = ..., probability: _Optional[float] = ...) -> None: ...

class Result(_message.Message):
    __slots__ = ("decision", "label", "confidence", "scores", "distance", "label_set")
    DECISION_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    DISTANCE_FIELD_NUMBER: _ClassVar[int]
    LABEL_SET_FIELD_NUMBER: _ClassVar[int]
    decision: Decision
    label: Label
    confidence: float
    scores: _containers.RepeatedCompositeFieldContainer[Score]
    distance: float
    label_set: _containers.RepeatedCompositeFieldContainer[Label]
    def __init__(self, decision: _Optional[_Union[Decision, str]] = ..., label: _Optional[_Union[Label, _Mapping]] = ..., confidence: _Optional[float] = ..., scores: _Optional[_Iterable[_Union[Score, _Mapping]]] = ..., distance: _Optional[float] = ..., label_set: _Optional[_Iterable[_Union[Label, _Mapping]]] = ...) -> None: ...

class Timings(_message.Message):
    __slots__ = ("decode_us", "queue_us", "run_us")
    DECODE_US_FIELD_NUMBER: _ClassVar[int]
    QUEUE_US_FIELD_NUMBER: _ClassVar[int]
    RUN_US_FIELD_NUMBER: _ClassVar[int]
    decode_us: int
    queue_us: int
    run_us: int
    def __init__(self, decode_us: _Optional[int] = ..., queue_us: _Optional[int] = ..., run_us: _Optional[int] = ...) -> None: ...

class ClassifyResponse(_message.Message):
    __slots__ = ("model", "version", "model_digest", "results", "log_index", "leaf_hash", "request_id", "intended_use", "timings", "receipt")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    MODEL_DIGEST_FIELD_NUMBER: _ClassVar[int]
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    LOG_INDEX_FIELD_NUMBER: _ClassVar[int]
    LEAF_HASH_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    INTENDED_USE_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    RECEIPT_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: int
    model_digest: str
    results: _containers.RepeatedCompositeFieldContainer[Result]
    log_index: int
    leaf_hash: bytes
    request_id: str
    intended_use: str
    timings: Timings
    receipt: bytes
    def __init__(self, model: _Optional[str] = ..., version: _Optional[int] = ..., model_digest: _Optional[str] = ..., results: _Optional[_Iterable[_Union[Result, _Mapping]]] = ..., log_index: _Optional[int] = ..., leaf_hash: _Optional[bytes] = ..., request_id: _Optional[str] = ..., intended_use: _Optional[str] = ..., timings: _Optional[_Union[Timings, _Mapping]] = ..., receipt: _Optional[bytes] = ...) -> None: ...

class StreamError(_message.Message):
    __slots__ = ("code", "message", "retry_after_ms")
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_MS_FIELD_NUMBER: _ClassVar[int]
    code: int
    message: str
    retry_after_ms: int
    def __init__(self, code: _Optional[int] = ..., message: _Optional[str] = ..., retry_after_ms: _Optional[int] = ...) -> None: ...

class ClassifyStreamResponse(_message.Message):
    __slots__ = ("number", "answer", "error")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    number: int
    answer: ClassifyResponse
    error: StreamError
    def __init__(self, number: _Optional[int] = ..., answer: _Optional[_Union[ClassifyResponse, _Mapping]] = ..., error: _Optional[_Union[StreamError, _Mapping]] = ...) -> None: ...
