"""A vendor's trust repository: made, published to, revoked from, and its keys changed (bundle-format sections 10 and 11).

python-tuf has the formats and checks the thresholds; this file says what stands in them. What stands there already is
read by ``export/trust_folder.py``; ``appliance/trust.py`` is the way back.
"""

from collections.abc import Callable, Collection, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from securesystemslib.signer import Key, SecretsHandler, Signature, Signer, SSlibKey
from tuf.api.metadata import Metadata, MetaFile, Root, TargetFile
from tuf.api.serialization.json import JSONSerializer

from appliance.bundle import policy as policies
from appliance.bundle.policy import FILE_NAME, ROOT_DESKS, Listing, Policy, encode_desks
from appliance.bundle.signature import KeyRing, SigningKey, VerifyingKey, algorithm, key_ring
from appliance.errors import ConfigError, NotAdmitted, UntrustedSignature
from export.proposed import ONLINE, Proposed
from export.trust_folder import Folder, Online, desks, replace_file

_NO_ROOT_KEY = "none of the keys is a root key of this repository"
_compact = JSONSerializer(compact=True)


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """How long each role's word is good, in days. A site without a network needs long ones."""

    root: int = 3 * 365
    targets: int = 365
    timestamp: int = 180


@dataclass(frozen=True, slots=True)
class Authority:
    """Whose keys count: those of the root role, how many of them have to sign, the release keys, and of bundles and grants
    the exporter's and the licensing desk's, with the algorithms that these need. What is empty stays.
    """

    root: Sequence[VerifyingKey] = ()
    threshold: int = 0
    release: Sequence[VerifyingKey] = ()
    exporter: Sequence[VerifyingKey] = ()
    licensing: Sequence[VerifyingKey] = ()
    require: Sequence[str] = ()


class Repository:
    """A repository's folder. Every method that changes it takes the keys to sign with, and ``now``, UTC."""

    def __init__(self, folder: Path, lifetimes: Lifetimes | None = None) -> None:
        self._folder, self._lifetimes = Folder(folder), lifetimes or Lifetimes()

    @property
    def policy(self) -> Policy:
        """What it says today, to every site that goes by the newest root.

        Raises:
            ConfigError: there is no repository.
            UntrustedSignature: it is not what its keys have signed, or was not published since they changed.
        """
        root = self._folder.newest_root()
        said = self._folder.said(self._folder.online([root]))
        said.require_within(*desks(root))
        return said

    @property
    def is_said_by_replaced_keys(self) -> bool:
        """Whether its release keys have changed since it was published. A thief of those before could have written it, so
        a person has to look. Raises ConfigError, UntrustedSignature.
        """
        roots = self._folder.roots()
        try:
            self._folder.online(roots[-1:])
        except UntrustedSignature:
            self._folder.online(roots)
            return True
        return False

    @property
    def fresh_until(self) -> datetime:
        """The earliest expiry among the four roles. Raises ConfigError."""
        roots = self._folder.roots()
        online = self._folder.online(roots)
        return min(
            roots[-1].expires,
            online.targets.signed.expires,
            online.snapshot.signed.expires,
            online.timestamp.signed.expires,
        )

    @property
    def root_fingerprint(self) -> str:
        """What is read to a new site over the telephone. Raises ConfigError where there is none yet."""
        return self._folder.root_fingerprint

    @property
    def root_version(self) -> int:
        """The newest root that has all its signatures; 0 where there is none yet."""
        return self._folder.root_version

    def create(
        self,
        vendor: str,
        authority: Authority,
        signers: Sequence[SigningKey],
        now: datetime,
        agree: Callable[[Proposed], None] = lambda root: None,
    ) -> int:
        """Makes a repository with nothing published; returns how many signatures of root keys are still missing.

        Raises:
            ConfigError: there is one in this folder, the threshold cannot be met, or no release key is among the signers.
            MalformedBundle: the policy would not obey section 10.
        """
        if self._folder.metadata.exists():
            raise ConfigError("there is a trust repository in this folder")
        root = _changed(Root(consistent_snapshot=True), authority, now + timedelta(days=self._lifetimes.root))
        root.version = 1
        policy = Policy(vendor, *desks(root), {}, {})
        self._write(policy, Online(), _among(signers, root, "targets"), now)
        return self._place_root(Metadata(root), signers, agree)

    def publish(self, edit: Callable[[Policy], Policy], signers: Sequence[SigningKey], now: datetime) -> Policy:
        """Says something new, or the same for longer; of keys always what the root says, but for those that are revoked.

        Raises:
            ConfigError: no release key is among the signers, or there is no root yet that has its signatures.
            UntrustedSignature: what is there is not what its keys have signed.
            MalformedBundle: the policy would not obey section 10.
        """
        roots = self._folder.roots()
        root, online = roots[-1], self._folder.online(roots)
        said = self._folder.said(online)
        exporter, licensing = (_without(ring, said.revoked_keys) for ring in desks(root))
        policy = edit(replace(said, exporter=exporter, licensing=licensing))
        self._write(policy, online, _among(signers, root, "targets"), now)
        return policy

    def rotate(
        self,
        authority: Authority,
        signers: Sequence[SigningKey],
        now: datetime,
        agree: Callable[[Proposed], None] = lambda root: None,
    ) -> int:
        """Changes whose keys count; returns how many signatures of old and new root keys are still missing.

        A repository whose keys have changed is to be published anew. Until the new root has its signatures the old one
        counts, and is published under.

        Raises:
            ConfigError: a root is waiting for signatures already, the threshold cannot be met, or no signer counts.
            UntrustedSignature: the root that is there is not what its keys have signed.
        """
        if self._folder.pending.exists():
            raise ConfigError("a root is waiting for its signatures already: python -m export trust sign")
        before = self._folder.newest_root()
        changed = _changed(before, authority, now + timedelta(days=self._lifetimes.root))
        if not _among(signers, changed, "root", before):
            raise ConfigError(_NO_ROOT_KEY)
        return self._place_root(Metadata(changed), signers, agree)

    def sign(self, signers: Sequence[SigningKey], agree: Callable[[Proposed], None] = lambda root: None) -> int:
        """Adds signatures to the root that waits for them; returns how many are still missing.

        Whoever can write the folder can have put that root there: ``agree`` is shown it, and raises where it is not to be.

        Raises:
            ConfigError: no root is waiting, or no signer counts.
            NotAdmitted: it has what cannot be shown, or is not the next one.
            UntrustedSignature: the root that is there is not what its keys have signed.
        """
        root = self._folder.pending_root()
        if root.signed.version != self.root_version + 1:
            raise NotAdmitted("The root that waits for signatures is not the next one of this repository.")
        if not _among(signers, root.signed, "root", self._folder.newest_root() if root.signed.version > 1 else None):
            raise ConfigError(_NO_ROOT_KEY)
        return self._place_root(root, signers, agree)

    # -----------------------------------------------------------------------------------------------------------------

    def _place_root(
        self, root: Metadata[Root], signers: Sequence[SigningKey], agree: Callable[[Proposed], None] | None = None
    ) -> int:
        """Signs a root with those signers that count for it, and puts it in place once they are enough."""
        before = None if root.signed.version == 1 else self._folder.newest_root()
        if agree is not None:
            agree(Proposed(root, before, self.root_fingerprint if before else None))
        for signer in _among(signers, root.signed, "root", before):
            root.sign(_TufSigner(signer), append=True)
        result = root.signed.get_root_verification_result(before, root.signed_bytes, root.signatures)
        place = self._folder.metadata / f"{root.signed.version}.root.json" if result.verified else self._folder.pending
        replace_file(place, root.to_bytes(_compact))
        if result.verified:
            self._folder.pending.unlink(missing_ok=True)
        return max(result.first.missing, result.second.missing)

    def _write(self, policy: Policy, online: Online, signers: Sequence[SigningKey], now: datetime) -> None:
        """Writes a policy and all that vouches for it, the timestamp last; and takes away what nobody names any more."""
        if not signers:
            raise ConfigError("none of the keys is a release key of this repository")
        said = policies.encode(policy)
        policies.decode(said)  # whatever a site would refuse is refused before it is signed
        target = TargetFile.from_data(FILE_NAME, said, ["sha256"])
        targets, snapshot, timestamp = (online.targets.signed, online.snapshot.signed, online.timestamp.signed)
        place = self._folder
        targets.targets = {FILE_NAME: target}
        files = {place.targets / f"{target.hashes['sha256']}.{FILE_NAME}": said}
        made = self._sign(online.targets, self._lifetimes.targets, signers, now)
        files[place.metadata / f"{targets.version}.targets.json"] = made
        snapshot.meta = {"targets.json": MetaFile.from_data(targets.version, made, ["sha256"])}
        made = self._sign(online.snapshot, self._lifetimes.timestamp, signers, now)
        files[place.metadata / f"{snapshot.version}.snapshot.json"] = made
        timestamp.snapshot_meta = MetaFile.from_data(snapshot.version, made, ["sha256"])
        files[place.metadata / "timestamp.json"] = self._sign(online.timestamp, self._lifetimes.timestamp, signers, now)
        place.write(files)

    def _sign(self, role: Metadata[Any], days: int, signers: Sequence[SigningKey], now: datetime) -> bytes:
        role.signed.version += bool(role.signatures)  # a new one has the first version, and no signature yet
        role.signed.expires = (now + timedelta(days=days)).replace(microsecond=0)
        role.signatures.clear()
        for signer in signers:
            role.sign(_TufSigner(signer), append=True)
        return role.to_bytes(_compact)


def with_bundle(policy: Policy, digest: str, model: str, version: int) -> Policy:
    """The policy that also publishes a bundle. Raises NotAdmitted where another bundle has this model and version."""
    for listed, listing in policy.bundles.items():
        if (listing.model, listing.version) == (model, version) and listed != digest and listing.revoked is None:
            raise NotAdmitted(f"Another bundle of {model} version {version} is published: revoke it, or take a new version.")
    if digest in policy.bundles:
        raise NotAdmitted("This bundle is published already, or has been revoked.")
    return replace(policy, bundles={**policy.bundles, digest: Listing(model, version)})


def without_bundle(policy: Policy, digest: str, reason: str) -> Policy:
    """The policy that revokes a bundle, for good. Raises ConfigError where it was never published."""
    if digest not in policy.bundles:
        raise ConfigError("there is no such bundle in this repository")
    return replace(policy, bundles={**policy.bundles, digest: replace(policy.bundles[digest], revoked=reason)})


def without_key(policy: Policy, key_id: str, reason: str) -> Policy:
    """The policy that revokes a signing key, and with it all that it alone has signed.

    Raises ConfigError where it is not known.
    """
    if key_id not in {**policy.exporter.keys, **policy.licensing.keys}:
        raise ConfigError("there is no such key in this repository")
    exporter, licensing = (_without(ring, {key_id}) for ring in (policy.exporter, policy.licensing))
    revoked = {**policy.revoked_keys, key_id: reason}
    return replace(policy, exporter=exporter, licensing=licensing, revoked_keys=revoked)


def _changed(before: Root, authority: Authority, expires: datetime) -> Root:
    """The next root. Raises ConfigError where nobody could meet its threshold."""
    root = deepcopy(before)
    root.version, root.expires = before.version + 1, expires.replace(microsecond=0)
    for role, keys in (("root", authority.root), *((role, authority.release) for role in ONLINE)):
        if keys:
            for keyid in list(root.roles[role].keyids):
                root.revoke_key(keyid, role)
            for key in keys:
                root.add_key(_tuf_key(key), role)
    top = root.roles["root"]
    top.threshold = authority.threshold or top.threshold
    if not 1 <= top.threshold <= len(top.keyids):
        raise ConfigError(f"{len(top.keyids)} root keys cannot give {top.threshold} signatures")
    known = desks(before) if ROOT_DESKS in before.unrecognized_fields else (key_ring([]), key_ring([]))
    exporter, licensing = (
        KeyRing(key_ring(keys).keys or ring.keys, frozenset(authority.require) or ring.required)
        for ring, keys in zip(known, (authority.exporter, authority.licensing), strict=True)
    )
    for desk, ring in (("exporter", exporter), ("licensing", licensing)):
        for missing in sorted(ring.required - {algorithm(key) for key in ring.keys.values()}):
            raise ConfigError(f"there is no {desk} key of {missing}")
    root.unrecognized_fields = {**before.unrecognized_fields, ROOT_DESKS: encode_desks(exporter, licensing)}
    return root


def _among(signers: Sequence[SigningKey], root: Root, role: str, before: Root | None = None) -> list[SigningKey]:
    """The signers whose keys count for a role, now or before."""
    counting = {keyid for known in (root, before) if known for keyid in known.roles[role].keyids}
    return [signer for signer in signers if _tuf_key(signer.public_key()).keyid in counting]


def _tuf_key(key: VerifyingKey) -> SSlibKey:
    """Raises ConfigError for a key that python-tuf cannot verify with."""
    if not isinstance(key, Ed25519PublicKey):
        raise ConfigError("the release and root roles sign with Ed25519 alone")
    return SSlibKey.from_crypto(key)


class _TufSigner(Signer):
    """One of our signing keys, as python-tuf wants to have it."""

    def __init__(self, key: SigningKey) -> None:
        self._key, self._public = key, _tuf_key(key.public_key())

    @property
    def public_key(self) -> Key:
        return self._public

    def sign(self, payload: bytes) -> Signature:
        return Signature(self._public.keyid, self._key.sign(payload).hex())

    @classmethod
    def from_priv_key_uri(cls, priv_key_uri: str, public_key: Key, secrets_handler: SecretsHandler | None = None) -> Signer:
        """Part of python-tuf's interface, for signers it finds by a URI; it is given ours."""
        raise TypeError("this signer is made from a key")


def _without(ring: KeyRing, revoked: Collection[str]) -> KeyRing:
    return replace(ring, keys={key_id: key for key_id, key in ring.keys.items() if key_id not in revoked})
