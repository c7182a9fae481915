"""The site's own secrets, and who keeps them.

One key, one purpose. A ``KeyProvider`` keeps them: a folder of files sealed under a passphrase, which comes from a file or,
bound to the machine's TPM if the hospital wants it, from systemd (docs/keys.md).

- ``appliance seed``   what grants are sealed for; signs the enrolment request; authenticates what the site remembers
- ``audit key``        signs the checkpoints of the audit log
- ``pseudonym key``    hides what images were scored from everyone but this hospital; ``pseudonym key 2`` and so on are
                       those of later epochs: once one is erased nobody can match that epoch's records to images.
                       Where single calls were erased it holds the keys that are left (audit/pseudonym.py)
"""

import os
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from appliance import durable
from appliance.bundle import secret
from appliance.errors import ConfigError, KeyUnavailable

APPLIANCE_SEED = "appliance seed"
AUDIT_KEY = "audit key"
PSEUDONYM_KEY = "pseudonym key"
PASSPHRASE_BYTES_MIN = 12
EPOCHS_MAX = 1000


class KeyProvider(Protocol):
    """Where secrets are kept."""

    def get(self, purpose: str) -> bytes:
        """The secret of a purpose: 32 bytes, or what took their place. Raises KeyUnavailable."""

    def create(self, purpose: str) -> bytes:
        """Draws and keeps a new 32-byte secret. Raises KeyUnavailable where one is there already."""

    def has(self, purpose: str) -> bool:
        """Whether a secret is kept for a purpose."""

    def replace(self, purpose: str, left: bytes) -> None:
        """Keeps what is left of a secret, and forgets the whole for good. Raises KeyUnavailable where it cannot be."""

    def erase(self, purpose: str) -> None:
        """Forgets a secret for good. Raises KeyUnavailable where it cannot be."""

    def settle(self, purpose: str) -> None:
        """Forgets for good what a crash left beside a secret. Raises KeyUnavailable where it cannot be."""


class SealedFiles:
    """Secrets in ``DIRECTORY/<purpose>.key``, mode 0600, sealed under a passphrase (bundle-format section 9).

    While one is replaced, ``<purpose>.key.new`` is what takes its place and ``<purpose>.key.old`` what it was. Both can be
    unsealed as the secret can, so where a crash leaves one of them, it is overwritten before it loses its name.
    """

    def __init__(self, directory: Path, passphrase: bytes) -> None:
        self._directory, self._passphrase = directory, passphrase

    def get(self, purpose: str) -> bytes:
        try:
            sealed = self._path(purpose).read_bytes()
        except OSError:
            raise KeyUnavailable(f"The {purpose} is not in the site's keys folder.") from None
        return secret.unseal(sealed, self._passphrase, purpose)

    def create(self, purpose: str) -> bytes:
        drawn = os.urandom(32)
        try:
            write_private(self._path(purpose), secret.seal(drawn, self._passphrase, purpose))
            durable.sync(self._directory)  # else a power cut could take the key under which records were made
        except OSError:
            raise KeyUnavailable(f"The {purpose} exists already, or its folder cannot be written.") from None
        return drawn

    def has(self, purpose: str) -> bool:
        return self._path(purpose).exists()

    def replace(self, purpose: str, left: bytes) -> None:
        path, new, old = self._names(purpose)
        try:
            self._forget_leftovers(purpose)
            write_private(new, secret.seal(left, self._passphrase, purpose))
            old.hardlink_to(path)  # a file without a name could not be overwritten after a crash
            durable.sync(self._directory)
            new.replace(path)
            durable.sync(self._directory)
            _forget(old)
        except OSError:
            with suppress(OSError):
                self._forget_leftovers(purpose)
            raise KeyUnavailable(f"The {purpose} cannot be written.") from None

    def erase(self, purpose: str) -> None:
        try:
            self._forget_leftovers(purpose)  # first: as long as the secret is there, whoever was interrupted tries again
            _forget(self._path(purpose))
        except OSError:
            raise KeyUnavailable(f"The {purpose} cannot be erased.") from None

    def settle(self, purpose: str) -> None:
        try:
            self._forget_leftovers(purpose)
        except OSError:
            raise KeyUnavailable(f"What a crash left of the {purpose} cannot be erased.") from None

    def _forget_leftovers(self, purpose: str) -> None:
        path, new, old = self._names(purpose)
        if new.exists():
            _forget(new)
        if old.exists() and path.exists() and old.samefile(path):
            old.unlink()  # nothing had taken its place yet: this is the secret itself
        elif old.exists():
            _forget(old)

    def _names(self, purpose: str) -> tuple[Path, Path, Path]:
        """A secret's file, what is to take its place, and what it was."""
        path = self._path(purpose)
        return path, path.with_name(f"{path.name}.new"), path.with_name(f"{path.name}.old")

    def _path(self, purpose: str) -> Path:
        return self._directory / f"{purpose.replace(' ', '-')}.key"


def pseudonym_key(epoch: int) -> str:
    """The purpose of an epoch's key."""
    return PSEUDONYM_KEY if epoch == 1 else f"{PSEUDONYM_KEY} {epoch}"


def newest_epoch(keys: KeyProvider) -> int:
    """The epoch whose key is in use. Raises KeyUnavailable where there is none."""
    for epoch in range(EPOCHS_MAX, 0, -1):
        if keys.has(pseudonym_key(epoch)):
            return epoch
    raise KeyUnavailable(f"The {PSEUDONYM_KEY} is not in the site's keys folder.")


def read_passphrase(path: Path, *, is_credential: bool = False) -> bytes:
    """The passphrase of a file: its first line. Who may read a credential is systemd's to say; of a file we ask it here.

    Raises:
        ConfigError: it cannot be read, is too short, or others than its owner can read it.
    """
    try:
        if not is_credential and path.stat().st_mode & 0o077:
            raise ConfigError("the passphrase file can be read by others than its owner; chmod 600 it")
        passphrase = path.read_bytes().partition(b"\n")[0]
    except OSError:
        what = "credential that holds the passphrase" if is_credential else "passphrase file"
        raise ConfigError(f"the {what} cannot be read") from None
    if len(passphrase) < PASSPHRASE_BYTES_MIN:
        raise ConfigError(f"the passphrase is shorter than {PASSPHRASE_BYTES_MIN} bytes")
    return passphrase


def write_private(path: Path, data: bytes) -> None:
    """A new file that only its owner can read. Raises FileExistsError rather than overwrite."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _forget(path: Path) -> None:
    """Overwrites a file, then takes its name away: where the disk writes in place, nothing of it is left. Raises OSError."""
    with path.open("r+b") as file:
        file.write(bytes(os.fstat(file.fileno()).st_size))
        file.flush()
        os.fsync(file.fileno())
    path.unlink()
    durable.sync(path.parent)
