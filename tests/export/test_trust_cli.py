"""The vendor's trust repository by its commands: made, published to, revoked from, its keys changed; as sites see it."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from unittest import mock

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from securesystemslib.signer import CryptoSigner, SSlibKey
from tuf.api.metadata import Metadata, Root

from appliance import trust
from appliance.bundle import secret
from appliance.bundle.policy import ROOT_DESKS, Policy
from appliance.bundle.signature import key_id
from appliance.errors import UntrustedSignature
from export import keys
from export.options import utc_now
from export.trust import Repository
from tests.export.desk import run_command
from tests.forge import Forge


@dataclass
class Office:
    """Three people with a root key each, under passphrases of their own; a release key; a vendor's bundles."""

    folder: Path
    vendor: Forge

    @property
    def repository(self) -> Path:
        return self.folder / "repository"

    def key(self, name: str) -> list[object]:
        return [
            "--key",
            self.folder / name / f"{name.split('-')[0]}.key",
            "--passphrase-file",
            self.folder / f"{name}.words",
        ]

    def pem(self, name: str) -> Path:
        return self.folder / name / f"{name.split('-')[0]}.pem"

    def run(self, *arguments: object, answer: str = "y\n") -> tuple[int, str, str]:
        return run_command("trust", *arguments, answer=answer)

    def init(self, *more: object, signers: tuple[str, ...] = ("root-1", "root-2", "release")) -> tuple[int, str, str]:
        roots = [item for n in (1, 2, 3) for item in ("--root", self.pem(f"root-{n}"))]
        public = [item for name in ("release", "exporter", "licensing") for item in (f"--{name}", self.pem(name))]
        signing = [item for name in signers for item in self.key(name)]
        return self.run("init", self.repository, "--vendor", "acme", "--threshold", 2, *roots, *public, *signing, *more)

    def heard(self) -> Policy:
        """What a new site hears from this repository."""
        return trust.refresh(self.folder, trust.read_medium(self.repository), None).policy


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Keys, sealed so that a test need not wait for Argon2id."""
    folder = tmp_path_factory.mktemp("office")
    for name in ("root-1", "root-2", "root-3", "release", "release-new", "exporter", "licensing"):
        (folder / f"{name}.words").write_text(f"the passphrase of {name}\n")
        role, words = name.split("-")[0], folder / f"{name}.words"
        with mock.patch.multiple(secret, MEMORY_KIB=128, ITERATIONS=1, LANES=1):
            code, _, err = run_command("keygen", "--out", folder / name, "--role", role, "--passphrase-file", words)
        assert code == 0, err
    return folder


@pytest.fixture
def office(desk: Path, tmp_path: Path) -> Office:
    for path in desk.iterdir():
        (tmp_path / path.name).symlink_to(path)
    vendor = Forge()
    vendor.exporter = keys.private(  # type: ignore[assignment]
        str(desk / "exporter" / "exporter.key"), [b"the passphrase of exporter"], ["exporter"]
    )
    return Office(tmp_path, vendor)


def bundle(office: Office, number: int) -> Path:
    path = office.folder / f"{number}.bundle"
    path.write_bytes(office.vendor.version(number))
    return path


def test_repository_is_made_by_as_many_root_keys_as_it_takes(office: Office) -> None:
    code, out, err = office.init()
    assert (code, err) == (0, "")
    assert f"fingerprint  {Repository(office.repository).root_fingerprint}\n" in out
    heard = office.heard()
    assert (heard.vendor, list(heard.exporter.keys)) == ("acme", [key_id(keys.public(office.pem("exporter")))])


def test_root_waits_for_the_signature_of_somebody_who_is_elsewhere(office: Office) -> None:
    code, out, _ = office.init(signers=("root-1", "release"))
    assert (code, "The root still lacks signatures, at least 1: python -m export trust sign\n" in out) == (0, True)
    with pytest.raises(Exception, match="no trust repository"):
        office.heard()
    code, _, err = office.run("publish", office.repository, *office.key("release"))
    assert (code, "lacks signatures" in err) == (2, True)
    code, out, _ = office.run("sign", office.repository, *office.key("root-1"))
    assert "The root still lacks" in out, "the same person twice is one person"
    code, _, err = office.run("sign", office.repository, *office.key("release"))
    assert (code, "none of the keys is a root key" in err) == (2, True)
    code, out, _ = office.run("sign", office.repository, *office.key("root-3"))
    assert (code, "root         version 1, signed\n" in out) == (0, True)
    assert office.heard().vendor == "acme"


@pytest.mark.parametrize(("more", "signers", "sentence"), [
    (("--threshold", 4), ("root-1", "release"), "3 root keys cannot give 4 signatures"),
    ((), ("root-1", "root-2"), "none of the keys is a release key"),
    (("--vendor", "Acme"), ("root-1", "root-2", "release"), "not valid"),
])  # fmt: skip
def test_repository_that_no_site_could_use_is_not_made(
    office: Office, more: tuple[object, ...], signers: tuple[str, ...], sentence: str
) -> None:
    code, out, err = office.init(*more, signers=signers)
    assert (code != 0, out, sentence in err) == (True, "", True)
    assert not office.repository.exists()


def test_bundles_are_published_and_revoked_for_every_site_to_see(office: Office) -> None:
    office.init()
    one, two = bundle(office, 1), bundle(office, 2)
    code, out, err = office.run("publish", office.repository, "--bundle", one, "--bundle", two, *office.key("release"))
    assert (code, err) == (0, "")
    assert "acme         2 bundles, 0 revoked; 1 exporter and 1 licensing keys" in out
    digest = office.vendor.publish(one.read_bytes())
    assert {listing.version for listing in office.heard().bundles.values()} == {1, 2}
    revoking = ("--digest", digest, "--reason", "Wrong for children.", *office.key("release"))
    assert office.run("revoke", office.repository, *revoking)[0] == 0
    assert office.heard().bundles[digest].revoked == "Wrong for children."


def test_bundle_is_published_once_and_never_again_after_it_was_revoked(office: Office) -> None:
    office.init()
    one = bundle(office, 1)
    publish = ("publish", office.repository, "--bundle", one, *office.key("release"))
    assert office.run(*publish)[0] == 0
    assert office.run(*publish)[0] == 3
    again = bundle(office, 1)
    code, _, err = office.run("publish", office.repository, "--bundle", again, *office.key("release"))
    assert (code, "Another bundle of forged version 1 is published" in err) == (3, True)


def test_bundle_of_a_stranger_is_not_published(office: Office) -> None:
    office.init()
    (office.folder / "stranger").write_bytes(Forge().version(1))
    code, _, _ = office.run("publish", office.repository, "--bundle", office.folder / "stranger", *office.key("release"))
    assert (code, office.heard().bundles) == (3, {})


def test_nobody_but_a_release_key_publishes_and_nobody_but_root_keys_rotate(office: Office) -> None:
    office.init()
    code, _, err = office.run("publish", office.repository, *office.key("root-1"))
    assert (code, "none of the keys is a release key" in err) == (2, True)
    code, _, err = office.run("publish", office.repository, *office.key("exporter"))
    assert (code, "not a signing key of the release or root role" in err) == (3, True)
    code, _, err = office.run("rotate", office.repository, "--root-days", 10, *office.key("release"))
    assert (code, "none of the keys is a root key" in err) == (2, True)


def test_root_that_waits_for_signatures_holds_nobody_up(office: Office) -> None:
    """A revocation is not to wait for somebody who is elsewhere; until then the old root counts."""
    office.init()
    rotation = ("rotate", office.repository, "--release", office.pem("release-new"), *office.key("root-1"))
    assert "The root still lacks signatures, at least 1" in office.run(*rotation)[1]
    assert office.run(*rotation)[0] == 2, "one at a time"
    assert office.run("publish", office.repository, "--bundle", bundle(office, 1), *office.key("release"))[0] == 0
    assert len(office.heard().bundles) == 1
    (office.repository / "root.pending").unlink()
    assert office.run(*rotation)[0] == 0


def test_signing_key_is_revoked_with_its_reason_and_another_takes_its_place(office: Office) -> None:
    office.init()
    old = key_id(keys.public(office.pem("exporter")))
    new = office.folder / "newer"
    run_command("keygen", "--out", new, "--role", "exporter", "--passphrase-file", office.folder / "exporter.words")
    both = ("--exporter", office.pem("exporter"), "--exporter", new / "exporter.pem")
    assert office.run("rotate", office.repository, *both, *office.key("root-1"), *office.key("root-2"))[0] == 0
    assert office.run("publish", office.repository, *office.key("release"))[0] == 0
    assert len(office.heard().exporter.keys) == 2
    revoking = ("--signing-key", old, "--reason", "The key was lost.", *office.key("release"))
    assert office.run("revoke", office.repository, *revoking)[0] == 0
    heard = office.heard()
    assert (heard.revoked_keys, list(heard.exporter.keys)) == (
        {old: "The key was lost."}, [key_id(keys.public(new / "exporter.pem"))],
    )  # fmt: skip
    assert office.run("revoke", office.repository, *revoking)[0] == 2


# --- what a root key signs ------------------------------------------------------------------------------------------


def shown(out: str) -> str:
    """The line that holders of root keys read to each other."""
    return next(line.removeprefix("to sign      ") for line in out.splitlines() if line.startswith("to sign"))


def waiting(office: Office, change: Callable[[Root], None] = lambda root: None) -> str:
    """A rotation of root-1's that waits for another signature, perhaps changed by whoever can write the folder; what root-1
    was shown.
    """
    office.init()
    rotation = ("rotate", office.repository, "--release", office.pem("release-new"), *office.key("root-1"))
    code, out, _ = office.run(*rotation)
    assert (code, "still lacks" in out) == (0, True)
    pending = Metadata[Root].from_file(str(office.repository / "root.pending"))
    change(pending.signed)
    pending.to_file(str(office.repository / "root.pending"))
    return shown(out)


def test_whoever_signs_a_root_sees_whose_keys_will_count(office: Office) -> None:
    """By the ids that keygen printed; and the same fingerprint as whoever proposed it, whoever has signed by then."""
    said = waiting(office)
    code, out, _ = office.run("sign", office.repository, *office.key("root-2"), "--fingerprint", said.upper())
    assert code == 0
    ids = {name: key_id(keys.public(office.pem(name))) for name in ("root-3", "release", "release-new", "exporter")}
    assert out.splitlines()[0] == "root         version 2, replaces 1; 2 of 3 root keys have to sign"
    for line in (
        f"root key     {ids['root-3']}", f"release      {ids['release-new']}  new", f"release      {ids['release']}  gone",
        f"exporter     {ids['exporter']}", "require      ed25519", f"to sign      {said}",
        f"repository   {Repository(office.repository).root_fingerprint}",
    ):  # fmt: skip
        assert line in out.splitlines()


def test_root_is_signed_by_nobody_who_was_not_asked(office: Office) -> None:
    said = waiting(office)
    before = (office.repository / "root.pending").read_bytes()
    sign = ("sign", office.repository, *office.key("root-2"))
    assert office.run(*sign, answer="n\n")[0] == office.run(*sign, answer="")[0] == 130
    code, _, err = office.run(*sign, "--fingerprint", "0000 " * 8)
    assert (code, said in err) == (3, True)
    assert (office.repository / "root.pending").read_bytes() == before
    (office.repository / "root.pending").unlink()
    rotation = ("rotate", office.repository, "--root-days", 10, *office.key("root-1"))
    assert office.run(*rotation, answer="")[0] == 130
    assert not (office.repository / "root.pending").exists()
    assert office.run(*rotation, "--yes", answer="")[0] == 0


THIEF = Ed25519PrivateKey.generate()


def thief() -> SSlibKey:
    return SSlibKey.from_crypto(THIEF.public_key())


@pytest.mark.parametrize("role", ["root", "targets", "snapshot", "timestamp"])
def test_root_that_was_changed_while_it_waited_is_not_the_one_that_was_read_out(office: Office, role: str) -> None:
    said = waiting(office, lambda root: root.add_key(thief(), role))
    before = (office.repository / "root.pending").read_bytes()
    code, out, _ = office.run("sign", office.repository, *office.key("root-2"), "--fingerprint", said)
    assert code == 3
    assert role != "root" or f"root key     {key_id(THIEF.public_key())}  new" in out.splitlines()
    assert (office.repository / "root.pending").read_bytes() == before


def twice(root: Root) -> None:
    """One root key under a second id, so that its holder alone meets the threshold."""
    key = root.keys[root.roles["root"].keyids[0]]
    root.add_key(SSlibKey("ab" * 32, key.keytype, key.scheme, key.keyval), "root")


def rename(root: Root) -> None:
    """A thief's key, under the id of the release key that everybody expects."""
    (keyid,) = root.roles["timestamp"].keyids
    root.keys[keyid] = SSlibKey(keyid, "ed25519", "ed25519", thief().keyval)


def test_key_under_the_id_of_another_is_shown_as_what_it_is(office: Office) -> None:
    waiting(office, rename)
    code, out, _ = office.run("sign", office.repository, *office.key("root-2"), answer="n\n")
    assert (code, f"release      {key_id(THIEF.public_key())}  new" in out) == (130, True)
    assert key_id(keys.public(office.pem("release-new"))) not in out


@pytest.mark.parametrize("change", [
    twice,
    lambda root: root.add_key(thief(), "timestamp"),
    lambda root: setattr(root, "consistent_snapshot", False),
    lambda root: root.unrecognized_fields.update(stray=1),
    lambda root: root.unrecognized_fields.pop(ROOT_DESKS),
    lambda root: setattr(root.roles["targets"], "threshold", 2),
    lambda root: root.keys.pop(root.roles["root"].keyids[0]),
    lambda root: root.keys.update({root.roles["root"].keyids[0]: SSlibKey("a", "rsa", "rsassa-pss-sha256", {"public": ""})}),
    lambda root: setattr(root, "version", 3),
    lambda root: setattr(root, "version", 1),
])  # fmt: skip
def test_root_that_cannot_be_shown_whole_is_not_signed(office: Office, change: Callable[[Root], None]) -> None:
    waiting(office, change)
    before = (office.repository / "root.pending").read_bytes()
    code, out, _ = office.run("sign", office.repository, *office.key("root-2"))
    assert (code, out) == (3, "")
    assert (office.repository / "root.pending").read_bytes() == before


# --- a folder that anybody can write --------------------------------------------------------------------------------


def unrevoked(office: Office) -> None:
    """The policy without its revocation, and hashes that fit; nobody has signed them."""
    repository = Repository(office.repository)
    said = replace(repository.policy, bundles={d: replace(b, revoked=None) for d, b in repository.policy.bundles.items()})
    repository._write(said, repository._folder.online(), [Ed25519PrivateKey.generate()], utc_now())


def unhashed(office: Office) -> None:
    """The policy file alone."""
    (path,) = (office.repository / "targets").iterdir()
    path.write_bytes(path.read_bytes().replace(b'"revoked":"Wrong."', b'"revoked":null'))


def otherwise_rooted(office: Office) -> None:
    """A second root that only its own keys have signed."""
    path = office.repository / "metadata" / "1.root.json"
    root, key = Metadata[Root].from_file(str(path)), Ed25519PrivateKey.generate()
    root.signed.version, root.signed.roles["root"].threshold = 2, 1
    root.signed.add_key(SSlibKey.from_crypto(key.public_key()), "root")
    root.signatures.clear()
    root.sign(CryptoSigner(key))
    root.to_file(str(path.with_name("2.root.json")))


@pytest.mark.parametrize("tamper", [unrevoked, unhashed, otherwise_rooted])
def test_nothing_is_signed_over_what_was_changed_in_the_folder(office: Office, tamper: Callable[[Office], None]) -> None:
    """Or a revocation would be undone by the next release, under the release key's own signature."""
    office.init()
    one = bundle(office, 1)
    office.run("publish", office.repository, "--bundle", one, *office.key("release"))
    digest = office.vendor.publish(one.read_bytes())
    revoking = ("revoke", office.repository, "--digest", digest, "--reason", "Wrong.", *office.key("release"))
    assert office.run(*revoking)[0] == 0
    tamper(office)
    before = {path: path.read_bytes() for path in office.repository.rglob("*") if path.is_file()}
    for command in (
        ("publish", office.repository, *office.key("release")), revoking,
        *[("rotate", office.repository, *office.key("root-1"), *office.key("root-2"))] * (tamper is otherwise_rooted),
    ):  # fmt: skip
        code, _, err = office.run(*command)
        assert (code, "not what its keys have signed" in err) == (3, True)
    with pytest.raises(UntrustedSignature):
        _ = Repository(office.repository).policy
    assert {path: path.read_bytes() for path in office.repository.rglob("*") if path.is_file()} == before


def test_nothing_is_granted_by_what_no_key_of_today_has_said(office: Office) -> None:
    """Between a rotation and the next publication a thief of the old release key could still have written it."""
    office.init()
    signing = [*office.key("root-1"), *office.key("root-3")]
    assert office.run("rotate", office.repository, "--release", office.pem("release-new"), *signing)[0] == 0
    with pytest.raises(UntrustedSignature):
        _ = Repository(office.repository).policy
    assert office.run("publish", office.repository, *office.key("release-new"))[0] == 0
    assert Repository(office.repository).policy == office.heard()


def test_release_key_is_rotated_and_the_old_one_counts_no_more(office: Office) -> None:
    office.init()
    office.heard()
    signing = [*office.key("root-1"), *office.key("root-3")]
    assert office.run("rotate", office.repository, "--release", office.pem("release-new"), *signing)[0] == 0
    code, _, err = office.run("publish", office.repository, *office.key("release"))
    assert (code, "none of the keys is a release key" in err) == (2, True)
    publish = ("publish", office.repository, *office.key("release-new"))
    code, _, err = office.run(*publish, "--bundle", bundle(office, 1))
    assert (code, "release keys that count no more" in err) == (0, True), "a thief of the old one could have written it"
    assert len(office.heard().bundles) == 1
    assert office.run(*publish)[::2] == (0, "")


def test_what_is_said_is_good_for_as_long_as_is_said(office: Office) -> None:
    office.init("--timestamp-days", 7)
    assert (Repository(office.repository).fresh_until - utc_now()).days in (6, 7)
    office.run("publish", office.repository, "--timestamp-days", 90, *office.key("release"))
    assert (Repository(office.repository).fresh_until - utc_now()).days in (89, 90)


def test_only_the_newest_of_each_file_is_kept_but_every_root(office: Office) -> None:
    """A medium does not grow with each release; a site that slept needs the roots."""
    office.init()
    for _ in range(3):
        office.run("publish", office.repository, *office.key("release"))
    office.run("rotate", office.repository, *office.key("root-1"), *office.key("root-2"))
    names = sorted(path.name for path in (office.repository / "metadata").iterdir())
    assert names == ["1.root.json", "2.root.json", "4.snapshot.json", "4.targets.json", "timestamp.json"]
    assert len(list((office.repository / "targets").iterdir())) == 1


@pytest.mark.parametrize("when", ["from the start", "later"])
def test_second_signature_can_be_demanded(office: Office, tmp_path: Path, when: str) -> None:
    words = office.folder / "exporter.words"
    made = run_command(
        "keygen", "--out", tmp_path / "pq", "--role", "exporter", "--role", "licensing", "--algorithm", "ml-dsa-65",
        "--passphrase-file", words,
    )  # fmt: skip
    assert (made[0], made[1].startswith("exporter-ml-dsa-65")) == (0, True)
    quantum = [w for role in ("exporter", "licensing") for w in (f"--{role}", tmp_path / "pq" / f"{role}-ml-dsa-65.pem")]
    if when == "later":
        office.init()
        classic = [w for role in ("exporter", "licensing") for w in (f"--{role}", office.pem(role))]
        roots = [*office.key("root-1"), *office.key("root-2")]
        code, _, err = office.run("rotate", office.repository, "--require-ml-dsa", *roots)
        assert (code, err) == (2, "there is no exporter key of ml-dsa-65\n")
        assert office.run("rotate", office.repository, "--require-ml-dsa", *classic, *quantum, *roots)[0] == 0
    else:
        assert office.init("--require-ml-dsa", *quantum)[0] == 0
    one = bundle(office, 1)
    code, _, err = office.run("publish", office.repository, "--bundle", one, *office.key("release"))
    assert (code, "lacks the ml-dsa-65 signature" in err) == (3, True)
    second = keys.private(str(tmp_path / "pq" / "exporter-ml-dsa-65.key"), [b"the passphrase of exporter"], ["exporter"])
    both = office.folder / "both.bundle"
    both.write_bytes(office.vendor.bundle(signers=[office.vendor.exporter, second]))
    assert office.run("publish", office.repository, "--bundle", both, *office.key("release"))[0] == 0
    assert office.heard().exporter.required == {"ed25519", "ml-dsa-65"}
