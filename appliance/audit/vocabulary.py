"""What a record says in others' words: DICOM's audit vocabulary (PS3.16, CID 400), which FHIR's AuditEvent uses too."""

from collections.abc import Iterator
from typing import Any

APPLICATION_ACTIVITY = ("110100", "Application Activity")
AUDIT_LOG_USED = ("110101", "Audit Log Used")
SECURITY_ALERT = ("110113", "Security Alert")
_KINDS = {
    "audit.read": AUDIT_LOG_USED,
    "audit.accept-gap": SECURITY_ALERT,
    "alarm": SECURITY_ALERT,
    "log.degraded": SECURITY_ALERT,
}
_SUCCESS, _MINOR, _SERIOUS, _MAJOR = "0", "4", "8", "12"
_OUTCOMES = {"answered": _SUCCESS, "done": _SUCCESS, "failed": _SERIOUS, "unavailable": _SERIOUS}
_DECISIONS = {"A": "accept", "B": "abstain", "O": "out of distribution"}


def kind(record: dict[str, Any]) -> tuple[str, str]:
    """The code and the name of its event."""
    read = record.get("method", "").endswith("/ReadAudit")
    return AUDIT_LOG_USED if read else _KINDS.get(record["event"], APPLICATION_ACTIVITY)


def outcome(record: dict[str, Any]) -> tuple[str, str]:
    """How it ended: a code, and our own words. Of what is itself bad news it is not whether that could be put on record."""
    match record:
        case {"event": "alarm", "detail": {"kind": kind, "on": 1}}:
            return _MINOR, f"{kind} begins"
        case {"event": "alarm", "detail": {"kind": kind}}:
            return _SUCCESS, f"{kind} ends"
        case {"event": "log.degraded"}:
            return _MAJOR, "the log takes no more records"
    return _OUTCOMES.get(record["outcome"], _MINOR), " ".join(filter(None, (record["outcome"], record.get("error"))))


def alert(record: dict[str, Any]) -> str | None:
    """What a security alert is about, of an alarm its kind; None where the record is of something else."""
    if kind(record) != SECURITY_ALERT:
        return None
    return str(record["detail"]["kind"]) if record["event"] == "alarm" else str(record["event"])


def images(record: dict[str, Any]) -> Iterator[tuple[str, dict[str, str]]]:
    """The pseudonym of each image, and what was answered for it."""
    output = record.get("output")
    for row, pseudonym in enumerate(record.get("input", {}).get("pseudonyms", ())):
        if output is None:
            yield pseudonym, {}
            continue
        yield (
            pseudonym,
            {
                "class": str(output["top"][row]),
                "confidence": f"{output['confidence_e6'][row] / 1e6:.6f}",
                "decision": _DECISIONS[output["decisions"][row]],
            },
        )


def model(record: dict[str, Any]) -> tuple[str, dict[str, str]] | None:
    """The id of its model, and what else is said of that: each threshold too that was not as the vendor has signed it."""
    if (said := record.get("model")) is None:
        return None
    known = {name: str(said[name]) for name in ("version", "digest") if name in said}
    return said["id"], known | {f"override.{name}": str(value) for name, value in said.get("override", {}).items()}
