"""The site's secrets: kept sealed, for one purpose each, and never over another."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from appliance import durable, keys
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


class Crash(BaseException):
    """The process ends here: nothing of ours runs afterwards."""


def ending(call: int, how: BaseException) -> Callable[[int], None]:
    """An fsync that ends so at its n-th call, before anything is known to be on the disk; afterwards it works again."""
    real, calls = os.fsync, 0

    def fsync(fd: int) -> None:
        nonlocal calls
        calls += 1
        if calls == call:
            raise how
        real(fd)

    return fsync


REPLACING_SYNCS = 5  # the new file, its name and the old one's, the switch, the old file's zeros, its name


@pytest.mark.parametrize("call", range(1, REPLACING_SYNCS + 1))
@pytest.mark.parametrize("how", [Crash(), OSError("as the test wants it")], ids=["crash", "error"])
def test_wherever_a_replacement_ends_nothing_of_the_whole_outlives_an_erasure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: int, how: BaseException
) -> None:
    provider, path = SealedFiles(tmp_path, PASSPHRASE), tmp_path / "pseudonym-key.key"
    provider.create(PSEUDONYM_KEY)
    whole = path.open("rb")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", ending(call, how))
        with pytest.raises(Crash if isinstance(how, Crash) else KeyUnavailable):
            provider.replace(PSEUDONYM_KEY, b"left")
    there = [whole, *(found.open("rb") for found in tmp_path.iterdir())]
    provider.erase(PSEUDONYM_KEY)
    assert not [*tmp_path.iterdir()]
    for file in there:
        with file:
            assert not any(file.read()), "what still has a name somewhere holds nothing"


@pytest.mark.parametrize("call", range(1, REPLACING_SYNCS + 1))
@pytest.mark.parametrize("how", [Crash(), OSError("as the test wants it")], ids=["crash", "error"])
def test_a_replacement_that_a_crash_interrupted_is_settled_to_all_of_the_secret_or_to_what_was_to_be_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: int, how: BaseException
) -> None:
    provider, path = SealedFiles(tmp_path, PASSPHRASE), tmp_path / "pseudonym-key.key"
    made = provider.create(PSEUDONYM_KEY)
    with path.open("rb") as whole:
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", ending(call, how))
            with pytest.raises(Crash if isinstance(how, Crash) else KeyUnavailable):
                provider.replace(PSEUDONYM_KEY, b"left")
        if not isinstance(how, Crash):
            assert [*tmp_path.iterdir()] == [path], "an error is tidied up at once"
        provider.settle(PSEUDONYM_KEY)
        assert [*tmp_path.iterdir()] == [path]
        assert provider.get(PSEUDONYM_KEY) in (made, b"left")
        assert (provider.get(PSEUDONYM_KEY) == made) == any(whole.read())
    provider.replace(PSEUDONYM_KEY, b"less")
    assert provider.get(PSEUDONYM_KEY) == b"less"


def test_what_is_left_beside_a_secret_is_overwritten_before_the_next_one_is_written(tmp_path: Path) -> None:
    provider = SealedFiles(tmp_path, PASSPHRASE)
    provider.create(PSEUDONYM_KEY)
    for name in ("new", "old"):
        (tmp_path / f"pseudonym-key.key.{name}").write_bytes(b"of a crash")
    with (tmp_path / "pseudonym-key.key.new").open("rb") as new, (tmp_path / "pseudonym-key.key.old").open("rb") as old:
        provider.replace(PSEUDONYM_KEY, b"left")
        assert (new.read(), old.read()) == (bytes(10), bytes(10))


def test_what_cannot_be_erased_is_said_in_a_sentence(tmp_path: Path) -> None:
    provider = SealedFiles(tmp_path, PASSPHRASE)
    with pytest.raises(KeyUnavailable, match="The pseudonym key cannot be erased"):
        provider.erase(PSEUDONYM_KEY)
    (tmp_path / "pseudonym-key.key.new").mkdir()
    with pytest.raises(KeyUnavailable, match="What a crash left of the pseudonym key cannot be erased"):
        provider.settle(PSEUDONYM_KEY)


def test_a_new_secrets_name_is_on_the_disk_before_anything_is_made_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = list[Path]()
    monkeypatch.setattr(durable, "sync", synced.append)
    SealedFiles(tmp_path, PASSPHRASE).create(PSEUDONYM_KEY)
    assert synced == [tmp_path]


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
