"""A record in FHIR's words: AuditEvent, R4 (hl7.org/fhir/R4/auditevent.html).

What happened is a coded event of DICOM's audit vocabulary (PS3.16, CID 400) with our own event or method as its subtype; who
asked is the agent; the model, and each image by its pseudonym, are entities, with what was answered as their details.
"""

from typing import Any

_DCM = "http://dicom.nema.org/resources/ontology/DCM"
_APPLICATION_ACTIVITY = ("110100", "Application Activity")
_AUDIT_LOG_USED = ("110101", "Audit Log Used")
_SECURITY_ALERT = ("110113", "Security Alert")
_TYPES = {
    "audit.read": _AUDIT_LOG_USED,
    "audit.accept-gap": _SECURITY_ALERT,
    "alarm": _SECURITY_ALERT,
    "log.degraded": _SECURITY_ALERT,
}
_ACTIONS = {
    "call": "E",
    "model.install": "C",
    "model.remove": "D",
    "audit.read": "R",
    "epoch.begin": "C",
    "epoch.erase": "D",
    "audit.erase": "D",
}
_SUCCESS, _MINOR, _SERIOUS = "0", "4", "8"
_OUTCOMES = {"answered": _SUCCESS, "done": _SUCCESS, "failed": _SERIOUS, "unavailable": _SERIOUS}
_DECISIONS = {"A": "accept", "B": "abstain", "O": "out of distribution"}


def event(record: dict[str, Any], origin: str) -> dict[str, Any]:
    """The AuditEvent of a record of the log ``origin``, as JSON has it."""
    read = record["event"] == "audit.read" or record.get("method", "").endswith("/ReadAudit")
    code, display = _AUDIT_LOG_USED if read else _TYPES.get(record["event"], _APPLICATION_ACTIVITY)
    said = {
        "resourceType": "AuditEvent",
        "id": f"{origin.rpartition('/')[2]}-{record['index']}",
        "type": {"system": _DCM, "code": code, "display": display},
        "subtype": [{"code": record.get("method", record["event"])}],
        "action": "R" if read else _ACTIONS.get(record["event"], "U"),
        "recorded": record["time"],
        "outcome": _OUTCOMES.get(record["outcome"], _MINOR),
        "outcomeDesc": " ".join(filter(None, (record["outcome"], record.get("error")))),
        "agent": [_agent(record.get("caller"), origin)],
        "source": {"observer": {"identifier": {"value": origin}}},
    }
    entities = [*_model(record.get("model")), *_images(record.get("input", {}), record.get("output"))]
    return said | ({"entity": entities} if entities else {})


def _agent(caller: dict[str, Any] | None, origin: str) -> dict[str, Any]:
    if caller is None:  # the appliance itself
        return {"who": {"identifier": {"value": origin}}, "requestor": False}
    roles = [{"text": role} for role in caller["roles"]]
    return {"who": {"identifier": {"value": caller["name"]}}, "requestor": True} | ({"role": roles} if roles else {})


def _model(model: dict[str, Any] | None) -> list[dict[str, Any]]:
    if model is None:
        return []
    details = [{"type": name, "valueString": str(model[name])} for name in ("version", "digest") if name in model]
    return [{"what": {"identifier": {"value": model["id"]}}} | ({"detail": details} if details else {})]


def _images(given: dict[str, Any], output: dict[str, Any] | None) -> list[dict[str, Any]]:
    found = []
    for row, pseudonym in enumerate(given.get("pseudonyms", ())):
        entity: dict[str, Any] = {"what": {"identifier": {"value": pseudonym}}}
        if output is not None:
            values = {
                "class": str(output["top"][row]),
                "confidence": f"{output['confidence_e6'][row] / 1e6:.6f}",
                "decision": _DECISIONS[output["decisions"][row]],
            }
            entity["detail"] = [{"type": name, "valueString": value} for name, value in values.items()]
        found.append(entity)
    return found
