"""The site's secrets: kept sealed, for one purpose each, and never over another."""

from pathlib import Path

import pytest

from appliance import keys
from appliance.errors import ConfigError, KeyUnavailable
from appliance.keys import APPLIANCE_SEED, AUDIT_KEY, PSEUDONYM_KEY, SealedFiles

PASSPHRASE = b"a passphrase of tests"


def test_a_secret_is_created_once_and_kept(tmp_path: Path) -> None:
    provider = SealedFiles(tmp_path, PASSPHRASE)
    made = provider.create(AUDIT_KEY)
    assert len(made) == 32
    assert SealedFiles(tmp_path, PASSPHRASE).get(AUDIT_KEY) == made
    with pytest.raises(KeyUnavailable, match="exists already"):
        provider.create(AUDIT_KEY)
    assert provider.get(AUDIT_KEY) == made
    path = tmp_path / "audit-key.key"
    assert path.stat().st_mode & 0o777 == 0o600
    assert made not in path.read_bytes()


def test_a_missing_secret_is_said_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(KeyUnavailable, match="The audit key is not in the site's keys folder"):
        SealedFiles(tmp_path, PASSPHRASE).get(AUDIT_KEY)
    with pytest.raises(KeyUnavailable, match="cannot be written"):
        SealedFiles(tmp_path / "none", PASSPHRASE).create(AUDIT_KEY)


def test_file_renamed_to_stand_in_for_another_key_does_not_open(tmp_path: Path) -> None:
    provider = SealedFiles(tmp_path, PASSPHRASE)
    provider.create(AUDIT_KEY)
    (tmp_path / "audit-key.key").rename(tmp_path / "appliance-seed.key")
    with pytest.raises(KeyUnavailable, match="The appliance seed cannot be opened"):
        provider.get(APPLIANCE_SEED)


def test_what_is_left_of_a_secret_takes_its_place_and_the_whole_is_overwritten(tmp_path: Path) -> None:
    provider, path = SealedFiles(tmp_path, PASSPHRASE), tmp_path / "pseudonym-key.key"
    provider.create(PSEUDONYM_KEY)
    (tmp_path / "pseudonym-key.key.new").write_bytes(b"of a crash")
    with path.open("rb") as before:
        size = path.stat().st_size
        provider.replace(PSEUDONYM_KEY, b"left" * 50_000)
        assert before.read() == bytes(size), "what had the name before"
    assert provider.get(PSEUDONYM_KEY) == b"left" * 50_000
    assert path.stat().st_mode & 0o777 == 0o600
    assert [found.name for found in tmp_path.iterdir()] == [path.name]
    with pytest.raises(KeyUnavailable, match="The audit key cannot be written"):
        provider.replace(AUDIT_KEY, b"left")
    assert not provider.has(AUDIT_KEY)


def passphrase(folder: Path, data: bytes, mode: int = 0o600) -> Path:
    path = folder / "passphrase"
    path.write_bytes(data)
    path.chmod(mode)
    return path


@pytest.mark.parametrize("data", [b"twelve bytes", b"twelve bytes\n", b"twelve bytes\nand a second line\n"])
def test_passphrase_is_the_first_line(tmp_path: Path, data: bytes) -> None:
    assert keys.read_passphrase(passphrase(tmp_path, data)) == b"twelve bytes"


@pytest.mark.parametrize("data", [b"", b"\n", b"eleven byte", b"eleven byte\nand a long second line"])
def test_short_passphrase_is_refused(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(ConfigError, match="shorter than 12 bytes"):
        keys.read_passphrase(passphrase(tmp_path, data))


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o601, 0o644])
def test_passphrase_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    with pytest.raises(ConfigError, match="chmod 600"):
        keys.read_passphrase(passphrase(tmp_path, b"a long passphrase", mode))


def test_passphrase_file_that_is_missing_or_a_folder_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(ConfigError, match="cannot be read"):
            keys.read_passphrase(path)


def test_private_files_are_never_overwritten(tmp_path: Path) -> None:
    keys.write_private(tmp_path / "a", b"one")
    with pytest.raises(FileExistsError):
        keys.write_private(tmp_path / "a", b"two")
    assert (tmp_path / "a").read_bytes() == b"one"
