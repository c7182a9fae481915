"""One trained example and one bundle of it, made once: training and exporting take seconds each."""

import subprocess
import sys
from pathlib import Path

import pytest

from appliance.bundle import opening, secret
from export import keys
from export.options import desk_policy
from tests.bundle.breaking import decrypt
from tests.export.desk import DIGITS, EVERY_ROLE, Desk, Opened, run_command


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits example, trained: weights, validation images, test images, torch's own answers."""
    out = tmp_path_factory.mktemp("digits")
    subprocess.run([sys.executable, DIGITS / "train.py", out], check=True, capture_output=True)
    return out


@pytest.fixture(scope="session")
def desk(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Desk:
    folder = tmp_path_factory.mktemp("desk")
    made = Desk(trained, folder / "keys", folder / "passphrase", folder / "digits.bundle")
    made.passphrase.write_text("correct horse battery staple\n")
    code, _, err = run_command("keygen", "--out", made.keys, *EVERY_ROLE, "--passphrase-file", made.passphrase)
    assert code == 0, err
    recipe = DIGITS / "recipe.py"
    code, _, err = run_command("build", recipe, "--data", trained, "--out", made.bundle, *made.build_options)
    assert code == 0, err
    public = [word for role in keys.ROLES for word in (f"--{role}", made.keys / f"{role}.pem")]
    signing = [word for role in (keys.ROOT, keys.RELEASE) for word in ("--key", made.keys / f"{role}.key")]
    words = ["--passphrase-file", made.passphrase]
    for command in (
        ["init", made.repository, "--vendor", "acme", *public, *signing, *words],
        ["publish", made.repository, "--bundle", made.bundle, *signing[2:], *words],
    ):
        code, _, err = run_command("trust", *command)
        assert code == 0, err
    return made


@pytest.fixture(scope="session")
def opened(desk: Desk) -> Opened:
    """The bundle's parts, decrypted with the vendor's own copy of the content key."""
    genuine = opening.parse(desk.bundle.read_bytes()).verify([desk_policy([keys.public(desk.keys / "exporter.pem")])])
    sealed = desk.bundle.with_suffix(".content-key").read_bytes()
    key = secret.unseal(sealed, desk.passphrase.read_bytes().strip(), keys.content_purpose(genuine.digest))
    parts = {
        part.role: decrypt(key, opening.part_context(genuine.manifest.bundle_id, i), ciphertext)
        for i, (part, ciphertext) in enumerate(zip(genuine.manifest.parts, genuine.check_parts(), strict=True))
    }
    return Opened(genuine.manifest, genuine.digest, key, parts)
