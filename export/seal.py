"""Seals a bundle: encrypts the parts, states what they are, signs the statement (bundle-format sections 2 to 5).

No file, no clock and no torch, so that a test can forge a bundle in memory. ``appliance/bundle/opening.py`` is the way
back.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace

from appliance.bundle import chunks, container, signature
from appliance.bundle import manifest as manifests
from appliance.bundle.manifest import ROLES, Manifest, Part
from appliance.bundle.opening import part_context
from appliance.bundle.signature import SigningKey
from appliance.errors import MalformedBundle


def seal(manifest: Manifest, plain: Mapping[str, bytes], content_key: bytes, signers: Sequence[SigningKey]) -> bytes:
    """The bytes of a bundle file. ``plain`` is content by role; the manifest's own ``parts`` are filled in here.

    Raises:
        MalformedBundle: the manifest does not obey section 4, the parts are not those it needs, or a reader would find the
            envelope too long, which a manifest with many labels can make it.
        ValueError: ``plain`` has a role that the format does not know.
    """
    unknown = set(plain) - set(ROLES)
    if unknown:
        raise ValueError(f"unknown roles: {sorted(unknown)}")
    parts, encrypted = [], []
    for i, role in enumerate(role for role in ROLES if role in plain):
        content = plain[role]
        sealed = chunks.encrypt(content_key, part_context(manifest.bundle_id, i), content)
        encrypted.append(sealed)
        parts.append(Part(role, role, len(sealed), _sha256(sealed), len(content), _sha256(content)))
    statement = manifests.encode(replace(manifest, parts=tuple(parts)))
    manifests.decode(statement)  # whatever a reader would refuse is refused before it is signed
    return container.join(signature.sign(manifests.PAYLOAD_TYPE, statement, signers), encrypted)


def countersign(bundle: bytes, signers: Sequence[SigningKey]) -> bytes:
    """The same bundle with more signatures: its statement, and so its digest and its grants, stay as they are.

    Raises:
        MalformedBundle: it is not a bundle, or would have more signatures or a longer envelope than it may, or two
            signatures of one key.
    """
    envelope, parts = container.split(bundle)
    there = signature.parse(envelope, manifests.PAYLOAD_TYPE)
    more = signature.parse(signature.sign(manifests.PAYLOAD_TYPE, there.payload, signers), manifests.PAYLOAD_TYPE)
    if len(there.signers | more.signers) != len(there.signers) + len(more.signatures):
        raise MalformedBundle("The bundle is signed by this key already.")
    joined = signature.encode(replace(there, signatures=(*there.signatures, *more.signatures)))
    signature.parse(joined, manifests.PAYLOAD_TYPE)
    return container.join(joined, [bytes(parts)])


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
