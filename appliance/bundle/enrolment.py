"""Who an appliance is: its keys, and the request that introduces it to the vendor (bundle-format section 8)."""

import hashlib
from dataclasses import dataclass
from functools import cached_property

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, MLKEM768X25519PrivateKey, MLKEM768X25519PublicKey, Suite
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from appliance import canonical
from appliance.bundle import signature
from appliance.canonical import fingerprint, parse_time
from appliance.errors import MalformedBundle
from appliance.fields import Fields

PAYLOAD_TYPE = "application/vnd.appliance.enrolment.v1+json"
FILE_BYTES_MAX = 1 << 16
HPKE = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
_MLKEM_PUBLIC_BYTES, _MLKEM_SEED_BYTES = 1184, 64


@dataclass(frozen=True)
class Recipient:
    """The public half of an appliance's HPKE key: ML-KEM-768 (1,184 bytes) || X25519 (32 bytes)."""

    public_bytes: bytes

    @cached_property
    def public(self) -> MLKEM768X25519PublicKey:
        return MLKEM768X25519PublicKey(
            MLKEM768PublicKey.from_public_bytes(self.public_bytes[:_MLKEM_PUBLIC_BYTES]),
            X25519PublicKey.from_public_bytes(self.public_bytes[_MLKEM_PUBLIC_BYTES:]),
        )

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.public_bytes).hexdigest()


class RecipientKey:
    """The private half. ``xwing_seed`` is 32 bytes (draft-connolly-cfrg-xwing-kem section 5.2)."""

    def __init__(self, xwing_seed: bytes) -> None:
        expanded = hashlib.shake_256(xwing_seed).digest(_MLKEM_SEED_BYTES + 32)
        mlkem = MLKEM768PrivateKey.from_seed_bytes(expanded[:_MLKEM_SEED_BYTES])
        x25519 = X25519PrivateKey.from_private_bytes(expanded[_MLKEM_SEED_BYTES:])
        self.private = MLKEM768X25519PrivateKey(mlkem, x25519)
        self.recipient = Recipient(mlkem.public_key().public_bytes_raw() + x25519.public_key().public_bytes_raw())

    @classmethod
    def of(cls, seed: bytes) -> "RecipientKey":
        """The key of the appliance that has this seed."""
        return cls(derive(seed, "hpke"))


@dataclass(frozen=True, slots=True)
class Enrolment:
    site: str
    recipient: Recipient
    fingerprint: str


def request(seed: bytes, site: str, created: str) -> bytes:
    """The bytes of an enrolment request, signed by the appliance."""
    signer = Ed25519PrivateKey.from_private_bytes(derive(seed, "enrolment"))
    payload = {
        "site": site,
        "hpke_public_key": signature.encode_base64(RecipientKey.of(seed).recipient.public_bytes),
        "signing_public_key": signature.encode_base64(signer.public_key().public_bytes_raw()),
        "created": created,
    }
    return signature.sign(PAYLOAD_TYPE, canonical.encode(payload), [signer])


def read(data: bytes) -> Enrolment:
    """The enrolment, checked against the key it carries. Only its fingerprint, compared by people, makes it trustworthy.

    Raises:
        MalformedBundle, UntrustedSignature
    """
    if len(data) > FILE_BYTES_MAX:
        raise MalformedBundle("The file is too long to be an enrolment request.")
    envelope = signature.parse(data, PAYLOAD_TYPE, "an enrolment request")
    try:
        fields = Fields(canonical.decode(envelope.payload))
        site = fields.text("site")
        parse_time(fields.text("created"))
        hpke_key = signature.decode_base64(fields.text("hpke_public_key", pattern=r"[A-Za-z0-9+/]{1,4000}=*"))
        signing_key = signature.decode_base64(fields.text("signing_public_key"))
        fields.close()
        if fields.problems or len(hpke_key) != _MLKEM_PUBLIC_BYTES + 32:
            raise ValueError("not an enrolment")
        if not site.isprintable():  # it is shown beside the fingerprint, and must not be able to draw another one
            raise ValueError("a site's name that moves the cursor")
        recipient = Recipient(hpke_key)
        HPKE.encrypt(b"", recipient.public)  # a key that nothing can be sealed for is refused here
        key = Ed25519PublicKey.from_public_bytes(signing_key)
    except ValueError as error:
        raise MalformedBundle("The enrolment request is not valid.") from error
    envelope.verify(signature.key_ring([key]))
    return Enrolment(site, recipient, fingerprint(envelope.payload))


def derive(seed: bytes, label: str) -> bytes:
    """The 32-byte key that an appliance's seed has for one purpose."""
    return HKDFExpand(algorithm=SHA256(), length=32, info=label.encode()).derive(seed)
