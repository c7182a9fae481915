"""The trust policy: what one vendor says of its keys and its bundles (bundle-format section 10).

It reaches a site as the only target of the vendor's trust repository (``appliance/trust.py``); nothing here asks how.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from appliance import canonical
from appliance.bundle import signature
from appliance.bundle.manifest import VERSION_MAX
from appliance.bundle.signature import ALGORITHMS, ED25519, Envelope, KeyRing, VerifyingKey, decode_base64, encode_base64
from appliance.errors import MalformedBundle, NotAdmitted, Revoked, RolledBack, UntrustedSignature
from appliance.fields import Fields

T = TypeVar("T")

FILE_NAME, FILE_BYTES_MAX = "policy.json", 4 << 20
ROOT_FINGERPRINT_GROUPS, ROOT_DESKS = 8, "x-appliance-desks"
KEYS_MAX, BUNDLES_MAX, REVOKED_KEYS_MAX = 64, 10_000, 1_000

_HEX = r"[0-9a-f]{64}"
_NAME = r"[a-z0-9-]{1,64}"


@dataclass(frozen=True, slots=True)
class Listing:
    """A bundle that the vendor has published. ``revoked`` is the reason, where it is."""

    model: str
    version: int
    revoked: str | None = None


@dataclass(frozen=True, slots=True)
class Policy:
    """What a vendor says. ``bundles`` are by model digest, ``revoked_keys`` reasons by key id."""

    vendor: str
    exporter: KeyRing
    licensing: KeyRing
    bundles: Mapping[str, Listing]
    revoked_keys: Mapping[str, str]

    def require_published(self, digest: str, model: str, version: int) -> None:
        """Step 3a. Raises Revoked, or NotAdmitted where the vendor has not published this bundle."""
        listing = self.bundles.get(digest)
        if listing is not None and listing.revoked is not None:
            raise Revoked(f"The vendor has revoked this bundle: {listing.revoked}")
        if listing is None or (listing.model, listing.version) != (model, version):
            raise NotAdmitted("The vendor has not published this bundle; bring the newest trust repository.")

    def require_revoked_still(self, before: "Policy") -> None:
        """Raises RolledBack where it no longer revokes what an earlier policy of the same vendor did."""
        revoked = {digest for digest, listing in self.bundles.items() if listing.revoked is not None}
        was = {digest for digest, listing in before.bundles.items() if listing.revoked is not None}
        if not (was <= revoked and before.revoked_keys.keys() <= self.revoked_keys.keys()):
            raise RolledBack("The trust repository takes back a revocation that this site has seen; revocation is for ever.")

    def require_within(self, exporter: KeyRing, licensing: KeyRing) -> None:
        """Raises UntrustedSignature where it trusts a key, or does without a signature, that the vendor's root does not."""
        for said, allowed in ((self.exporter, exporter), (self.licensing, licensing)):
            if not (said.keys.keys() <= allowed.keys.keys() and said.required >= allowed.required):
                raise UntrustedSignature("The trust policy goes by other keys than the vendor's root.")


def verify_bundle(policies: Sequence[Policy], envelope: Envelope) -> tuple[Policy, bytes]:
    """Step 2: the vendor whose exporter signed a bundle, and the statement. Raises UntrustedSignature, Revoked."""
    return _verify(policies, envelope, lambda policy: policy.exporter)


def verify_grant(policies: Sequence[Policy], envelope: Envelope) -> tuple[Policy, bytes]:
    """Step 3c: the vendor whose licensing desk signed a grant, and the terms. Raises UntrustedSignature, Revoked."""
    return _verify(policies, envelope, lambda policy: policy.licensing)


def _verify(policies: Sequence[Policy], envelope: Envelope, ring: Callable[[Policy], KeyRing]) -> tuple[Policy, bytes]:
    known = [policy for policy in policies if envelope.signers & ring(policy).keys.keys()]
    if len(known) == 1:
        return known[0], envelope.verify(ring(known[0]))
    if known:
        raise UntrustedSignature("The file is signed in the name of two vendors.")
    for policy in policies:
        for key_id in sorted(envelope.signers & policy.revoked_keys.keys()):
            raise Revoked(f"The vendor has revoked the key that signed the file: {policy.revoked_keys[key_id]}")
    raise UntrustedSignature("The file is not signed by a key that is trusted for it here.")


def encode(policy: Policy) -> bytes:
    """The policy file's bytes."""
    return canonical.encode(
        encode_desks(policy.exporter, policy.licensing)
        | {
            "vendor": policy.vendor,
            "bundles": [
                {"digest": digest, "model": listing.model, "version": listing.version, "revoked": listing.revoked}
                for digest, listing in policy.bundles.items()
            ],
            "revoked_keys": [{"key_id": key_id, "reason": reason} for key_id, reason in policy.revoked_keys.items()],
        }
    )


def decode(data: bytes) -> Policy:
    """The policy of a file that the trust repository vouches for.

    Raises:
        MalformedBundle: it does not obey section 10.
    """
    if len(data) > FILE_BYTES_MAX:
        raise MalformedBundle("The trust policy is too long.")
    try:
        fields = Fields(canonical.decode(data))
        exporter, licensing = _desks(fields)
        policy = Policy(
            vendor=fields.text("vendor", pattern=_NAME),
            exporter=exporter,
            licensing=licensing,
            bundles=_bundles(fields),
            revoked_keys=_revoked_keys(fields),
        )
        fields.close()
        named = [*policy.exporter.keys, *policy.licensing.keys, *policy.revoked_keys]
        if len(set(named)) != len(named):
            fields.problem("a key stands in two places")
        if fields.problems:
            raise MalformedBundle(f"The trust policy is not valid: {fields.problems[0]}.")
    except ValueError as error:
        raise MalformedBundle("The trust policy is not valid.") from error
    return policy


def encode_desks(exporter: KeyRing, licensing: KeyRing) -> dict[str, list[str]]:
    """Whose keys count for bundles and grants, as the root of the trust repository says it (section 11)."""
    return {
        "exporter": [encode_base64(signature.encode_key(key)) for key in exporter.keys.values()],
        "licensing": [encode_base64(signature.encode_key(key)) for key in licensing.keys.values()],
        "require": sorted(exporter.required),
    }


def decode_desks(said: Any) -> tuple[KeyRing, KeyRing]:
    """The exporter's keys and the licensing desk's. Raises MalformedBundle."""
    try:
        fields = Fields(said)
        desks = _desks(fields)
        fields.close()
        if fields.problems:
            raise ValueError(fields.problems[0])
    except (ValueError, TypeError, AttributeError) as error:
        raise MalformedBundle("The root of the trust repository does not say whose keys count.") from error
    return desks


def _desks(fields: Fields) -> tuple[KeyRing, KeyRing]:
    required = fields.items("require", str, 1, len(ALGORITHMS))
    if required not in ([ED25519], sorted(ALGORITHMS)):
        fields.problem("require is not ed25519, alone or with ml-dsa-65")
    exporter, licensing = (KeyRing(_keys(fields, desk), frozenset(required)) for desk in ("exporter", "licensing"))
    return exporter, licensing


def _keys(fields: Fields, name: str) -> dict[str, VerifyingKey]:
    keys = [signature.decode_key(decode_base64(text)) for text in fields.items(name, str, 0, KEYS_MAX)]
    return _unique(fields, name, [(signature.key_id(key), key) for key in keys])


def _bundles(fields: Fields) -> dict[str, Listing]:
    fields.require("bundles")
    found = []
    for row in fields.tables("bundles", 0, BUNDLES_MAX):
        row.require("revoked")
        model, version = row.text("model", pattern=_NAME), row.integer("version", 1, VERSION_MAX)
        listing = Listing(model, version, row.text("revoked") if row.present("revoked") else None)
        found.append((row.text("digest", pattern=_HEX), listing))
        row.close()
    return _unique(fields, "bundles", found)


def _revoked_keys(fields: Fields) -> dict[str, str]:
    fields.require("revoked_keys")
    found = []
    for row in fields.tables("revoked_keys", 0, REVOKED_KEYS_MAX):
        found.append((row.text("key_id", pattern=_HEX), row.text("reason")))
        row.close()
    return _unique(fields, "revoked_keys", found)


def _unique(fields: Fields, name: str, pairs: list[tuple[str, T]]) -> dict[str, T]:
    found = dict(pairs)
    if len(found) != len(pairs):
        fields.problem(f"{name} names something twice")
    return found
