"""A record in DICOM's words: an audit message of PS3.15, section A.5, as XML on one line.

::

    <AuditMessage>
      <EventIdentification EventActionCode="E" EventDateTime="2026-11-24T03:45:31.123456Z" EventOutcomeIndicator="0">
        <EventID csd-code="110100" codeSystemName="DCM" originalText="Application Activity" />
        <EventTypeCode csd-code="/appliance.v1.Classification/Classify" codeSystemName="99APPLIANCE" originalText="…" />
        <EventOutcomeDescription>answered</EventOutcomeDescription>
      </EventIdentification>
      <ActiveParticipant UserID="DNS:ward-7" UserIsRequestor="true">…
      <ActiveParticipant UserID="appliance-audit/0123456789abcdef" UserIsRequestor="false">…
      <AuditSourceIdentification AuditSourceID="appliance-audit/0123456789abcdef">…
      <ParticipantObjectIdentification …>…      the log and the place in it; the model; each image by its pseudonym

The standard has a message for what starts and stops, for a log that is read, and for alerts; every other record is an
Application Activity with our own type. Codes of our own are of the scheme 99APPLIANCE.
"""

import base64
import re
from collections.abc import Mapping
from typing import Any
from xml.etree import ElementTree as ET

from appliance.audit import vocabulary

_OURS = "99APPLIANCE"
_TYPES = {
    "start": ("110120", "DCM", "Application Start"),
    "stop": ("110121", "DCM", "Application Stop"),
    "log.degraded": ("110133", "DCM", "Audit Recording Stopped"),
}
_APPLICATION = ("110150", "DCM", "Application")
_URI = ("12", "RFC-3881", "URI")
_MODEL, _PSEUDONYM = ("model", _OURS, "Model id"), ("pseudonym", _OURS, "Keyed pseudonym of an image")
_SYSTEM_OBJECT, _SECURITY_RESOURCE, _PROCESSING_ELEMENT, _DATA_SOURCE = "2", "13", "26", "25"
_APPLICATION_SERVER = "4"
_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # XML 1.0 has no way to say these


def message(record: dict[str, Any], origin: str) -> str:
    """The audit message of a record of the log ``origin``."""
    kind, own = vocabulary.kind(record), record.get("method", record["event"])
    outcome, described = vocabulary.outcome(record)
    root = ET.Element("AuditMessage")
    event = _add(
        root,
        "EventIdentification",
        EventActionCode="R" if kind == vocabulary.AUDIT_LOG_USED else "E",
        EventDateTime=record["time"],
        EventOutcomeIndicator=outcome,
    )
    _code(event, "EventID", kind[0], "DCM", kind[1])
    _code(event, "EventTypeCode", *_TYPES.get(own, (own, _OURS, own)))
    _add(event, "EventOutcomeDescription").text = described
    if (caller := record.get("caller")) is not None:
        asking = _add(root, "ActiveParticipant", UserID=caller["name"], UserIsRequestor="true")
        for role in caller["roles"]:
            _code(asking, "RoleIDCode", role, _OURS, role)
    _code(_add(root, "ActiveParticipant", UserID=origin, UserIsRequestor="false"), "RoleIDCode", *_APPLICATION)
    source = _add(root, "AuditSourceIdentification", AuditSourceID=origin)
    _add(source, "AuditSourceTypeCode", **{"csd-code": _APPLICATION_SERVER})
    place = {name: record[name] for name in ("index", "request_id", "client_reference") if name in record}
    alert = {} if (about := vocabulary.alert(record)) is None else {"Alert Description": about}
    said = place | record.get("detail", {}) | alert
    _object(root, _URI, origin, "Security Audit Log", said, role=_SECURITY_RESOURCE)
    if (model := vocabulary.model(record)) is not None:
        _object(root, _MODEL, model[0], model[0], model[1], role=_PROCESSING_ELEMENT)
    for row, (pseudonym, answered) in enumerate(vocabulary.images(record)):
        _object(root, _PSEUDONYM, pseudonym, f"image {row}", answered, role=_DATA_SOURCE)
    return ET.tostring(root, encoding="unicode")


def _object(
    root: ET.Element, kind: tuple[str, str, str], identifier: str, name: str, said: Mapping[str, object], *, role: str
) -> None:
    found = _add(
        root,
        "ParticipantObjectIdentification",
        ParticipantObjectID=identifier,
        ParticipantObjectTypeCode=_SYSTEM_OBJECT,
        ParticipantObjectTypeCodeRole=role,
    )
    _code(found, "ParticipantObjectIDTypeCode", *kind)
    _add(found, "ParticipantObjectName").text = name
    for what, value in said.items():
        _add(found, "ParticipantObjectDetail", type=what, value=base64.b64encode(str(value).encode()).decode())


def _code(parent: ET.Element, tag: str, code: str, scheme: str, meaning: str) -> None:
    _add(parent, tag, **{"csd-code": code, "codeSystemName": scheme, "originalText": meaning})


def _add(parent: ET.Element, tag: str, **attributes: str) -> ET.Element:
    return ET.SubElement(parent, tag, {name: _NO_XML.sub("\ufffd", value) for name, value in attributes.items()})
