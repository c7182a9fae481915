"""What a trust repository's folder says, verified as a site would: from its first root, whatever its dates.

The folder is anybody's: before something is said anew, ``export.trust`` asks here what is said. What only a memory would
show, a whole folder put back to an older copy, sites refuse. A repository is a folder::

    metadata/1.root.json … N.snapshot.json  N.targets.json  timestamp.json      targets/<sha256>.policy.json
    root.pending                    the next root, while it waits for signatures of other root keys; no appliance looks at it
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Root, Snapshot, Targets, Timestamp

from appliance.bundle import policy as policies
from appliance.bundle.policy import FILE_NAME, ROOT_DESKS, ROOT_FINGERPRINT_GROUPS, Policy, decode_desks
from appliance.bundle.signature import KeyRing
from appliance.canonical import fingerprint
from appliance.errors import ConfigError, UntrustedSignature

T = TypeVar("T", Root, Timestamp, Snapshot, Targets)
_TAMPERED = "The trust repository in this folder is not what its keys have signed; bring back a copy that is."


@dataclass(frozen=True, slots=True)
class Online:
    """The three roles that release keys sign; of a new repository, before their first version."""

    targets: Metadata[Targets] = field(default_factory=lambda: Metadata(Targets()))
    snapshot: Metadata[Snapshot] = field(default_factory=lambda: Metadata(Snapshot()))
    timestamp: Metadata[Timestamp] = field(default_factory=lambda: Metadata(Timestamp()))


class Folder:
    """Where the files of a repository are, and what those there say."""

    def __init__(self, path: Path) -> None:
        self.metadata, self.targets, self.pending = path / "metadata", path / "targets", path / "root.pending"

    @property
    def root_version(self) -> int:
        """The newest root that has all its signatures; 0 where there is none yet."""
        return next(number for number in count() if not (self.metadata / f"{number + 1}.root.json").exists())

    @property
    def root_fingerprint(self) -> str:
        """What is read to a new site over the telephone. Raises ConfigError where there is none yet."""
        self.roots()
        return fingerprint((self.metadata / "1.root.json").read_bytes(), ROOT_FINGERPRINT_GROUPS)

    def pending_root(self) -> Metadata[Root]:
        """The root that waits for signatures, as it lies there. Raises ConfigError."""
        if not self.pending.exists():
            raise ConfigError("no root is waiting for signatures")
        return _read(Root, self.pending)[0]

    def roots(self) -> list[Root]:
        """Every root, each signed as the one before it and it itself demand. Raises ConfigError, UntrustedSignature."""
        roots: list[Root] = []
        for number in range(1, self.root_version + 1):
            root, _ = _read(Root, self.metadata / f"{number}.root.json")
            if root.signed.version != number:
                raise UntrustedSignature(_TAMPERED)
            for by in (*roots[-1:], root.signed):
                _verify(by, root)
            roots.append(root.signed)
        if not roots:
            raise ConfigError("there is no trust repository in this folder, or its root lacks signatures")
        return roots

    def newest_root(self) -> Root:
        """The root that counts. Raises ConfigError, UntrustedSignature."""
        return self.roots()[-1]

    def online(self, roots: Sequence[Root] | None = None) -> Online:
        """The three roles, as the release keys of the newest root have signed them; or, until somebody publishes under
        that one, those of an earlier root. Raises ConfigError, UntrustedSignature.
        """
        roots = roots or self.roots()
        timestamp, _ = _read(Timestamp, self.metadata / "timestamp.json")
        about = timestamp.signed.snapshot_meta
        snapshot, snapshot_bytes = _read(Snapshot, self.metadata / f"{about.version}.snapshot.json")
        meta = snapshot.signed.meta.get("targets.json")
        if meta is None:
            raise UntrustedSignature(_TAMPERED)
        targets, targets_bytes = _read(Targets, self.metadata / f"{meta.version}.targets.json")
        made = Online(targets, snapshot, timestamp)
        for root in reversed(roots):
            try:
                for role in (timestamp, snapshot, targets):
                    _verify(root, role)
                about.verify_length_and_hashes(snapshot_bytes)
                meta.verify_length_and_hashes(targets_bytes)
            except (UntrustedSignature, RepositoryError):
                continue
            if (about.version, meta.version) == (snapshot.signed.version, targets.signed.version):
                return made
        raise UntrustedSignature(_TAMPERED)

    def said(self, online: Online) -> Policy:
        """The policy that the targets role vouches for. Raises ConfigError, UntrustedSignature, MalformedBundle."""
        try:
            target = online.targets.signed.targets[FILE_NAME]
            data = (self.targets / f"{target.hashes['sha256']}.{FILE_NAME}").read_bytes()
            target.verify_length_and_hashes(data)
        except OSError:
            raise ConfigError("there is no whole trust repository in this folder: its policy is missing") from None
        except (KeyError, RepositoryError):
            raise UntrustedSignature(_TAMPERED) from None
        return policies.decode(data)

    def write(self, files: Mapping[Path, bytes]) -> None:
        """Writes files in their order, the timestamp last, and takes away those that nobody names any more."""
        for folder in (self.metadata, self.targets):
            folder.mkdir(parents=True, exist_ok=True)
        for path, data in files.items():
            replace_file(path, data)
        for folder, pattern in (
            (self.targets, "*.json"),
            (self.metadata, "*.targets.json"),
            (self.metadata, "*.snapshot.json"),
        ):
            for path in folder.glob(pattern):
                if path not in files:
                    path.unlink()


def replace_file(path: Path, data: bytes) -> None:
    """Writes a file whole or not at all."""
    part = path.with_name(f".{path.name}.part")
    part.write_bytes(data)
    part.replace(path)


def desks(root: Root) -> tuple[KeyRing, KeyRing]:
    """The exporter's keys and the licensing desk's, as a root says. Raises MalformedBundle where it says none."""
    return decode_desks(root.unrecognized_fields.get(ROOT_DESKS))


def _read(kind: type[T], path: Path) -> "tuple[Metadata[T], bytes]":
    """A role's file, not verified, and its bytes. Raises ConfigError."""
    data, found = b"", None
    with suppress(OSError, RepositoryError):
        data = path.read_bytes()
        found = Metadata[T].from_bytes(data)
    if found is None or not isinstance(found.signed, kind):
        raise ConfigError(f"there is no whole trust repository in this folder: {path.name}")
    return found, data


def _verify(by: Root, role: Metadata[Any]) -> None:
    """Raises UntrustedSignature where a role is not signed by enough of the keys that a root names for it."""
    try:
        by.verify_delegate(role.signed.type, role.signed_bytes, role.signatures)
    except (RepositoryError, ValueError):
        raise UntrustedSignature(_TAMPERED) from None
