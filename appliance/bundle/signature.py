"""DSSE envelopes, signed with Ed25519 and perhaps ML-DSA-65 beside it (bundle-format section 3).

    {"payload":"…","payloadType":"application/vnd.in-toto+json","signatures":[{"keyid":"9c1f…","sig":"…"}]}

The envelope must be byte-exact canonical JSON, so that nothing in a file can be changed without being noticed, not even
its spelling.
"""

import base64
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from appliance import canonical
from appliance.errors import MalformedBundle, UntrustedSignature
from appliance.fields import Fields

VerifyingKey: TypeAlias = Ed25519PublicKey | MLDSA65PublicKey
SIGNATURES_MAX = 8
ED25519, ML_DSA_65 = "ed25519", "ml-dsa-65"
ALGORITHMS: dict[str, type[VerifyingKey]] = {ED25519: Ed25519PublicKey, ML_DSA_65: MLDSA65PublicKey}


class SigningKey(Protocol):
    """Whatever can sign: a private key of ``cryptography``, or one that never leaves its token."""

    def public_key(self) -> VerifyingKey: ...

    def sign(self, data: bytes, /) -> bytes: ...


@dataclass(frozen=True, slots=True)
class KeyRing:
    """The keys that are known for one purpose, by their id, and the algorithms that all have to be there."""

    keys: Mapping[str, VerifyingKey]
    required: frozenset[str] = frozenset({ED25519})


def algorithm(key: VerifyingKey) -> str:
    """The format's word for a key's algorithm."""
    return next(name for name, kind in ALGORITHMS.items() if isinstance(key, kind))


def encode_key(key: VerifyingKey) -> bytes:
    """A key's SPKI."""
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def decode_key(spki: bytes) -> VerifyingKey:
    """The key of an SPKI; raises ValueError for another kind of key, or another spelling of this one."""
    try:
        key = load_der_public_key(spki)
    except UnsupportedAlgorithm as error:
        raise ValueError("not a key of a known kind") from error
    if not isinstance(key, VerifyingKey) or encode_key(key) != spki:
        raise ValueError("not an Ed25519 or ML-DSA-65 key in its canonical form")
    return key


def key_id(key: VerifyingKey) -> str:
    """The hex SHA-256 of the key's SPKI."""
    return hashlib.sha256(encode_key(key)).hexdigest()


def key_ring(keys: Iterable[VerifyingKey], required: Iterable[str] = (ED25519,)) -> KeyRing:
    """Keys by their id."""
    return KeyRing({key_id(key): key for key in keys}, frozenset(required))


@dataclass(frozen=True, slots=True)
class Envelope:
    """A DSSE envelope that has its form. ``payload`` is nobody's word until ``verify`` has handed it back."""

    payload_type: str
    payload: bytes
    signatures: tuple[tuple[str, bytes], ...]

    @property
    def signers(self) -> frozenset[str]:
        """The key ids it names."""
        return frozenset(keyid for keyid, _ in self.signatures)

    def verify(self, trusted: KeyRing) -> bytes:
        """The payload, once trusted keys' signatures over it have been checked, one of each algorithm that is required.

        Raises:
            UntrustedSignature: no trusted key signed it, a trusted key's signature is wrong, or an algorithm is missing.
        """
        message = _pre_authentication_encoding(self.payload_type, self.payload)
        verified = set()
        for keyid, signature in self.signatures:
            key = trusted.keys.get(keyid)
            if key is None:
                continue
            try:
                key.verify(signature, message)
            except InvalidSignature:
                raise UntrustedSignature("A trusted key's signature on the file does not verify.") from None
            verified.add(algorithm(key))
        if not verified:
            raise UntrustedSignature("The file is not signed by a key that is trusted for it here.")
        if missing := sorted(trusted.required - verified):
            raise UntrustedSignature(f"The file lacks the {missing[0]} signature that its vendor's policy requires.")
        return self.payload


def sign(payload_type: str, payload: bytes, keys: Iterable[SigningKey]) -> bytes:
    """The envelope's bytes."""
    message = _pre_authentication_encoding(payload_type, payload)
    return encode(Envelope(payload_type, payload, tuple((key_id(key.public_key()), key.sign(message)) for key in keys)))


def encode(envelope: Envelope) -> bytes:
    """An envelope's bytes."""
    signatures = [{"keyid": keyid, "sig": encode_base64(sig)} for keyid, sig in envelope.signatures]
    return canonical.encode(
        {"payload": encode_base64(envelope.payload), "payloadType": envelope.payload_type, "signatures": signatures}
    )


def parse(data: bytes, payload_type: str, what: str = "an envelope of its kind") -> Envelope:
    """The envelope of a file, which people know as ``what``; nothing in it is verified.

    Raises:
        MalformedBundle: not a canonical DSSE envelope of this payload type.
    """
    try:
        fields = Fields(canonical.decode(data))
        payload = decode_base64(fields.text("payload", pattern=r"[A-Za-z0-9+/]+=*"))
        fields.choice("payloadType", (payload_type,))
        signatures = []
        for entry in fields.tables("signatures", 1, SIGNATURES_MAX):
            keyid = entry.text("keyid", pattern=r"[0-9a-f]{64}")
            signatures.append((keyid, decode_base64(entry.text("sig", pattern=r"[A-Za-z0-9+/]+=*"))))
            entry.close()
        fields.close()
        if fields.problems:
            raise ValueError(fields.problems[0])
    except ValueError as error:
        raise MalformedBundle(f"The file is not {what}, or not in its canonical form.") from error
    return Envelope(payload_type, payload, tuple(signatures))


def encode_base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def decode_base64(text: str) -> bytes:
    """The bytes of the one canonical spelling; raises ValueError for any other."""
    data = base64.b64decode(text, validate=True)
    if base64.b64encode(data).decode() != text:
        raise ValueError("not canonical base64")
    return data


def _pre_authentication_encoding(payload_type: str, payload: bytes) -> bytes:
    """PAE of the DSSE protocol, version 1."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)
