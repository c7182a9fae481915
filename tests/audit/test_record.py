"""Records: one exact spelling, a closed set of fields, and nothing of a patient or a caller's own words."""

import asyncio
import re
from datetime import datetime

import pytest

from appliance import canonical, errors
from appliance.audit import record
from appliance.audit.record import Entry
from appliance.audit.segment import PAYLOAD_BYTES_MAX
from appliance.bundle.manifest import CLASSES_MAX, ROWS_MAX
from tests.audit.logs import ORIGIN

KNOWN = {
    *("v", "index", "time", "mono_us", "boot", "config", "build", "event", "outcome", "error", "method", "request_id"),
    *("client_reference", "caller", "model", "input", "output", "run", "detail"),
}


def full() -> Entry:
    """The largest entry there can be: every field, every row, every number as long as it gets."""
    rows = ROWS_MAX
    entry = Entry(
        "call", "answered", method="/inference.GRPCInferenceService/ModelInfer", request_id=record.new_request_id()
    )
    entry.refer("x" * 64)
    entry.caller = {
        "name": "DNS:" + "n" * 253,
        "spki": "f" * 64,
        "roles": ["administer", "observe", "predict"],
    }
    entry.model = {"id": "m" * 64, "version": canonical.INTEGER_MAX, "digest": "d" * 64}
    entry.input = {"form": "encoded", "rows": rows, "bytes": canonical.INTEGER_MAX, "pseudonyms": ["a" * 32] * rows}
    entry.output = {"top": [CLASSES_MAX - 1] * rows, "confidence_e6": [1_000_000] * rows, "decisions": "O" * rows}
    times = dict.fromkeys(("decode_us", "queue_us", "run_us"), canonical.INTEGER_MAX)
    entry.run = {"provider": "TensorrtExecutionProvider", **times}
    return entry


def test_the_largest_call_there_can_be_has_a_record_with_room_to_spare() -> None:
    """An entry over the limit would end the log, so no request may make one."""
    assert len(record.encode(full(), canonical.INTEGER_MAX, ORIGIN)) < PAYLOAD_BYTES_MAX - 8_192


def test_an_entry_over_the_limit_is_our_mistake_and_never_written() -> None:
    entry = full()
    entry.detail = {"text": "x" * PAYLOAD_BYTES_MAX}
    with pytest.raises(ValueError, match="limit"):
        record.encode(entry, 0, ORIGIN)


def test_a_record_is_canonical_and_says_what_is_known_and_no_more() -> None:
    data = record.encode(full(), 7, ORIGIN)
    said = canonical.decode(data)
    assert set(said) == KNOWN - {"error", "detail"}
    assert (said["v"], said["index"], said["boot"]) == (1, 7, ORIGIN.boot)
    assert (said["config"], said["build"]) == (ORIGIN.config, ORIGIN.build)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", said["time"])
    assert datetime.fromisoformat(said["time"]).tzinfo is not None
    least = canonical.decode(record.encode(Entry("start", "done"), 0, ORIGIN))
    assert set(least) == {"v", "index", "time", "mono_us", "boot", "config", "build", "event", "outcome"}


def test_the_receipt_is_no_part_of_the_record() -> None:
    entry = full()
    entry.receipt = record.Receipt(3, bytes(32))
    assert set(canonical.decode(record.encode(entry, 7, ORIGIN))) <= KNOWN


@pytest.mark.parametrize("reference", ["case-17", "A", "x" * 64, "0-9"])
def test_a_reference_that_cannot_hold_a_name_is_taken(reference: str) -> None:
    entry = Entry("call")
    entry.refer(reference)
    assert canonical.decode(record.encode(entry, 0, ORIGIN))["client_reference"] == reference


@pytest.mark.parametrize(
    "reference", ["", "Nobody, Mary", "x" * 65, "case_17", "case-17\n", "Mäxchen", "١٢٣", "\ud800", "a/b", "a.dcm", "a b"]
)
def test_any_other_reference_leaves_no_trace(reference: str) -> None:
    entry = Entry("call")
    entry.refer(reference)
    assert "client_reference" not in canonical.decode(record.encode(entry, 0, ORIGIN))


def test_request_ids_are_ulids_in_the_order_of_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1_469_918_176_385  # the ULID specification's own example: 01ARYZ6S41…
    made = []
    for ms in range(3):
        monkeypatch.setattr(record.time, "time_ns", lambda ms=ms: (now + ms) * 1_000_000 + 999_999)
        made.append(record.new_request_id())
    assert made == sorted(made)
    assert made[0].startswith("01ARYZ6S41")
    assert all(re.fullmatch(r"[0-7][0-9A-HJKMNP-TV-Z]{25}", ulid) for ulid in made)
    assert len({record.new_request_id() for _ in range(1000)}) == 1000


OUTCOMES = {
    errors.InvalidInput: ("invalid", "invalid_input"),
    errors.UnknownModel: ("invalid", "unknown_model"),
    errors.Unauthenticated: ("denied", "unauthenticated"),
    errors.PermissionDenied: ("denied", "permission_denied"),
    errors.Overloaded: ("shed", "overloaded"),
    errors.DeadlinePassed: ("expired", "deadline_passed"),
    errors.NotReady: ("unavailable", "not_ready"),
    errors.AuditUnavailable: ("failed", "audit_unavailable"),
    errors.InferenceFailed: ("failed", "inference_failed"),
    errors.CorruptPayload: ("failed", "corrupt_payload"),
    errors.ConfigError: ("failed", "config"),
    errors.StateError: ("failed", "state"),
    RuntimeError: ("failed", "internal"),
    asyncio.CancelledError: ("cancelled", None),
}


def test_every_kind_of_request_error_has_its_outcome_listed_here() -> None:
    assert set(errors.RequestError.__subclasses__()) <= set(OUTCOMES)


@pytest.mark.parametrize("kind", OUTCOMES, ids=lambda kind: kind.__name__)
def test_the_outcome_on_record_is_that_of_the_error_and_its_text_is_not(kind: type[BaseException]) -> None:
    entry = Entry("call")
    entry.blame(kind("Mary Nobody's image"))
    assert (entry.outcome, entry.error) == OUTCOMES[kind]
    assert b"Nobody" not in record.encode(entry, 0, ORIGIN)
