"""The site directory: what is trusted, installed and active, and what a stray file does not change."""

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from appliance.bundle.signature import key_id
from appliance.errors import ConfigError, MalformedBundle
from appliance.site import Site

KEY = ed25519.Ed25519PrivateKey.generate().public_key()


def pem(key: ed25519.Ed25519PublicKey | ec.EllipticCurvePublicKey) -> bytes:
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("models", "trust/exporter", "trust/licensing"):
        (tmp_path / name).mkdir(parents=True)
    return tmp_path


def test_keys_are_trusted_for_the_folder_they_lie_in(root: Path) -> None:
    (root / "trust" / "exporter" / "vendor.pem").write_bytes(pem(KEY))
    (root / "trust" / "exporter" / "README").write_text("not a key")
    trusted = Site(root).trusted()
    assert list(trusted.exporter) == [key_id(KEY)]
    assert list(trusted.licensing) == []


UNKNOWN = b"-----BEGIN PUBLIC KEY-----\nMBMwBwYDKgMEBQADCAABAgMEBQYH\n-----END PUBLIC KEY-----\n"
BAD = {
    "empty": b"",
    "junk": b"junk",
    "cut": pem(KEY)[:60],
    "an unknown algorithm": UNKNOWN,
    "another algorithm": pem(ec.generate_private_key(ec.SECP256R1()).public_key()),
}


@pytest.mark.parametrize("name", BAD)
def test_key_that_cannot_be_used_is_named(root: Path, name: str) -> None:
    """One bad file stops everything: a key that was meant to be trusted must not be left out in silence."""
    (root / "trust" / "licensing" / "bad.pem").write_bytes(BAD[name])
    with pytest.raises(ConfigError, match=r"the trusted key bad\.pem"):
        Site(root).trusted()


def test_what_is_installed_is_listed_by_name_and_number(root: Path) -> None:
    site = Site(root)
    for name, version in (("chest", 10), ("skin", 1), ("chest", 9)):
        site.install(name, version, b"bundle", b"grant")
    assert [(found.name, found.version) for found in site.installed()] == [("chest", 9), ("chest", 10), ("skin", 1)]
    assert site.find("chest", 10).bundle.read_bytes() == b"bundle"
    assert site.find("chest", 10).grant.read_bytes() == b"grant"
    with pytest.raises(ConfigError, match="version 8 of chest is not installed"):
        site.find("chest", 8)


def test_stray_folders_are_passed_over(root: Path) -> None:
    site = Site(root)
    site.install("chest", 1, b"bundle", b"grant")
    for stray in ("chest/old", "chest/2.bak", "chest/-1"):
        (root / "models" / stray).mkdir()
        (root / "models" / stray / "model.bundle").write_bytes(b"x")
    (root / "models" / "chest" / "3").mkdir()
    assert [found.version for found in site.installed()] == [1]


def test_installed_bundle_is_never_replaced_by_another_but_its_grant_may_be(root: Path) -> None:
    site = Site(root)
    site.install("chest", 1, b"bundle", b"grant")
    with pytest.raises(MalformedBundle, match="installed already"):
        site.install("chest", 1, b"another", b"grant 2")
    assert site.find("chest", 1).grant.read_bytes() == b"grant"
    site.install("chest", 1, b"bundle", b"grant 2")
    assert site.find("chest", 1).grant.read_bytes() == b"grant 2"


def test_one_version_of_each_model_is_active(root: Path) -> None:
    site = Site(root)
    assert site.active() == {}
    for name, version in (("chest", 1), ("chest", 2), ("skin", 1)):
        site.install(name, version, b"bundle", b"grant")
        site.activate(name, version)
    site.activate("chest", 1)
    assert site.active() == {"chest": 1, "skin": 1}
    with pytest.raises(ConfigError):
        site.activate("chest", 3)
    assert site.active() == {"chest": 1, "skin": 1}


def test_no_half_written_files_are_left(root: Path) -> None:
    site = Site(root)
    site.install("chest", 1, b"bundle", b"grant")
    site.activate("chest", 1)
    names = sorted(path.name for path in root.rglob("*") if path.is_file())
    assert names == ["active.json", "model.bundle", "model.grant"]


@pytest.mark.parametrize("data", [b"", b"{", b'{"chest": 1}', b"[]", b'{"chest":"1"}', b'{"chest":1.0}', b'{"chest":null}'])
def test_table_of_active_versions_must_be_one(root: Path, data: bytes) -> None:
    (root / "models" / "active.json").write_bytes(data)
    with pytest.raises(ConfigError, match=r"models/active\.json"):
        Site(root).active()
