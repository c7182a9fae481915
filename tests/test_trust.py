"""A vendor's trust repository on a medium that nobody trusts: every attack that TUF names, against a real one.

The names are those of TUF's specification, section 1.5.2. ``Vendor`` is the vendor's desk, ``Hospital`` what a site does
with a medium; between the two, the test is who holds it.
"""

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey
from securesystemslib.signer import SSlibKey
from tuf.api.metadata import DelegatedRole, Delegations, Metadata, Root

from appliance import trust
from appliance.bundle import signature
from appliance.bundle.policy import Listing
from appliance.bundle.signature import ED25519, ML_DSA_65
from appliance.errors import (
    BundleError,
    ConfigError,
    CorruptPayload,
    MalformedBundle,
    NotAdmitted,
    RolledBack,
    UntrustedSignature,
)
from appliance.state import VendorState
from export.trust import Authority, Lifetimes, Repository
from export.trust_folder import Online
from tests.bundle.breaking import flipped
from tests.forge import Forge

NOW = datetime.now(UTC).replace(microsecond=0)
DAY = timedelta(days=1)
Medium = dict[str, bytes]


class Vendor:
    """Three root keys of which two have to sign, and one release key."""

    def __init__(self, folder: Path, now: datetime = NOW) -> None:
        self.forge, self.folder = Forge(), folder
        self.roots = [Ed25519PrivateKey.generate() for _ in range(3)]
        self.release = self.forge.release
        self.repository = Repository(folder)
        authority = Authority(
            [key.public_key() for key in self.roots], 2,
            *([key.public_key()] for key in (self.release, self.forge.exporter, self.forge.licensing)), [ED25519],
        )  # fmt: skip
        assert self.repository.create("forge", authority, [*self.roots[:2], self.release], now) == 0

    @property
    def release_id(self) -> str:
        return SSlibKey.from_crypto(self.release.public_key()).keyid

    @property
    def medium(self) -> Medium:
        return trust.read_medium(self.folder)

    def publish(self, digest: str = "ab" * 32, version: int = 1, now: datetime = NOW) -> Medium:
        listing = Listing("chest", version)
        self.repository.publish(lambda said: replace(said, bundles={**said.bundles, digest: listing}), [self.release], now)
        return self.medium


class Hospital:
    """A folder to work in, and what was remembered last."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self.known: VendorState | None = None

    def take(self, medium: Medium) -> trust.Refreshed:
        try:
            new = trust.refresh(self.folder, medium, self.known)
        finally:
            assert list(self.folder.iterdir()) == [], "nothing is left behind"
        self.known = new.vendor
        return new


@pytest.fixture
def vendor(tmp_path: Path) -> Vendor:
    return Vendor(tmp_path / "vendor")


@pytest.fixture
def hospital(tmp_path: Path) -> Hospital:
    return Hospital(tmp_path / "hospital")


def test_what_the_vendor_says_is_what_the_hospital_hears(vendor: Vendor, hospital: Hospital) -> None:
    new = hospital.take(vendor.publish())
    assert new.policy == vendor.repository.policy
    assert new.policy.bundles == {"ab" * 32: Listing("chest", 1)}
    assert (new.vendor.root, new.vendor.targets, new.vendor.snapshot, new.vendor.timestamp) == (1, 2, 2, 2)
    assert new.vendor.expires == vendor.repository.fresh_until == NOW + 180 * DAY


def test_the_same_repository_again_and_a_newer_one_are_taken(vendor: Vendor, hospital: Hospital) -> None:
    first = hospital.take(vendor.medium)
    assert hospital.take(vendor.medium).vendor == first.vendor
    assert hospital.take(vendor.publish()).vendor.timestamp == 2
    for version in range(2, 6):
        assert len(hospital.take(vendor.publish(f"{version:064x}", version)).policy.bundles) == version


def test_repository_is_read_from_a_directory_as_it_lies_there(vendor: Vendor, tmp_path: Path) -> None:
    assert set(vendor.medium) == {str(path.relative_to(vendor.folder)) for path in vendor.folder.rglob("*.json")}
    with pytest.raises(MalformedBundle, match="no trust repository"):
        trust.read_medium(tmp_path)


# --- attacks --------------------------------------------------------------------------------------------------------


def test_rollback_attack_to_an_older_repository_is_refused(vendor: Vendor, hospital: Hospital) -> None:
    old, new = vendor.medium, vendor.publish()
    hospital.take(new)
    with pytest.raises(RolledBack):
        hospital.take(old)
    assert hospital.take(new).vendor.timestamp == 2


def test_freeze_attack_ends_where_the_timestamp_expires(tmp_path: Path, hospital: Hospital) -> None:
    """An attacker who holds updates back can replay a genuine repository, but not for longer than it is fresh."""
    stale = Vendor(tmp_path / "stale", NOW - 181 * DAY)
    with pytest.raises(NotAdmitted, match="expired"):
        hospital.take(stale.medium)
    assert hospital.take(stale.publish(now=NOW)).vendor.expires == NOW + 180 * DAY


def test_each_role_expires_on_its_own(tmp_path: Path) -> None:
    for days in (Lifetimes(root=10), Lifetimes(targets=10), Lifetimes(timestamp=10)):
        made = Vendor(tmp_path / repr(days))
        made.repository._lifetimes = days
        made.repository.rotate(Authority(), made.roots, NOW)
        made.publish()
        assert Hospital(tmp_path / f"hospital {days}").take(made.medium).vendor.expires == NOW + 10 * DAY
        made = Vendor(tmp_path / f"old {days}")
        made.repository._lifetimes = days
        made.repository.rotate(Authority(), made.roots, NOW - 11 * DAY)
        made.publish(now=NOW - 11 * DAY)
        with pytest.raises(NotAdmitted, match="expired"):
            Hospital(tmp_path / f"old hospital {days}").take(made.medium)


@pytest.mark.parametrize("role", ["snapshot", "targets"])
def test_mix_and_match_attack_is_refused(vendor: Vendor, hospital: Hospital, role: str) -> None:
    """A role of the release before in the place of the newest one's: both are genuine, and were never said together."""
    old, new = vendor.publish(), vendor.publish("cd" * 32, 2)
    with pytest.raises(CorruptPayload):
        hospital.take(new | {f"metadata/3.{role}.json": old[f"metadata/2.{role}.json"]})
    assert hospital.take(new).vendor.targets == 3


def test_endless_data_is_refused_after_what_the_role_may_have(vendor: Vendor, hospital: Hospital) -> None:
    medium = vendor.medium
    for name in medium:
        if name == trust.FIRST_ROOT:
            continue
        with pytest.raises((MalformedBundle, CorruptPayload)):
            hospital.take(medium | {name: medium[name] + b" " * 6_000_000})
    assert hospital.take(medium)


def test_endless_files_on_a_medium_are_refused_before_they_are_read(vendor: Vendor) -> None:
    (vendor.folder / "metadata" / "timestamp.json").write_bytes(bytes(trust.FILE_BYTES_MAX + 1))
    with pytest.raises(MalformedBundle, match="too long"):
        trust.read_medium(vendor.folder)


def test_what_is_no_file_on_a_medium_is_refused(vendor: Vendor) -> None:
    """A pipe would be waited for, for ever."""
    os.mkfifo(vendor.folder / "metadata" / "9.targets.json")
    with pytest.raises(MalformedBundle):
        trust.read_medium(vendor.folder)


def test_too_many_files_are_refused(vendor: Vendor) -> None:
    for number in range(trust.FILES_MAX):
        (vendor.folder / "targets" / f"{number}.json").write_bytes(b"")
    with pytest.raises(MalformedBundle, match="too many"):
        trust.read_medium(vendor.folder)


def test_missing_file_is_one_sentence(vendor: Vendor, hospital: Hospital) -> None:
    medium = vendor.medium
    for name in medium:
        with pytest.raises(MalformedBundle):
            hospital.take({other: data for other, data in medium.items() if other != name})


def test_wrong_software_attack_changes_the_policy_and_is_refused(vendor: Vendor, hospital: Hospital) -> None:
    medium = vendor.publish()
    (name,) = [name for name in medium if name.startswith("targets/")]
    with pytest.raises(CorruptPayload):
        hospital.take(medium | {name: medium[name].replace(b"chest", b"skins")})


def test_strangers_signature_is_not_enough_for_any_role(vendor: Vendor, hospital: Hospital, tmp_path: Path) -> None:
    """A whole repository of a stranger's, behind the vendor's root."""
    stranger = Vendor(tmp_path / "stranger")
    mixed = stranger.medium | {trust.FIRST_ROOT: vendor.medium[trust.FIRST_ROOT]}
    with pytest.raises(UntrustedSignature):
        hospital.take(mixed)
    with pytest.raises(UntrustedSignature):
        hospital.take(
            vendor.medium
            | {"metadata/2.root.json": stranger.medium[trust.FIRST_ROOT].replace(b'"version":1', b'"version":2')}
        )


def test_key_compromise_below_the_threshold_changes_no_root(vendor: Vendor, hospital: Hospital) -> None:
    """One of three root keys is stolen: what its thief signs stays pending, and is refused where it is put in place."""
    hospital.take(vendor.medium)
    thief = Ed25519PrivateKey.generate()
    assert vendor.repository.rotate(Authority([thief.public_key()], 1), [vendor.roots[0], thief], NOW) > 0
    assert (vendor.folder / "root.pending").exists()
    assert "metadata/2.root.json" not in vendor.medium
    forced = vendor.medium | {"metadata/2.root.json": (vendor.folder / "root.pending").read_bytes()}
    with pytest.raises(UntrustedSignature):
        hospital.take(forced)
    assert hospital.take(vendor.medium).vendor.root == 1


def test_a_stolen_release_key_names_no_other_exporter(vendor: Vendor, hospital: Hospital) -> None:
    """Nor another licensing desk, nor does it do with fewer signatures: those are the root's word."""
    hospital.take(vendor.medium)
    thief = Ed25519PrivateKey.generate()
    ring = signature.key_ring([thief.public_key()])
    said, written = vendor.repository.policy, vendor.repository._write
    for changed in (
        replace(said, exporter=ring),
        replace(said, licensing=ring),
        replace(said, exporter=replace(said.exporter, keys={**said.exporter.keys, **ring.keys})),
    ):
        written(changed, vendor.repository._folder.online(), [vendor.release], NOW)
        with pytest.raises(UntrustedSignature, match="other keys than the vendor's root"):
            hospital.take(vendor.medium)
    fewer = replace(said, exporter=replace(said.exporter, keys={}), licensing=replace(said.licensing, keys={}))
    written(fewer, vendor.repository._folder.online(), [vendor.release], NOW)
    assert hospital.take(vendor.medium).policy.exporter.keys == {}, "to take keys away is its to do"


def test_a_stolen_release_key_does_with_no_signature_less_than_the_root(tmp_path: Path, hospital: Hospital) -> None:
    vendor = Vendor(tmp_path / "vendor")
    quantum = MLDSA65PrivateKey.generate().public_key()
    exporter, licensing = (
        [key.public_key(), quantum if i == 0 else MLDSA65PrivateKey.generate().public_key()]
        for i, key in enumerate((vendor.forge.exporter, vendor.forge.licensing))
    )
    both = Authority(exporter=exporter, licensing=licensing, require=[ED25519, ML_DSA_65])
    assert vendor.repository.rotate(both, vendor.roots, NOW) == 0
    assert hospital.take(vendor.publish()).policy.exporter.required == {ED25519, ML_DSA_65}
    said = vendor.repository.policy
    rings = {desk: replace(getattr(said, desk), required=frozenset([ED25519])) for desk in ("exporter", "licensing")}
    vendor.repository._write(replace(said, **rings), vendor.repository._folder.online(), [vendor.release], NOW)  # type: ignore[arg-type]
    with pytest.raises(UntrustedSignature, match="other keys"):
        hospital.take(vendor.medium)


# --- keys that change -----------------------------------------------------------------------------------------------


def test_root_keys_rotate_with_old_and_new_signatures(vendor: Vendor, hospital: Hospital) -> None:
    hospital.take(vendor.medium)
    fresh = [Ed25519PrivateKey.generate() for _ in range(2)]
    authority = Authority([key.public_key() for key in fresh], 2)
    assert vendor.repository.rotate(authority, vendor.roots[1:], NOW) == 2  # the new ones have yet to sign
    assert vendor.repository.sign([fresh[0]]) == 1
    assert vendor.repository.sign([fresh[1]]) == 0
    assert hospital.take(vendor.publish()).vendor.root == 2
    with pytest.raises(ConfigError, match="none of the keys is a root key"):
        vendor.repository.rotate(Authority(), vendor.roots, NOW)


def test_root_keys_that_were_rotated_away_fork_no_other_root(vendor: Vendor, hospital: Hospital, tmp_path: Path) -> None:
    """Their thieves can sign another root after the first one; a site that has seen the vendor's does not go by it."""
    shutil.copytree(vendor.folder, tmp_path / "fork")
    fresh = [Ed25519PrivateKey.generate() for _ in range(2)]
    authority = Authority([key.public_key() for key in fresh], 2)
    assert vendor.repository.rotate(authority, [*vendor.roots, *fresh], NOW) == 0
    hospital.take(vendor.publish())
    fork, thief = Repository(tmp_path / "fork"), Ed25519PrivateKey.generate()
    for _ in range(2):
        authority = Authority([thief.public_key()], 1, [thief.public_key()])
        assert fork.rotate(authority, [*vendor.roots, thief], NOW) == 0
    fork.publish(lambda said: said, [thief], NOW)
    with pytest.raises(UntrustedSignature, match="another root"):
        hospital.take(trust.read_medium(tmp_path / "fork"))
    assert Hospital(tmp_path / "new here").take(trust.read_medium(tmp_path / "fork")).vendor.root == 3


def test_release_key_that_is_added_lets_nothing_older_in(vendor: Vendor, hospital: Hospital) -> None:
    """Versions begin anew only where none of the keys that signed what was seen counts any more."""
    old, new = vendor.medium, vendor.publish()
    hospital.take(new)
    keys = [vendor.release, Ed25519PrivateKey.generate()]
    assert vendor.repository.rotate(Authority(release=[key.public_key() for key in keys]), vendor.roots, NOW) == 0
    hospital.take(vendor.medium)
    with pytest.raises(RolledBack):
        hospital.take(old | {"metadata/2.root.json": vendor.medium["metadata/2.root.json"]})
    vendor.release = keys[1]
    assert vendor.repository.rotate(Authority(release=[keys[1].public_key()]), vendor.roots, NOW) == 0
    assert hospital.take(vendor.publish("cd" * 32)).vendor.root == 3


def test_a_site_that_slept_through_many_rotations_catches_up(vendor: Vendor, hospital: Hospital) -> None:
    """Each root is signed by the one before; expired ones in between do no harm (TUF 5.3)."""
    hospital.take(vendor.medium)
    keys = vendor.roots
    for _ in range(6):
        fresh = [Ed25519PrivateKey.generate() for _ in range(2)]
        authority = Authority([key.public_key() for key in fresh], 2)
        assert vendor.repository.rotate(authority, [*keys, *fresh], NOW - 2000 * DAY) == 0
        keys = fresh
    assert vendor.repository.rotate(Authority(), keys, NOW) == 0
    assert hospital.take(vendor.publish()).vendor.root == 8


def test_release_key_that_was_rotated_away_signs_nothing_any_more(vendor: Vendor, hospital: Hospital) -> None:
    old, before = vendor.release, vendor.medium
    hospital.take(before)
    vendor.release = Ed25519PrivateKey.generate()
    assert vendor.repository.rotate(Authority(release=[vendor.release.public_key()]), vendor.roots, NOW) == 0
    with pytest.raises(UntrustedSignature):
        hospital.take(vendor.medium)  # not yet published by the new key
    assert hospital.take(vendor.publish()).vendor.root == 2
    with pytest.raises(BundleError):
        hospital.take(before | {"metadata/2.root.json": vendor.medium["metadata/2.root.json"]})
    vendor.release = old
    with pytest.raises(ConfigError, match="release key"):
        vendor.publish("cd" * 32)


def test_fast_forward_attack_is_recovered_from_with_new_keys(vendor: Vendor, hospital: Hospital, tmp_path: Path) -> None:
    """A thief of the release key drives versions up to the end; new keys begin below that, and are believed (TUF 5.3.11)."""
    hospital.take(vendor.medium)
    thief = tmp_path / "thief"
    shutil.copytree(vendor.folder, thief)
    stolen = Repository(thief)
    online = stolen._folder.online()
    for role in (online.targets, online.snapshot, online.timestamp):
        role.signed.version = 2**31
    stolen._write(vendor.repository.policy, online, [vendor.release], NOW)
    assert hospital.take(trust.read_medium(thief)).vendor.timestamp == 2**31 + 1
    with pytest.raises(RolledBack):
        hospital.take(vendor.publish())
    vendor.release = Ed25519PrivateKey.generate()
    assert vendor.repository.rotate(Authority(release=[vendor.release.public_key()]), vendor.roots, NOW) == 0
    recovered = hospital.take(vendor.publish("cd" * 32))
    assert recovered.vendor.timestamp < 100
    assert "cd" * 32 in recovered.policy.bundles


def test_a_root_that_expired_is_renewed_by_a_newer_one(tmp_path: Path, hospital: Hospital) -> None:
    old = Vendor(tmp_path / "vendor", NOW - 3 * 365 * DAY - DAY)
    old.publish()
    with pytest.raises(NotAdmitted, match="expired"):
        hospital.take(old.medium)
    assert old.repository.rotate(Authority(), old.roots, NOW) == 0
    assert hospital.take(old.publish("cd" * 32)).vendor.root == 2


# --- what TUF allows and we do not ----------------------------------------------------------------------------------


def signed_anew(vendor: Vendor, change: Callable[[Online], None]) -> Medium:
    online = vendor.repository._folder.online()
    change(online)
    vendor.repository._write(vendor.repository.policy, online, [vendor.release], NOW)
    return vendor.medium


def delegate(online: Online) -> None:
    key = SSlibKey.from_crypto(Ed25519PrivateKey.generate().public_key())
    role = DelegatedRole("other", [key.keyid], 1, terminating=False, paths=["policy.json"])
    online.targets.signed.delegations = Delegations({key.keyid: key}, {"other": role})


def run_ahead(online: Online) -> None:
    for role in (online.targets, online.snapshot, online.timestamp):
        role.signed.version = 2**53


@pytest.mark.parametrize(("change", "sentence"), [(delegate, "delegates"), (run_ahead, "over 53 bits")])
def test_what_a_site_could_not_put_on_record_is_refused_whoever_signed_it(
    vendor: Vendor, hospital: Hospital, tmp_path: Path, change: Callable[[Online], None], sentence: str
) -> None:
    hospital.take(vendor.medium)
    shutil.copytree(vendor.folder, tmp_path / "before")
    with pytest.raises(MalformedBundle, match=sentence):
        hospital.take(signed_anew(vendor, change))
    vendor.repository = Repository(tmp_path / "before")
    vendor.folder = tmp_path / "before"
    assert hospital.take(vendor.publish()).vendor.timestamp == 2, "what was refused has left no trace"


def test_root_without_consistent_snapshots_is_refused(tmp_path: Path, hospital: Hospital) -> None:
    vendor = Vendor(tmp_path / "vendor")
    root = Metadata[Root].from_file(str(vendor.folder / trust.FIRST_ROOT))
    root.signed.consistent_snapshot = False
    root.signatures.clear()
    (vendor.folder / trust.FIRST_ROOT).unlink()
    vendor.repository._place_root(root, vendor.roots)
    for number, role in ((1, "snapshot"), (1, "targets")):
        shutil.copy(vendor.folder / f"metadata/{number}.{role}.json", vendor.folder / f"metadata/{role}.json")
    for path in (vendor.folder / "targets").iterdir():
        path.rename(path.with_name("policy.json"))
    with pytest.raises(MalformedBundle, match="consistent"):
        hospital.take(vendor.medium)


@pytest.mark.parametrize("keyid", ["k" * 70_000, "AB" * 32, "ab" * 31, "é" * 64, "ab" * 32 + "\n"])
def test_key_id_that_is_not_64_hex_digits_is_refused(vendor: Vendor, hospital: Hospital, keyid: str) -> None:
    """TUF lets it be any text; it goes into the record of the act, which has a limit."""
    root = Metadata[Root].from_file(str(vendor.folder / trust.FIRST_ROOT))
    key = SSlibKey.from_crypto(vendor.release.public_key())
    key.keyid = keyid
    root.signed.version = 2
    root.signed.add_key(key, "timestamp")
    root.signatures.clear()
    vendor.repository._place_root(root, vendor.roots)
    with pytest.raises(MalformedBundle, match="64 hex digits"):
        hospital.take(vendor.medium)


def test_key_that_is_no_key_is_one_sentence(vendor: Vendor, hospital: Hospital) -> None:
    """python-tuf lets out what it meets in a root that was signed by enough keys, and is not as it should be."""
    root = Metadata[Root].from_file(str(vendor.folder / trust.FIRST_ROOT))
    root.signed.version, root.signed.keys[vendor.release_id].keyval = 2, {"public": 5}
    root.signatures.clear()
    vendor.repository._place_root(root, vendor.roots)
    with pytest.raises(MalformedBundle):
        hospital.take(vendor.medium)


# --- every bit ------------------------------------------------------------------------------------------------------


def outcome(hospital: Hospital, medium: Medium, good: trust.Refreshed) -> str:
    """How a changed medium ends. ``the same`` says what the vendor said, spelled otherwise: an upper-case hex digit, say."""
    try:
        new = trust.refresh(hospital.folder, medium, None)
    except BundleError as error:
        return error.code
    same = (new.policy, new.vendor.expires) == (good.policy, good.vendor.expires)
    roots = {"first_root_sha256": "", "root_sha256": ""}
    return "the same" if same and replace(new.vendor, **roots) == replace(good.vendor, **roots) else "accepted"


def mutations(data: bytes, step: int) -> list[bytes]:
    flips = [flipped(data, bit) for bit in range(0, len(data) * 8, step)]
    return flips + [data[:length] for length in range(0, len(data), step)] + [data + b"x", data + data]


@pytest.mark.parametrize("step", [61, pytest.param(1, marks=pytest.mark.soak)], ids=["sampled", "every bit and length"])
def test_no_change_of_one_place_in_a_trust_repository_is_accepted(vendor: Vendor, hospital: Hospital, step: int) -> None:
    """The first root is changed too: there, the fingerprint that people compare is what tells."""
    medium = vendor.publish()
    medium = {name: data for name, data in medium.items() if name != "metadata/1.targets.json"}
    good = trust.refresh(hospital.folder, medium, None)
    seen: dict[str, int] = {}
    for name, data in medium.items():
        for changed in mutations(data, step):
            ended = outcome(hospital, medium | {name: changed}, good)
            seen[ended] = seen.get(ended, 0) + 1
            assert ended != "accepted", name
            if ended == "the same" and name == trust.FIRST_ROOT:
                assert trust.root_fingerprint(changed) != trust.root_fingerprint(data)
    print(f"\n{sum(map(len, medium.values()))} bytes of trust repository, {sum(seen.values())} cases: {seen}")
    assert seen.get("the same", 0) < sum(seen.values()) / 20
