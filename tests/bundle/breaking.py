"""Ways to break one thing in a forged bundle or grant: take it apart, change it, and sign it again or not."""

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from appliance import canonical
from appliance.bundle import chunks, container, grant, manifest, opening, signature

Json = dict[str, Any]
Edit = Callable[[Json], Any]


def envelope(file: bytes) -> Json:
    """The envelope of a bundle or of a grant, as it says."""
    return dict(canonical.decode(container.split(file)[0] if file.startswith(container.MAGIC) else file))


def payload(file: bytes) -> Json:
    """The statement of a bundle, or the payload of a grant, unverified."""
    return dict(canonical.decode(signature.decode_base64(envelope(file)["payload"])))


def with_envelope(bundle: bytes, new: bytes) -> bytes:
    """A bundle's parts behind another envelope."""
    return container.join(new, [bytes(container.split(bundle)[1])])


def resigned(bundle: bytes, signers: Sequence[Ed25519PrivateKey], edit: Edit) -> bytes:
    """A bundle whose statement was changed by somebody who can sign it."""
    statement = payload(bundle)
    edit(statement)
    return with_envelope(bundle, signature.sign(manifest.PAYLOAD_TYPE, canonical.encode(statement), signers))


def regranted(permit: bytes, signer: Ed25519PrivateKey, edit: Edit) -> bytes:
    """A grant whose payload was changed by somebody who can sign it, and who cannot make the sealed key anew."""
    terms = payload(permit)
    edit(terms)
    return signature.sign(grant.PAYLOAD_TYPE, canonical.encode(terms), [signer])


def reenveloped(file: bytes, edit: Edit) -> bytes:
    """A bundle or a grant whose envelope was changed, and spelled canonically again."""
    changed = envelope(file)
    edit(changed)
    data = canonical.encode(changed)
    return with_envelope(file, data) if file.startswith(container.MAGIC) else data


def parts(bundle: bytes) -> list[bytes]:
    """The encrypted parts, cut as the statement says."""
    body, found, start = bytes(container.split(bundle)[1]), [], 0
    for subject in payload(bundle)["subject"]:
        size = subject["annotations"]["size"]
        found.append(body[start : start + size])
        start += size
    return found


def with_parts(bundle: bytes, new: Sequence[bytes]) -> bytes:
    """Other parts behind a bundle's own, unchanged envelope."""
    return container.join(container.split(bundle)[0], list(new))


def with_signed_parts(bundle: bytes, signers: Sequence[Ed25519PrivateKey], new: Sequence[bytes]) -> bytes:
    """Other parts, whose sizes and digests the exporter has signed: what is left is what decryption finds."""

    def edit(statement: Json) -> None:
        for subject, part in zip(statement["subject"], new, strict=True):
            subject["digest"]["sha256"] = hashlib.sha256(part).hexdigest()
            subject["annotations"]["size"] = len(part)

    return with_parts(resigned(bundle, signers, edit), new)


def decrypt(key: bytes, context: bytes, message: bytes | memoryview) -> bytes:
    """What an encrypted part says, whatever its size."""
    full, last = divmod(max(0, len(message) - 56), chunks.CHUNK_BYTES + 16)
    plain = bytearray(max(0, full * chunks.CHUNK_BYTES + last - 16))
    chunks.decrypt_into(key, context, message, memoryview(plain))
    return bytes(plain)


def context(bundle: bytes, index: int) -> bytes:
    return opening.part_context(payload(bundle)["predicate"]["bundle_id"], index)


def flipped(data: bytes, bit: int) -> bytes:
    """The same bytes but for one bit."""
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)
