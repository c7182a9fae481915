"""The vendor's trust repository by its commands: made, published to, revoked from, its keys changed; as sites see it."""

from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import pytest

from appliance import trust
from appliance.bundle import secret
from appliance.bundle.policy import Policy
from appliance.bundle.signature import key_id
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

    def run(self, *arguments: object) -> tuple[int, str, str]:
        return run_command("trust", *arguments)

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
    assert (code, out) == (0, "The root still lacks signatures, at least 1: python -m export trust sign\n")
    with pytest.raises(Exception, match="no trust repository"):
        office.heard()
    code, _, err = office.run("publish", office.repository, *office.key("release"))
    assert (code, "lacks signatures" in err) == (2, True)
    code, out, _ = office.run("sign", office.repository, *office.key("root-1"))
    assert out.startswith("The root still lacks"), "the same person twice is one person"
    code, _, err = office.run("sign", office.repository, *office.key("release"))
    assert (code, "none of the keys is a root key" in err) == (2, True)
    code, out, _ = office.run("sign", office.repository, *office.key("root-3"))
    assert (code, out.splitlines()[0]) == (0, "root         version 1, signed")
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
    assert office.run(*rotation)[1].startswith("The root still lacks signatures, at least 1")
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


def test_release_key_is_rotated_and_the_old_one_counts_no_more(office: Office) -> None:
    office.init()
    office.heard()
    signing = [*office.key("root-1"), *office.key("root-3")]
    assert office.run("rotate", office.repository, "--release", office.pem("release-new"), *signing)[0] == 0
    code, _, err = office.run("publish", office.repository, *office.key("release"))
    assert (code, "none of the keys is a release key" in err) == (2, True)
    assert office.run("publish", office.repository, "--bundle", bundle(office, 1), *office.key("release-new"))[0] == 0
    assert len(office.heard().bundles) == 1


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
