"""A root of the trust repository before it is signed, as whoever holds a root key has to see it.

    root         version 2, replaces 1; 2 of 3 root keys have to sign
    expires      2029-11-23T12:00:00Z
    root key     9c1f…                          one line a key
    release      88ab…  new
    release      7e05…  gone
    exporter     …
    licensing    …
    require      ed25519
    repository   8a41 …                         what every site compares at first; absent for a first root
    to sign      1b9e 77d0 …

A root key's word is everything: a root that was put in the way of one, and signed unseen, hands all sites over. So what
cannot be shown is refused: keys of other kinds than ours, roles that differ where ours never do, fields that we do not know.
Keys are named as ``keygen`` printed them, made anew from the key itself. The last line stands for all of it: holders compare
that.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from securesystemslib.signer import Key
from tuf.api.metadata import Metadata, Root

from appliance.bundle.policy import ROOT_DESKS, ROOT_FINGERPRINT_GROUPS, decode_desks
from appliance.bundle.signature import key_id
from appliance.canonical import fingerprint, format_time
from appliance.errors import ApplianceError, NotAdmitted

ONLINE = ("targets", "snapshot", "timestamp")
_NOT_OURS = "The root that waits for signatures has something that this tool would not have put there."


@dataclass(frozen=True)
class Proposed:
    """A root to be signed, the root that counts until then, and the fingerprint of the repository's first one."""

    root: Metadata[Root]
    before: Root | None
    repository: str | None

    def __post_init__(self) -> None:
        """Raises NotAdmitted where it has what ``rows`` would not show."""
        try:
            _require_ours(self.root.signed)
            _keys(self.root.signed)
        except (ApplianceError, ValueError, KeyError) as error:
            raise NotAdmitted(_NOT_OURS) from error

    @property
    def fingerprint(self) -> str:
        """Of the bytes that are signed: the same for each holder, whoever has signed before."""
        return fingerprint(self.root.signed_bytes, ROOT_FINGERPRINT_GROUPS)

    def rows(self) -> Iterator[tuple[str, str]]:
        """What a person reads before signing, as names and values; the fingerprint last."""
        root, before = self.root.signed, self.before
        top, replaces = root.roles["root"], f", replaces {before.version}" if before else ""
        yield "root", f"version {root.version}{replaces}; {top.threshold} of {len(top.keyids)} root keys have to sign"
        if before and before.roles["root"].threshold != top.threshold:
            yield "", f"before, {before.roles['root'].threshold} of {len(before.roles['root'].keyids)} had to"
        yield "expires", format_time(root.expires)
        for kind, values in _keys(root).items():
            known = _keys(before)[kind] if before else values
            for value in [*values, *(gone for gone in known if gone not in values)]:
                yield kind, value + ("" if value in known and value in values else "  new" if value in values else "  gone")
        if self.repository is not None:
            yield "repository", self.repository
        yield "to sign", self.fingerprint


def _require_ours(root: Root) -> None:
    """Raises ValueError, KeyError for what no root of ours has."""
    online = [root.roles[role] for role in ONLINE]
    if not root.consistent_snapshot or set(root.unrecognized_fields) != {ROOT_DESKS}:
        raise ValueError("other fields")
    if any(role.threshold != 1 or set(role.keyids) != set(online[0].keyids) for role in online):
        raise ValueError("online roles that differ")


def _keys(root: Root) -> dict[str, list[str]]:
    """The ids of the keys of each kind, and the algorithms required. Raises ValueError, KeyError, MalformedBundle."""
    exporter, licensing = decode_desks(root.unrecognized_fields.get(ROOT_DESKS))
    found = {
        "root key": [_key_id(root.keys[keyid]) for keyid in root.roles["root"].keyids],
        "release": [_key_id(root.keys[keyid]) for keyid in root.roles["timestamp"].keyids],
        "exporter": list(exporter.keys),
        "licensing": list(licensing.keys),
        "require": sorted(exporter.required),
    }
    if any(len(set(values)) != len(values) for values in found.values()):
        raise ValueError("one key under two ids, which could meet a threshold alone")
    return found


def _key_id(key: Key) -> str:
    """A key's id as everywhere else in the product, from the key itself: the id that TUF has for it may be any text."""
    if (key.keytype, key.scheme) != ("ed25519", "ed25519"):
        raise ValueError("another kind of key")
    return key_id(Ed25519PublicKey.from_public_bytes(bytes.fromhex(key.keyval["public"])))
