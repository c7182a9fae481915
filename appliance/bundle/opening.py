"""The order of trust (bundle-format section 7), steps 1 to 5, with no I/O.

Each step returns the only object that can take the next one, so the wrong order cannot be written::

    parse(data) ─▶ Sealed ─ verify(keys) ─▶ Genuine ─ admit(grant, …) ─▶ Admitted ─ decrypt() ─▶ Opened
"""

import hashlib
from dataclasses import dataclass
from datetime import datetime

from appliance.bundle import chunks, container, grant, manifest, signature
from appliance.bundle.enrolment import RecipientKey
from appliance.bundle.grant import Terms
from appliance.bundle.manifest import Manifest, Part
from appliance.bundle.signature import KeyRing
from appliance.errors import CorruptPayload, NotAdmitted


@dataclass(frozen=True, slots=True)
class TrustedKeys:
    """The public keys a site trusts, for one purpose each."""

    exporter: KeyRing
    licensing: KeyRing


@dataclass(frozen=True, slots=True)
class Opened:
    """A bundle, decrypted. ``parts`` are plaintext by role, each in a buffer that may be zeroed after use."""

    manifest: Manifest
    digest: str
    terms: Terms
    parts: dict[str, bytearray]


@dataclass(frozen=True, slots=True)
class Sealed:
    """Step 1 done: a container, nothing in it trusted."""

    envelope: bytes
    body: memoryview

    def verify(self, trusted: TrustedKeys) -> "Genuine":
        """Step 2. Raises UntrustedSignature or MalformedBundle."""
        statement = signature.verify(self.envelope, manifest.PAYLOAD_TYPE, trusted.exporter)
        return Genuine(manifest.decode(statement), manifest.digest(statement), self.body)


@dataclass(frozen=True, slots=True)
class Genuine:
    """Step 2 done: the manifest is the vendor's. The parts have not been looked at."""

    manifest: Manifest
    digest: str
    body: memoryview

    def admit(self, grant_file: bytes, key: RecipientKey, trusted: TrustedKeys, now: datetime) -> "Admitted":
        """Step 3. Raises NotAdmitted, WrongKey, UntrustedSignature or MalformedBundle."""
        given = grant.read(grant_file, trusted.licensing)
        if given.terms.manifest_sha256 != self.digest:
            raise NotAdmitted("The grant is for another bundle.")
        given.terms.require_in_force(now)
        return Admitted(self, given.terms, given.unwrap(key))

    def check_parts(self) -> list[memoryview]:
        """Step 4: the ciphertext of every part. Raises CorruptPayload."""
        if len(self.body) != sum(part.size for part in self.manifest.parts):
            raise CorruptPayload("The file does not end where the manifest says.")
        views, start = [], 0
        for part in self.manifest.parts:
            view = self.body[start : start + part.size]
            if hashlib.sha256(view).hexdigest() != part.sha256:
                raise CorruptPayload("A part of the bundle is not what was signed.")
            views.append(view)
            start += part.size
        return views


@dataclass(frozen=True, slots=True)
class Admitted:
    """Step 3 done: this appliance may open this bundle now."""

    genuine: Genuine
    terms: Terms
    content_key: bytes

    def decrypt(self) -> Opened:
        """Steps 4 and 5. Raises CorruptPayload."""
        made = self.genuine.manifest
        parts = {}
        for i, (part, ciphertext) in enumerate(zip(made.parts, self.genuine.check_parts(), strict=True)):
            parts[part.role] = _decrypt_part(part, i, made.bundle_id, ciphertext, self.content_key)
        return Opened(made, self.genuine.digest, self.terms, parts)


def parse(data: bytes) -> Sealed:
    """Step 1. Raises MalformedBundle."""
    envelope, body = container.split(data)
    return Sealed(envelope, body)


def part_context(bundle_id: str, index: int) -> bytes:
    """What ties a part to its bundle and its place (section 5)."""
    return bytes.fromhex(bundle_id) + index.to_bytes(4, "big")


def _decrypt_part(part: Part, index: int, bundle_id: str, ciphertext: memoryview, key: bytes) -> bytearray:
    if part.size != chunks.encrypted_bytes(part.plain_size):
        raise CorruptPayload("A part's sizes contradict each other.")
    plaintext = chunks.decrypt(key, part_context(bundle_id, index), ciphertext)
    if hashlib.sha256(plaintext).hexdigest() != part.plain_sha256:
        raise CorruptPayload("A part does not decrypt to what was signed.")
    return plaintext
