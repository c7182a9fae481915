"""A record in FHIR's words: AuditEvent, R4 (hl7.org/fhir/R4/auditevent.html).

What happened is a coded event of DICOM's audit vocabulary with our own event or method as its subtype; who asked is the
agent; the model, and each image by its pseudonym, are entities, with what was answered as their details. Of an act what
is needed to understand it, such as a reason, are details of the log itself.
"""

import re
from collections.abc import Mapping
from typing import Any

from appliance.audit import vocabulary

_DCM = "http://dicom.nema.org/resources/ontology/DCM"
_NO_STRING = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f]|[^ \t\r\n\\S]")  # what a string of FHIR may not hold
_ACTIONS = {
    "call": "E",
    "model.card": "R",
    "model.install": "C",
    "model.remove": "D",
    "epoch.begin": "C",
    "epoch.erase": "D",
    "audit.erase": "D",
}


def event(record: dict[str, Any], origin: str) -> dict[str, Any]:
    """The AuditEvent of a record of the log ``origin``, as JSON has it."""
    code, display = kind = vocabulary.kind(record)
    outcome, described = vocabulary.outcome(record)
    said = {
        "resourceType": "AuditEvent",
        "id": f"{origin.rpartition('/')[2]}-{record['index']}",
        "type": {"system": _DCM, "code": code, "display": display},
        "subtype": [{"code": record.get("method", record["event"])}],
        "action": "R" if kind == vocabulary.AUDIT_LOG_USED else _ACTIONS.get(record["event"], "U"),
        "recorded": record["time"],
        "outcome": outcome,
        "outcomeDesc": described,
        "agent": [_agent(record.get("caller"), origin)],
        "source": {"observer": {"identifier": {"value": origin}}},
    }
    found = [(origin, detail)] if (detail := record.get("detail")) else []
    found += [model] if (model := vocabulary.model(record)) else []
    entities = [_entity(*one) for one in (*found, *vocabulary.images(record))]
    return said | ({"entity": entities} if entities else {})


def _agent(caller: dict[str, Any] | None, origin: str) -> dict[str, Any]:
    if caller is None:  # the appliance itself
        return {"who": {"identifier": {"value": origin}}, "requestor": False}
    roles = [{"text": role} for role in caller["roles"]]
    return {"who": {"identifier": {"value": caller["name"]}}, "requestor": True} | ({"role": roles} if roles else {})


def _entity(identifier: str, said: Mapping[str, object]) -> dict[str, Any]:
    """In FHIR no string is empty, so a detail that is has no place in it."""
    texts = {name: _NO_STRING.sub("\ufffd", str(value)) for name, value in said.items()}
    details = [{"type": name, "valueString": text} for name, text in texts.items() if text]
    return {"what": {"identifier": {"value": identifier}}} | ({"detail": details} if details else {})
