"""DSSE envelopes signed with Ed25519 (bundle-format section 3).

    {"payload":"…","payloadType":"application/vnd.in-toto+json","signatures":[{"keyid":"9c1f…","sig":"…"}]}

The envelope must be byte-exact canonical JSON, so that nothing in a file can be changed without being noticed, not even
its spelling.
"""

import base64
import hashlib
from collections.abc import Iterable, Mapping

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from appliance import canonical
from appliance.errors import MalformedBundle, UntrustedSignature
from appliance.fields import Fields

KeyRing = Mapping[str, Ed25519PublicKey]
SIGNATURES_MAX = 8


def key_id(key: Ed25519PublicKey) -> str:
    """The hex SHA-256 of the key's DER SubjectPublicKeyInfo."""
    return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def key_ring(keys: Iterable[Ed25519PublicKey]) -> KeyRing:
    """Keys by their id."""
    return {key_id(key): key for key in keys}


def sign(payload_type: str, payload: bytes, keys: Iterable[Ed25519PrivateKey]) -> bytes:
    """The envelope's bytes."""
    message = _pre_authentication_encoding(payload_type, payload)
    signatures = [{"keyid": key_id(key.public_key()), "sig": encode_base64(key.sign(message))} for key in keys]
    return canonical.encode({"payload": encode_base64(payload), "payloadType": payload_type, "signatures": signatures})


def verify(envelope: bytes, payload_type: str, trusted: KeyRing) -> bytes:
    """The payload, once a trusted key's signature over it has been checked.

    Raises:
        MalformedBundle: not a canonical DSSE envelope of this payload type.
        UntrustedSignature: no trusted key signed it, or a trusted key's signature is wrong.
    """
    payload, signatures = parse(envelope, payload_type)
    message = _pre_authentication_encoding(payload_type, payload)
    verified = 0
    for keyid, signature in signatures:
        key = trusted.get(keyid)
        if key is None:
            continue
        try:
            key.verify(signature, message)
        except InvalidSignature:
            raise UntrustedSignature("A trusted key's signature on the file does not verify.") from None
        verified += 1
    if not verified:
        raise UntrustedSignature("The file is not signed by a key that this site trusts for it.")
    return payload


def parse(envelope: bytes, payload_type: str) -> tuple[bytes, list[tuple[str, bytes]]]:
    """The payload and the signatures of an envelope, **not verified**: for ``verify``, and for reading a key to verify with.

    Raises:
        MalformedBundle: not a canonical DSSE envelope of this payload type.
    """
    try:
        fields = Fields(canonical.decode(envelope))
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
        raise MalformedBundle("The envelope is not in its canonical form.") from error
    return payload, signatures


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
