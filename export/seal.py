"""Seals a bundle: encrypts the parts, states what they are, signs the statement (bundle-format sections 2 to 5).

No file, no clock and no torch, so that a test can forge a bundle in memory. ``appliance/bundle/opening.py`` is the way
back.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from appliance.bundle import chunks, container, signature
from appliance.bundle import manifest as manifests
from appliance.bundle.manifest import ROLES, Manifest, Part
from appliance.bundle.opening import part_context


def seal(manifest: Manifest, plain: Mapping[str, bytes], content_key: bytes, signers: Sequence[Ed25519PrivateKey]) -> bytes:
    """The bytes of a bundle file. ``plain`` is content by role; the manifest's own ``parts`` are filled in here.

    Raises:
        MalformedBundle: the manifest does not obey section 4, or the parts are not those it needs.
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


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
