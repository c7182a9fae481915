"""AuditEvents of FHIR R4: whatever a record says, its event is valid by FHIR's own library, and says the same."""

import json
from typing import Any

import pytest
from fhir.resources.R4B.auditevent import AuditEvent
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.audit import fhir

ORIGIN = "appliance-audit/0123456789abcdef"
CALLER = {"name": "DNS:ward-7", "roles": ["predict"], "spki": "ab" * 32}
ANSWERED: dict[str, Any] = {
    "v": 1, "index": 42, "time": "2026-11-24T03:45:31.123456Z", "event": "call", "outcome": "answered",
    "method": "/appliance.v1.Classification/Classify", "caller": CALLER,
    "model": {"id": "chest", "version": 3, "digest": "77" * 32},
    "input": {"form": "encoded", "rows": 2, "bytes": 99, "epoch": 1, "pseudonyms": ["9a" * 16, "9b" * 16]},
    "output": {"top": [7, 0], "confidence_e6": [993124, 500000], "decisions": "AO"},
}  # fmt: skip


def valid(record: dict[str, Any]) -> dict[str, Any]:
    """The event, after FHIR's library has read it and said it again."""
    made = fhir.event(record, ORIGIN)
    read: dict[str, Any] = json.loads(AuditEvent.model_validate(made).model_dump_json())
    assert read.keys() == made.keys()
    return made


def test_an_answer_says_who_asked_which_model_about_which_images_and_what_it_said() -> None:
    event = valid(ANSWERED)
    assert (event["id"], event["action"], event["outcome"]) == ("0123456789abcdef-42", "E", "0")
    assert event["agent"] == [
        {"who": {"identifier": {"value": "DNS:ward-7"}}, "requestor": True, "role": [{"text": "predict"}]}
    ]
    model, first, second = event["entity"]
    assert model["detail"][0] == {"type": "version", "valueString": "3"}
    assert [detail["valueString"] for detail in first["detail"]] == ["7", "0.993124", "accept"]
    assert [detail["valueString"] for detail in second["detail"]] == ["0", "0.500000", "out of distribution"]


@pytest.mark.parametrize(("changes", "code", "action", "outcome"), [
    ({"outcome": "denied", "error": "permission_denied", "output": None, "input": None}, "110100", "E", "4"),
    ({"outcome": "failed", "error": "internal", "output": None}, "110100", "E", "8"),
    ({"event": "start", "outcome": "done", "method": None, "caller": None, "model": None, "input": None, "output": None},
     "110100", "U", "0"),
    ({"event": "alarm", "outcome": "done", "method": None, "caller": None, "input": None, "output": None},
     "110113", "U", "0"),
    ({"event": "audit.read", "outcome": "done", "method": None, "input": None, "output": None}, "110101", "R", "0"),
    ({"method": "/appliance.v1.Administration/ReadAudit", "input": None, "output": None}, "110101", "R", "0"),
    ({"event": "model.install", "outcome": "done", "method": None, "input": None, "output": None}, "110100", "C", "0"),
])  # fmt: skip
def test_acts_and_refusals_have_their_codes(changes: dict[str, Any], code: str, action: str, outcome: str) -> None:
    record = {name: value for name, value in (ANSWERED | changes).items() if value is not None}
    event = valid(record)
    assert (event["type"]["code"], event["action"], event["outcome"]) == (code, action, outcome)


@settings(max_examples=100)
@given(missing=st.sets(st.sampled_from(["method", "caller", "model", "input", "output"])), rows=st.integers(0, 3))
def test_what_a_record_does_not_say_its_event_does_not_say(missing: set[str], rows: int) -> None:
    given = ANSWERED["input"] | {"pseudonyms": ["9a" * 16] * rows}
    output = {"top": [1] * rows, "confidence_e6": [1] * rows, "decisions": "B" * rows}
    record = {name: value for name, value in (ANSWERED | {"input": given, "output": output}).items() if name not in missing}
    event = valid(record)
    assert len(event.get("entity", [])) == ("model" not in missing) + (rows if "input" not in missing else 0)
    has_output = rows > 0 and not {"input", "output"} & missing
    assert ("detail" in str(event.get("entity"))) == ("model" not in missing or has_output)
