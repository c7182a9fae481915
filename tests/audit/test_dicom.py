"""Audit messages of DICOM: whatever a record says, its message has the form of PS3.15 section A.5.1, and says the same.

``FORM`` is what that section states, in our words: its schema is not ours to publish. evidence.md says what was checked
with the schema itself.
"""

import base64
import re
from datetime import datetime
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.audit import dicom
from tests.audit.test_fhir import ANSWERED, BEGINS, CALLER, DEGRADED, ORIGIN, OVERRIDDEN, of

CODE = ("csd-code codeSystemName originalText", "displayName", "")
FORM = {  # attributes that must be there, others that may, and the children in their order
    "AuditMessage": (
        "", "", "EventIdentification (ActiveParticipant )+AuditSourceIdentification (ParticipantObjectIdentification )*"
    ),
    "EventIdentification": (
        "EventDateTime EventOutcomeIndicator", "EventActionCode", "EventID (EventTypeCode )*(EventOutcomeDescription )?"
    ),
    "EventID": CODE, "EventTypeCode": CODE, "RoleIDCode": CODE, "ParticipantObjectIDTypeCode": CODE,
    "EventOutcomeDescription": ("", "", ""),
    "ActiveParticipant": ("UserID UserIsRequestor", "AlternativeUserID UserName", "(RoleIDCode )*"),
    "AuditSourceIdentification": ("AuditSourceID", "AuditEnterpriseSiteID", "(AuditSourceTypeCode )*"),
    "AuditSourceTypeCode": ("csd-code", "", ""),
    "ParticipantObjectIdentification": (
        "ParticipantObjectID",
        "ParticipantObjectTypeCode ParticipantObjectTypeCodeRole ParticipantObjectDataLifeCycle",
        "ParticipantObjectIDTypeCode ParticipantObjectName (ParticipantObjectDetail )*",
    ),
    "ParticipantObjectName": ("", "", ""),
    "ParticipantObjectDetail": ("type value", "", ""),
}  # fmt: skip
VALUES = {
    "EventActionCode": "[CRUDE]", "EventOutcomeIndicator": "0|4|8|12", "UserIsRequestor": "true|false",
    "ParticipantObjectTypeCode": "[1-4]", "ParticipantObjectTypeCodeRole": "[1-9]|1[0-9]|2[0-6]",
}  # fmt: skip


def valid(record: dict[str, Any]) -> ET.Element:
    """The message, after another parser has read it."""
    text = dicom.message(record, ORIGIN)
    assert "\n" not in text
    root = ET.fromstring(text)  # noqa: S314 - it is our own
    assert root.tag == "AuditMessage"
    for element in root.iter():
        must, may, children = FORM[element.tag]
        assert {*must.split()} <= {*element.keys()} <= {*must.split(), *may.split()}, element.tag
        assert re.fullmatch(children, "".join(f"{child.tag} " for child in element)), element.tag
        for name in VALUES.keys() & set(element.keys()):
            assert re.fullmatch(VALUES[name], element.attrib[name]), name
        if element.tag == "ParticipantObjectDetail":
            base64.b64decode(element.attrib["value"], validate=True)
    assert datetime.fromisoformat(root[0].attrib["EventDateTime"]).tzinfo is not None
    assert sum(one.get("UserIsRequestor") == "true" for one in root.iter("ActiveParticipant")) <= 1, "A.5.2: one requestor"
    return root


def details(found: ET.Element) -> dict[str, str]:
    return {
        one.attrib["type"]: base64.b64decode(one.attrib["value"]).decode() for one in found.iter("ParticipantObjectDetail")
    }


def test_an_answer_says_who_asked_which_model_about_which_images_and_what_it_said() -> None:
    root = valid(ANSWERED)
    event, caller, own, source, log, model, first, second = root
    assert event.attrib == {
        "EventActionCode": "E", "EventDateTime": ANSWERED["time"], "EventOutcomeIndicator": "0",
    }  # fmt: skip
    assert (event[0].get("csd-code"), event[1].get("csd-code")) == ("110100", ANSWERED["method"])
    assert (caller.get("UserID"), caller.get("UserIsRequestor"), caller[0].get("csd-code")) == (
        "DNS:ward-7", "true", "predict",
    )  # fmt: skip
    assert (own.get("UserID"), own[0].get("csd-code"), source.get("AuditSourceID")) == (ORIGIN, "110150", ORIGIN)
    assert (log.get("ParticipantObjectID"), details(log)) == (ORIGIN, {"index": "42"})
    assert (model.get("ParticipantObjectID"), details(model)) == ("chest", {"version": "3", "digest": "77" * 32})
    assert first.get("ParticipantObjectID") == "9a" * 16
    assert details(first) == {"class": "7", "confidence": "0.993124", "decision": "accept"}
    assert details(second)["decision"] == "out of distribution"


@pytest.mark.parametrize(("event", "code", "kind", "scheme", "action"), [
    ("start", "110100", "110120", "DCM", "E"), ("stop", "110100", "110121", "DCM", "E"),
    ("audit.read", "110101", "audit.read", "99APPLIANCE", "R"), ("log.degraded", "110113", "110133", "DCM", "E"),
    ("alarm", "110113", "alarm", "99APPLIANCE", "E"), ("model.install", "110100", "model.install", "99APPLIANCE", "E"),
])  # fmt: skip
def test_acts_have_the_standards_codes_and_else_our_own(event: str, code: str, kind: str, scheme: str, action: str) -> None:
    act = {
        "v": 1,
        "index": 7,
        "time": ANSWERED["time"],
        "event": event,
        "outcome": "done",
        "detail": {"kind": "revoked", "on": 1},
    }
    root = valid(act)
    assert (root[0][0].get("csd-code"), root[0].get("EventActionCode")) == (code, action)
    assert (root[0][1].get("csd-code"), root[0][1].get("codeSystemName")) == (kind, scheme)
    assert details(root[-1]).items() >= {"index": "7", "on": "1"}.items()
    assert ("Alert Description" in details(root[-1])) == (code == "110113")


@pytest.mark.parametrize(("changes", "outcome", "alert"), [
    (BEGINS, "4", "grant_ends"), (BEGINS | {"detail": BEGINS["detail"] | {"on": 0}}, "0", "grant_ends"),
    (DEGRADED, "12", "log.degraded"),
])  # fmt: skip
def test_bad_news_is_no_success_and_an_alarm_is_described_by_its_kind(
    changes: dict[str, Any], outcome: str, alert: str
) -> None:
    root = valid(of(changes))
    assert root[0].get("EventOutcomeIndicator") == outcome
    assert details(root[-1])["Alert Description"] == alert


def test_an_answer_by_thresholds_of_the_sites_own_says_so() -> None:
    _, model, *_ = valid(ANSWERED | OVERRIDDEN).iter("ParticipantObjectIdentification")
    said = details(model)
    assert (said["override.accept_at_least_e6"], said["override.reject_above_e6"]) == ("800000", "-5")


@settings(max_examples=100)
@given(
    missing=st.sets(st.sampled_from(["method", "caller", "model", "input", "output"])),
    rows=st.integers(0, 3),
    name=st.text(max_size=20),
    outcome=st.sampled_from(["answered", "denied", "invalid", "failed", "done", "unavailable"]),
)
def test_any_record_has_a_message_of_the_standards_form(missing: set[str], rows: int, name: str, outcome: str) -> None:
    changes = {
        "outcome": outcome, "caller": CALLER | {"name": name}, "detail": {"reason": name},
        "input": ANSWERED["input"] | {"pseudonyms": ["9a" * 16] * rows},
        "output": {"top": [1] * rows, "confidence_e6": [1] * rows, "decisions": "B" * rows},
    }  # fmt: skip
    root = valid({key: value for key, value in (ANSWERED | changes).items() if key not in missing})
    objects = list(root.iter("ParticipantObjectIdentification"))
    assert len(objects) == 1 + ("model" not in missing) + (rows if "input" not in missing else 0)
    assert details(objects[0])["reason"] == name, "base64 carries what XML cannot"


def test_what_xml_cannot_say_is_replaced_and_what_it_can_is_escaped() -> None:
    root = valid(ANSWERED | {"caller": CALLER | {"name": 'a\x00\x0b\ufffe<b> & "c"\n'}})
    assert root[1].get("UserID") == 'a\ufffd\ufffd\ufffd<b> & "c"\n'
