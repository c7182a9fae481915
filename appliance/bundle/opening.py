"""The order of trust (bundle-format section 7), steps 1 to 5, with no I/O.

Each step returns the only object that can take the next one, so the wrong order cannot be written::

    parse(data) ─▶ Sealed ─ verify(policies) ─▶ Genuine ─ admit(grant, …) ─▶ Admitted ─ decrypt() ─▶ Opened
"""

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from mmap import mmap
from typing import TypeAlias

from appliance.bundle import chunks, container, grant, manifest, policy, signature
from appliance.bundle.enrolment import RecipientKey
from appliance.bundle.grant import Terms
from appliance.bundle.manifest import Manifest, Part
from appliance.bundle.policy import Policy
from appliance.bundle.signature import Envelope
from appliance.errors import CorruptPayload, NotAdmitted, RolledBack

Buffer: TypeAlias = bytearray | mmap


@dataclass(frozen=True, slots=True)
class Opened:
    """A bundle, decrypted. ``parts`` are plaintext by role, as far as asked for, each in a buffer that may be zeroed after
    use.
    """

    manifest: Manifest
    digest: str
    vendor: str
    terms: Terms
    parts: Mapping[str, Buffer]


@dataclass(frozen=True, slots=True)
class Sealed:
    """Step 1 done: a container, nothing in it trusted."""

    envelope: Envelope
    body: memoryview

    def verify(self, policies: Sequence[Policy]) -> "Genuine":
        """Step 2. Raises UntrustedSignature, Revoked or MalformedBundle."""
        vendor, statement = policy.verify_bundle(policies, self.envelope)
        return Genuine(vendor, manifest.decode(statement), manifest.digest(statement), self.body)


@dataclass(frozen=True, slots=True)
class Genuine:
    """Step 2 done: the manifest is a vendor's. The parts have not been looked at."""

    policy: Policy
    manifest: Manifest
    digest: str
    body: memoryview

    def require_published(self) -> None:
        """Step 3a. Raises Revoked or NotAdmitted."""
        model = self.manifest.model
        self.policy.require_published(self.digest, model.id, model.version)

    def admit(self, grant_file: bytes, key: RecipientKey, now: datetime | None, version_min: int = 1) -> "Admitted":
        """Step 3. ``now`` is None for a model that goes on after a restart, of which no date is asked.

        Raises:
            Revoked, NotAdmitted, RolledBack, WrongKey, UntrustedSignature or MalformedBundle
        """
        self.require_published()
        if self.manifest.model.version < version_min:
            raise RolledBack(
                f"Version {self.manifest.model.version} is older than version {version_min}, the lowest that may serve here."
            )
        given = grant.read(grant_file, [self.policy])
        if given.terms.manifest_sha256 != self.digest:
            raise NotAdmitted("The grant is for another bundle.")
        if now is not None:
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

    def decrypt(
        self,
        allocate: Callable[[int], Buffer] = bytearray,
        wipe: Callable[[Buffer], None] = lambda buffer: None,
        *,
        roles: Collection[str] | None = None,
    ) -> Opened:
        """Steps 4 and 5. ``allocate`` makes the buffers for plaintext, ``wipe`` ends them.

        Of ``roles``, if they are given, step 5 is done for those parts alone. Step 4 is done for all in any case: nothing is
        believed of a bundle that is not whole.

        Raises:
            CorruptPayload
        """
        made, ciphertexts = self.genuine.manifest, self.genuine.check_parts()
        parts: dict[str, Buffer] = {}
        try:
            for i, (part, ciphertext) in enumerate(zip(made.parts, ciphertexts, strict=True)):
                if part.size != chunks.encrypted_bytes(part.plain_size):
                    raise CorruptPayload("A part's sizes contradict each other.")
                if roles is not None and part.role not in roles:
                    continue
                parts[part.role] = allocate(part.plain_size)
                _decrypt_part(part, part_context(made.bundle_id, i), ciphertext, self.content_key, parts[part.role])
        except BaseException:
            for buffer in parts.values():
                wipe(buffer)
            raise
        return Opened(made, self.genuine.digest, self.genuine.policy.vendor, self.terms, parts)


def parse(data: bytes) -> Sealed:
    """Step 1. Raises MalformedBundle."""
    envelope, body = container.split(data)
    return Sealed(signature.parse(envelope, manifest.PAYLOAD_TYPE, "a bundle"), body)


def part_context(bundle_id: str, index: int) -> bytes:
    """What ties a part to its bundle and its place (section 5)."""
    return bytes.fromhex(bundle_id) + index.to_bytes(4, "big")


def _decrypt_part(part: Part, context: bytes, ciphertext: memoryview, key: bytes, plaintext: Buffer) -> None:
    with memoryview(plaintext) as view:
        chunks.decrypt_into(key, context, ciphertext, view)
    if hashlib.sha256(plaintext).hexdigest() != part.plain_sha256:
        raise CorruptPayload("A part does not decrypt to what was signed.")
