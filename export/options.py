"""Options and reading that several commands of the vendor's desk share."""

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import click

from appliance.bundle import opening, signature
from appliance.bundle.opening import Genuine
from appliance.bundle.policy import Policy
from appliance.bundle.signature import SigningKey, VerifyingKey
from appliance.errors import ConfigError
from export import keys

F = TypeVar("F", bound=Callable[..., Any])

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
NEW = click.Path(dir_okay=False, path_type=Path)


def pems(*names: str, help: str, required: bool = False) -> Callable[[F], F]:
    """Public keys, as files."""
    return click.option(*names, type=FILE, multiple=True, required=required, help=help)


exporters = pems("--exporter", help="exporter.pem: one of these must have signed the bundle.", required=True)


def key_option(roles: str) -> Callable[[F], F]:
    """The private keys to sign with."""
    return click.option(
        "--key", "signing_keys", multiple=True, required=True, metavar="FILE|URI",
        help=f"A private key of the {roles} role, or the pkcs11: URI of one in a token. May be given several times.",
    )  # fmt: skip


def passphrase_files(*, required: bool) -> Callable[[F], F]:
    """The passphrases of those keys that are files; each key is opened by the one that fits."""
    return click.option(
        "--passphrase-file", "passphrase_files", type=FILE, multiple=True, required=required,
        help="A file whose first line opens (or will open) private keys. May be given several times.",
    )  # fmt: skip


def passphrases(paths: Sequence[Path]) -> list[bytes]:
    """Each file's first line, without its end. Raises ConfigError."""
    lines = [path.read_bytes().partition(b"\n")[0] for path in paths]
    if not all(lines):
        raise ConfigError("the passphrase file's first line is empty")
    return lines


def signers(specs: Iterable[str], words: Sequence[bytes], *roles: str) -> list[SigningKey]:
    """The keys that ``--key`` names, each good for one of these roles. Raises ConfigError, KeyUnavailable."""
    return [keys.private(spec, words, roles) for spec in specs]


def public(paths: Iterable[Path]) -> list[VerifyingKey]:
    """The keys of .pem files. Raises ConfigError."""
    return [keys.public(path) for path in paths]


def desk_policy(exporter: Iterable[VerifyingKey]) -> Policy:
    """What the desk itself goes by: exporter keys, and nothing published."""
    return Policy("desk", signature.key_ring(exporter), signature.key_ring([]), {}, {})


def genuine(bundle: Path, policy: Policy) -> Genuine:
    """A bundle that is signed as this policy says, and whole. Raises BundleError."""
    found = opening.parse(bundle.read_bytes()).verify([policy])
    found.check_parts()
    return found


def utc_now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)
