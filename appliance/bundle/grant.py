"""Grants: the content key of one bundle, sealed for one appliance (bundle-format section 6).

HPKE's ``info`` carries every other field of the grant, so a field that was changed makes the key unreadable even for a
licensing key that signed the change.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

from cryptography.exceptions import InvalidTag

from appliance import canonical
from appliance.bundle import chunks, policy, signature
from appliance.bundle.enrolment import HPKE, Recipient, RecipientKey
from appliance.bundle.manifest import MODEL_ID, VERSION_MAX
from appliance.bundle.policy import Policy
from appliance.bundle.signature import SigningKey
from appliance.canonical import format_time, parse_time
from appliance.errors import MalformedBundle, NotAdmitted, WrongKey
from appliance.fields import Fields

PAYLOAD_TYPE = "application/vnd.appliance.grant.v1+json"
FILE_BYTES_MAX = 1 << 16
SUITE = {"kem": 0x647A, "kdf": 1, "aead": 2}
GRACE_DAYS_MAX = 365
WORKERS_MAX = 64


@dataclass(frozen=True, slots=True)
class Terms:
    """What is granted, to whom, and for how long. Times are UTC, whole seconds."""

    manifest_sha256: str
    model: str
    version: int
    site: str
    recipient: str
    not_before: datetime
    not_after: datetime
    grace_days: int
    workers_max: int | None = None

    @property
    def grace_ends(self) -> datetime | None:
        """The end of the grace days; None beyond the year 9999, which a grant may reach."""
        try:
            return self.not_after + timedelta(days=self.grace_days)
        except OverflowError:
            return None

    def require_in_force(self, now: datetime) -> None:
        """Raises NotAdmitted outside the dates; the grace days count as inside."""
        if now < self.not_before:
            raise NotAdmitted("The grant is not valid yet; check the appliance's clock.")
        if self.grace_ends is not None and now > self.grace_ends:
            raise NotAdmitted("The grant has expired, and so have its grace days.")


@dataclass(frozen=True, slots=True)
class Grant:
    """``vendor`` is the one whose licensing desk signed it."""

    vendor: str
    terms: Terms
    sealed: bytes

    def unwrap(self, key: RecipientKey) -> bytes:
        """The 32-byte content key.

        Raises:
            WrongKey: the grant is for another appliance, or was not sealed with these terms.
        """
        if self.terms.recipient != key.recipient.digest:
            raise WrongKey("The grant is for another appliance.")
        try:
            content_key = HPKE.decrypt(self.sealed, key.private, info=_info(self.terms))
        except (InvalidTag, ValueError):
            raise WrongKey("The grant's key cannot be opened by this appliance.") from None
        if len(content_key) != chunks.KEY_BYTES:
            raise WrongKey("The grant's key is not a content key.")
        return content_key


def issue(terms: Terms, content_key: bytes, recipient: Recipient, signers: Iterable[SigningKey]) -> bytes:
    """The bytes of a grant file."""
    sealed = HPKE.encrypt(content_key, recipient.public, info=_info(terms))
    payload = _header(terms) | {"sealed": signature.encode_base64(sealed)}
    return signature.sign(PAYLOAD_TYPE, canonical.encode(payload), signers)


def read(data: bytes, policies: Sequence[Policy]) -> Grant:
    """The grant, once its vendor's signature has been checked.

    Raises:
        MalformedBundle, UntrustedSignature, Revoked
    """
    if len(data) > FILE_BYTES_MAX:
        raise MalformedBundle("The file is too long to be a grant.")
    by, payload = policy.verify_grant(policies, signature.parse(data, PAYLOAD_TYPE, "a grant"))
    try:
        fields = Fields(canonical.decode(payload))
        suite = fields.table("suite")
        for name, number in SUITE.items():
            suite.integer(name, number, number)
        suite.close()
        grant = Grant(
            by.vendor,
            Terms(
                manifest_sha256=fields.text("manifest_sha256", pattern=r"[0-9a-f]{64}"),
                model=fields.text("model", pattern=MODEL_ID),
                version=fields.integer("version", 1, VERSION_MAX),
                site=fields.text("site"),
                recipient=fields.text("recipient", pattern=r"[0-9a-f]{64}"),
                not_before=parse_time(fields.text("not_before")),
                not_after=parse_time(fields.text("not_after")),
                grace_days=fields.integer("grace_days", 0, GRACE_DAYS_MAX),
                workers_max=_workers_max(fields.table("limits")) if "limits" in fields else None,
            ),
            signature.decode_base64(fields.text("sealed", pattern=r"[A-Za-z0-9+/]{1,4000}=*")),
        )
        fields.close()
        if grant.terms.not_before > grant.terms.not_after:
            fields.problem("the grant ends before it begins")
        if fields.problems:
            raise MalformedBundle(f"The grant is not valid: {fields.problems[0]}.")
    except (ValueError, OverflowError) as error:
        raise MalformedBundle("The grant is not valid.") from error
    return grant


def _workers_max(limits: Fields) -> int:
    workers = limits.integer("workers_max", 1, WORKERS_MAX)
    limits.close()
    return workers


def _header(terms: Terms) -> dict[str, Any]:
    header = asdict(terms) | {"suite": SUITE}
    header |= {"not_before": format_time(terms.not_before), "not_after": format_time(terms.not_after)}
    workers_max = header.pop("workers_max")
    return header if workers_max is None else header | {"limits": {"workers_max": workers_max}}


def _info(terms: Terms) -> bytes:
    return b"appliance grant v1\x00" + canonical.encode(_header(terms))
