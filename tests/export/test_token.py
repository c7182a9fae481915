"""Signing keys in a PKCS#11 token, SoftHSM here: they sign as any other key does, and never leave it."""

import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from appliance import trust
from appliance.bundle import enrolment, opening, secret, signature
from appliance.errors import ConfigError, KeyUnavailable
from export import keys, token
from tests import forge
from tests.export.desk import EVERY_ROLE, run_command
from tests.forge import Forge

MODULES = [Path("/usr/lib") / place / "libsofthsm2.so" for place in ("softhsm", "x86_64-linux-gnu/softhsm")]
MODULE = next((path for path in MODULES if path.is_file()), None)

pytestmark = pytest.mark.skipif(MODULE is None or shutil.which("softhsm2-util") is None, reason="SoftHSM2 is not installed")


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A token with nothing in it yet. SoftHSM reads its configuration once in a process."""
    folder = tmp_path_factory.mktemp("softhsm")
    (folder / "tokens").mkdir()
    (folder / "conf").write_text(f"directories.tokendir = {folder / 'tokens'}\nlog.level = ERROR\n")
    (folder / "pin").write_text("1234\n")
    os.environ["SOFTHSM2_CONF"] = str(folder / "conf")
    made = ["softhsm2-util", "--init-token", "--free", "--label", "the vendor", "--pin", "1234", "--so-pin", "5678"]
    subprocess.run(made, check=True, capture_output=True)
    return f"pkcs11:token=the%20vendor?module-path={MODULE}&pin-source=file:{folder / 'pin'}"


@pytest.fixture(scope="module")
def pems(uri: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All four keys, made inside the token by the command."""
    folder = tmp_path_factory.mktemp("pems")
    code, out, err = run_command("keygen", "--out", folder, *EVERY_ROLE, "--token", uri)
    assert (code, err) == (0, "")
    assert [line.split()[0] for line in out.splitlines()] == list(keys.ROLES)
    return folder


def named(uri: str, name: str) -> str:
    return uri.replace("?", f";object={name}?")


def test_token_gives_out_public_keys_alone(pems: Path, uri: str) -> None:
    assert sorted(path.name for path in pems.iterdir()) == sorted(f"{role}.pem" for role in keys.ROLES)
    for role in keys.ROLES:
        assert signature.key_id(token.TokenKey(named(uri, role)).public_key()) == signature.key_id(
            keys.public(pems / f"{role}.pem")
        )


def test_bundle_that_a_token_signed_is_like_any_other(pems: Path, uri: str) -> None:
    vendor = Forge()
    bundle = vendor.bundle(signers=[token.TokenKey(named(uri, "exporter"))])
    vendor.exporter = token.TokenKey(named(uri, "exporter"))  # type: ignore[assignment]
    assert opening.parse(bundle).verify(vendor.policies).digest in vendor.published


def test_vendors_desk_publishes_and_grants_with_a_token(pems: Path, uri: str, tmp_path: Path) -> None:
    """A bundle that is signed, published and granted by keys that nobody has as a file."""
    vendor, out, words = Forge(), tmp_path / "forged.bundle", tmp_path / "words"
    out.write_bytes(vendor.bundle(signers=[keys.private(named(uri, "exporter"), [], [keys.EXPORTER])]))
    words.write_text("a passphrase\n")
    digest = vendor.publish(out.read_bytes())
    content_key = secret.seal(vendor.content_key, b"a passphrase", keys.content_purpose(digest))
    (tmp_path / "content-key").write_bytes(content_key)

    public = [item for role in keys.ROLES for item in (f"--{role}", pems / f"{role}.pem")]
    signing = [item for role in ("root", "release") for item in ("--key", named(uri, role))]
    assert run_command("trust", "init", tmp_path / "repository", "--vendor", "acme", *public, *signing)[0] == 0
    publish = ["trust", "publish", tmp_path / "repository", "--bundle", out, *signing[2:]]
    assert run_command(*publish)[0] == 0
    heard = trust.refresh(tmp_path, trust.read_medium(tmp_path / "repository"), None).policy

    (tmp_path / "enrolment").write_bytes(enrolment.request(vendor.seed, "A site", "2026-01-01T00:00:00Z"))
    fingerprint = enrolment.read((tmp_path / "enrolment").read_bytes()).fingerprint
    code, _, err = run_command(
        "grant", "--bundle", out, "--content-key", tmp_path / "content-key", "--enrolment", tmp_path / "enrolment",
        "--key", named(uri, "licensing"), "--passphrase-file", words, "--repository", tmp_path / "repository", "--days", 10,
        "--fingerprint", fingerprint, "--out", tmp_path / "grant",
    )  # fmt: skip
    assert (code, err) == (0, "")
    genuine = opening.parse(out.read_bytes()).verify([heard])
    admitted = genuine.admit((tmp_path / "grant").read_bytes(), vendor.key, datetime.now(UTC))
    assert admitted.decrypt().parts == forge.parts()


def test_keys_in_a_token_are_never_made_again(pems: Path, uri: str, tmp_path: Path) -> None:
    code, _, err = run_command("keygen", "--out", tmp_path / "again", "--token", uri, "--role", "root")
    assert (code, err) == (3, "The token has a key root already.\n")
    assert not (tmp_path / "again").exists()


def test_token_takes_no_other_algorithm(uri: str, tmp_path: Path) -> None:
    wanted = ("--out", tmp_path, "--role", "exporter", "--token", uri, "--algorithm", "ml-dsa-65")
    code, _, err = run_command("keygen", *wanted)
    assert (code, err) == (2, "a key in a token is an Ed25519 key\n")


def test_token_without_its_library_is_one_sentence(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pkcs11", None)
    for use in (lambda key: key.public_key(), lambda key: key.sign(b"")):
        with pytest.raises(ConfigError, match="extra hsm"):
            use(token.TokenKey(named(uri, "root")))


@pytest.mark.parametrize(("change", "error"), [
    (lambda uri: uri.replace("the%20vendor", "nobody"), KeyUnavailable),
    (lambda uri: named(uri, "no-such-key"), KeyUnavailable),
    (lambda uri: uri.replace(".so", ".no"), KeyUnavailable),
    (lambda uri: uri.replace("file:", "file:/nowhere"), ConfigError),
    (lambda uri: uri.partition("?")[0], ConfigError),
    (lambda uri: "pkcs11:", ConfigError),
])  # fmt: skip
def test_token_that_cannot_be_used_is_one_sentence(uri: str, change: object, error: type[Exception]) -> None:
    with pytest.raises(error) as caught:
        token.TokenKey(change(uri)).public_key()  # type: ignore[operator]
    assert "\n" not in str(caught.value)


def test_wrong_pin_is_one_sentence(uri: str, tmp_path: Path) -> None:
    (tmp_path / "pin").write_text("0000")
    wrong = uri.partition("pin-source=")[0] + f"pin-source=file:{tmp_path / 'pin'}"
    with pytest.raises(KeyUnavailable, match="PinIncorrect"):
        token.TokenKey(named(wrong, "root")).sign(b"x")
