"""Grants: the content key of one bundle, sealed for one appliance (bundle-format section 6).

HPKE's ``info`` carries every other field of the grant, so a field that was changed makes the key unreadable even for a
licensing key that signed the change.
"""

from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from appliance import canonical
from appliance.bundle import chunks, signature
from appliance.bundle.enrolment import Recipient, RecipientKey
from appliance.canonical import format_time, parse_time
from appliance.errors import MalformedBundle, NotAdmitted, WrongKey
from appliance.fields import Fields

PAYLOAD_TYPE = "application/vnd.appliance.grant.v1+json"
FILE_BYTES_MAX = 1 << 16
SUITE = {"kem": 0x647A, "kdf": 1, "aead": 2}
GRACE_DAYS_MAX = 365

_hpke = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)


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

    def require_in_force(self, now: datetime) -> None:
        """Raises NotAdmitted outside the dates; the grace days count as inside."""
        if now < self.not_before:
            raise NotAdmitted("The grant is not valid yet; check the appliance's clock.")
        if now - timedelta(days=self.grace_days) > self.not_after:  # this way round the last day of 9999 does not overflow
            raise NotAdmitted("The grant has expired, and so have its grace days.")


@dataclass(frozen=True, slots=True)
class Grant:
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
            content_key = _hpke.decrypt(self.sealed, key.private, info=_info(self.terms))
        except (InvalidTag, ValueError):
            raise WrongKey("The grant's key cannot be opened by this appliance.") from None
        if len(content_key) != chunks.KEY_BYTES:
            raise WrongKey("The grant's key is not a content key.")
        return content_key


def issue(terms: Terms, content_key: bytes, recipient: Recipient, signer: Ed25519PrivateKey) -> bytes:
    """The bytes of a grant file."""
    sealed = _hpke.encrypt(content_key, recipient.public, info=_info(terms))
    payload = _header(terms) | {"sealed": signature.encode_base64(sealed)}
    return signature.sign(PAYLOAD_TYPE, canonical.encode(payload), [signer])


def read(data: bytes, licensing: signature.KeyRing) -> Grant:
    """The grant, once its signature has been checked.

    Raises:
        MalformedBundle, UntrustedSignature
    """
    if len(data) > FILE_BYTES_MAX:
        raise MalformedBundle("The file is too long to be a grant.")
    payload = signature.verify(data, PAYLOAD_TYPE, licensing)
    try:
        fields = Fields(canonical.decode(payload))
        suite = fields.table("suite")
        for name, number in SUITE.items():
            suite.integer(name, number, number)
        suite.close()
        grant = Grant(
            Terms(
                manifest_sha256=fields.text("manifest_sha256", pattern=r"[0-9a-f]{64}"),
                model=fields.text("model", pattern=r"[a-z0-9-]{1,64}"),
                version=fields.integer("version", 1, 2**31 - 1),
                site=fields.text("site"),
                recipient=fields.text("recipient", pattern=r"[0-9a-f]{64}"),
                not_before=parse_time(fields.text("not_before")),
                not_after=parse_time(fields.text("not_after")),
                grace_days=fields.integer("grace_days", 0, GRACE_DAYS_MAX),
            ),
            signature.decode_base64(fields.text("sealed", pattern=r"[A-Za-z0-9+/]{1,4000}=*")),
        )
        fields.close()
        if fields.problems:
            raise ValueError(fields.problems[0])
    except (ValueError, OverflowError) as error:
        raise MalformedBundle("The grant is not valid.") from error
    return grant


def _header(terms: Terms) -> dict[str, Any]:
    times = {"not_before": format_time(terms.not_before), "not_after": format_time(terms.not_after)}
    return asdict(terms) | times | {"suite": SUITE}


def _info(terms: Terms) -> bytes:
    return b"appliance grant v1\x00" + canonical.encode(_header(terms))
