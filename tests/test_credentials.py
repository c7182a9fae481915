"""The passphrase as a credential of systemd's: plain, and sealed by a TPM, which swtpm emulates here."""

import os
import random
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic

import pytest

from appliance import config, wiring
from appliance.errors import ConfigError, KeyUnavailable
from appliance.keys import APPLIANCE_SEED
from tests.forge import PASSPHRASE, Forge, ForgedSite

START_S_MAX = 10


@pytest.fixture
def site(tmp_path: Path) -> ForgedSite:
    """A site whose passphrase is in no file."""
    made = Forge().site(tmp_path)
    settings = made.config.read_text().replace(
        'passphrase_file = "secrets/passphrase"', 'passphrase_credential = "passphrase"'
    )
    made.config.write_text(settings)
    (made.root / "secrets" / "passphrase").unlink()
    return made


@pytest.fixture
def credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that systemd would have made for a unit."""
    folder = tmp_path / "credentials"
    folder.mkdir()
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(folder))
    return folder


def test_credential_opens_the_keys(site: ForgedSite, credentials: Path) -> None:
    (credentials / "passphrase").write_bytes(PASSPHRASE)
    (credentials / "passphrase").chmod(0o440)  # as systemd leaves it, for the unit's user
    settings = config.read(site.config)
    assert wiring.key_provider(settings).get(APPLIANCE_SEED) == site.vendor.seed


def test_serving_without_the_credential_is_one_problem_of_the_configuration(site: ForgedSite, credentials: Path) -> None:
    with pytest.raises(ConfigError, match="no credential passphrase to this process"):
        config.read(site.config)


def test_commands_that_need_no_key_do_without_the_credential(site: ForgedSite, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asking a running appliance, for one; a command that does need a key says so."""
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    settings = config.read(site.config, to_serve=False)
    with pytest.raises(ConfigError, match="credential that holds the passphrase"):
        wiring.key_provider(settings)


def test_another_passphrase_opens_nothing(site: ForgedSite, credentials: Path) -> None:
    (credentials / "passphrase").write_bytes(b"a passphrase of somebody else")
    with pytest.raises(KeyUnavailable):
        wiring.key_provider(config.read(site.config)).get(APPLIANCE_SEED)


@pytest.mark.parametrize("name", ["", "../passphrase", "a/b", "x" * 65])
def test_credential_has_a_plain_name(site: ForgedSite, name: str, credentials: Path) -> None:
    site.config.write_text(site.config.read_text().replace('= "passphrase"', f'= "{name}"'))
    with pytest.raises(ConfigError, match="passphrase_credential"):
        config.read(site.config)


# --- a TPM ----------------------------------------------------------------------------------------------------------


@contextmanager
def tpm_of(folder: Path) -> Iterator[str]:
    """A TPM of its own, as systemd names it."""
    folder.mkdir()
    server, control = _free_ports()
    command = ["swtpm", "socket", "--tpm2", "--tpmstate", f"dir={folder}", "--flags", "not-need-init,startup-clear"]
    for role, port in (("--server", server), ("--ctrl", control)):
        command += [role, f"type=tcp,port={port},bindaddr=127.0.0.1"]
    with subprocess.Popen(command) as process:
        try:
            _wait_for(control)
            yield f"swtpm:host=127.0.0.1,port={server}"
        finally:
            process.terminate()


@pytest.fixture
def tpm(tmp_path: Path) -> Iterator[str]:
    with tpm_of(tmp_path / "tpm") as device:
        yield device


def _free_ports() -> tuple[int, int]:
    """Two ports of which the second follows the first, as swtpm's clients expect; none that a connection of another test
    may be given in the meantime."""
    while True:
        port = random.randrange(20_000, 32_000, 2)
        with socket.socket() as first, socket.socket() as second, suppress(OSError):
            first.bind(("127.0.0.1", port))
            second.bind(("127.0.0.1", port + 1))
            return port, port + 1


def _wait_for(port: int) -> None:
    started = monotonic()
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        assert monotonic() - started < START_S_MAX, "the TPM did not start"


def creds(*arguments: str, data: bytes) -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run(["systemd-creds", *arguments], input=data, capture_output=True, check=False)


needs_tpm = pytest.mark.skipif(
    shutil.which("swtpm") is None or shutil.which("systemd-creds") is None, reason="swtpm or systemd-creds is not installed"
)


@needs_tpm
def test_passphrase_that_a_tpm_seals_opens_the_site_on_this_machine_alone(
    site: ForgedSite, credentials: Path, tpm: str, tmp_path: Path
) -> None:
    """The recipe of docs/keys.md, with the unit's part done by hand; and a command that has nothing but the credential."""
    sealed = creds("encrypt", "--with-key=tpm2", f"--tpm2-device={tpm}", "--name=passphrase", "-", "-", data=PASSPHRASE)
    assert sealed.returncode == 0, sealed.stderr.decode()
    assert PASSPHRASE not in sealed.stdout
    opened = creds("decrypt", f"--tpm2-device={tpm}", "--name=passphrase", "-", "-", data=sealed.stdout)
    assert opened.returncode == 0, opened.stderr.decode()
    (credentials / "passphrase").write_bytes(opened.stdout)
    command = [sys.executable, "-m", "appliance", "enroll", "--site", str(site.root)]
    enrolled = subprocess.run(command, capture_output=True, text=True, env=os.environ, check=False)
    assert (enrolled.returncode, enrolled.stderr) == (0, "")

    other = creds("decrypt", f"--tpm2-device={tpm}", "--name=another", "-", "-", data=sealed.stdout)
    assert other.returncode != 0, "a credential is good under its own name alone"
    bent = bytearray(sealed.stdout)
    bent[len(bent) // 2] ^= 1
    assert creds("decrypt", f"--tpm2-device={tpm}", "--name=passphrase", "-", "-", data=bytes(bent)).returncode != 0


@needs_tpm
def test_sealed_passphrase_does_not_open_on_another_machine(tpm: str, tmp_path: Path) -> None:
    """A disk that was stolen, and a TPM that was not."""
    sealed = creds("encrypt", "--with-key=tpm2", f"--tpm2-device={tpm}", "--name=passphrase", "-", "-", data=PASSPHRASE)
    assert sealed.returncode == 0, sealed.stderr.decode()
    with tpm_of(tmp_path / "other") as other:
        opened = creds("decrypt", f"--tpm2-device={other}", "--name=passphrase", "-", "-", data=sealed.stdout)
    assert opened.returncode != 0
    assert PASSPHRASE not in opened.stdout
