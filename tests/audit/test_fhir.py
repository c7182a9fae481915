"""AuditEvents of FHIR R4: whatever a record says, its event is valid by FHIR's own library, and says the same."""

import json
import re
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
ACT: dict[str, Any] = {"outcome": "done", "method": None, "input": None, "output": None}
BEGINS = ACT | {
    "event": "alarm", "caller": None, "model": None, "detail": {"kind": "grant_ends", "subject": "chest 3", "on": 1},
}  # fmt: skip
DEGRADED = ACT | {"event": "log.degraded", "caller": None, "model": None, "detail": {"cause": "ENOSPC"}}
THRESHOLD = ACT | {"event": "model.threshold", "detail": {"reason": "study 7", "accept_at_least_e6": 800_000}}
OVERRIDDEN = {"model": ANSWERED["model"] | {"override": {"accept_at_least_e6": 800_000, "reject_above_e6": -5}}}


def of(changes: dict[str, Any]) -> dict[str, Any]:
    """The record of an answer with these changes; what is None is not in it."""
    return {name: value for name, value in (ANSWERED | changes).items() if value is not None}


def details(entity: dict[str, Any]) -> dict[str, str]:
    return {detail["type"]: detail["valueString"] for detail in entity["detail"]}


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
    (BEGINS, "110113", "U", "4"),
    (BEGINS | {"detail": BEGINS["detail"] | {"on": 0}}, "110113", "U", "0"),
    (DEGRADED, "110113", "U", "12"),
    ({"event": "audit.read", "outcome": "done", "method": None, "input": None, "output": None}, "110101", "R", "0"),
    ({"method": "/appliance.v1.Administration/ReadAudit", "input": None, "output": None}, "110101", "R", "0"),
    ({"event": "model.install", "outcome": "done", "method": None, "input": None, "output": None}, "110100", "C", "0"),
])  # fmt: skip
def test_acts_and_refusals_have_their_codes(changes: dict[str, Any], code: str, action: str, outcome: str) -> None:
    event = valid(of(changes))
    assert (event["type"]["code"], event["action"], event["outcome"]) == (code, action, outcome)


def test_an_answer_by_thresholds_of_the_sites_own_says_so() -> None:
    model, *_ = valid(ANSWERED | OVERRIDDEN)["entity"]
    thresholds = {"override.accept_at_least_e6": "800000", "override.reject_above_e6": "-5"}
    assert details(model) == {"version": "3", "digest": "77" * 32} | thresholds


def test_an_act_says_what_is_needed_to_understand_it() -> None:
    log, model = valid(of(THRESHOLD))["entity"]
    assert log["what"]["identifier"]["value"] == ORIGIN
    assert details(log) == {"reason": "study 7", "accept_at_least_e6": "800000"}
    assert model["what"]["identifier"]["value"] == "chest"


@pytest.mark.parametrize(("changes", "described"), [
    (BEGINS, "grant_ends begins"), (BEGINS | {"detail": BEGINS["detail"] | {"on": 0}}, "grant_ends ends"),
    (DEGRADED, "the log takes no more records"),
])  # fmt: skip
def test_bad_news_is_described_as_such_though_it_could_be_put_on_record(changes: dict[str, Any], described: str) -> None:
    assert valid(of(changes))["outcomeDesc"] == described


@given(detail=st.dictionaries(st.sampled_from(["reason", "vendor", "first"]), st.text() | st.integers()))
def test_whatever_an_act_says_its_event_is_valid_and_says_it(detail: dict[str, str | int]) -> None:
    event = valid(of(THRESHOLD | {"model": None, "detail": detail}))
    said = {
        name: "".join(c if c in "\t\r\n" or (c >= " " and re.match(r"[ \S]", c)) else "\ufffd" for c in str(value))
        for name, value in detail.items() if value != ""
    }  # fmt: skip
    assert [details(entity) for entity in event.get("entity", []) if "detail" in entity] == ([said] if said else [])


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
