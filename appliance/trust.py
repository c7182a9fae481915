"""How a vendor's word reaches a site: a repository of The Update Framework, on a medium (bundle-format section 11).

python-tuf does the work that the word "trust" stands for: thresholds, root rotation, expiry, and files that belong
together. It works in a folder that is thrown away: where it begins, and what it may not go behind, is what the site
remembers of the vendor (``state.VendorState``). This module hands it the medium's files, asks for the one target, the
policy, and says in our own words what it refused. The only importer of tuf; nothing is ever fetched from anywhere.
"""

import hashlib
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO

from tuf.api import exceptions as tuf_errors
from tuf.api.metadata import Metadata, Root, Snapshot, Targets, Timestamp
from tuf.ngclient import FetcherInterface, Updater

from appliance import canonical
from appliance.bundle import policy
from appliance.bundle.policy import Policy
from appliance.errors import ApplianceError, CorruptPayload, MalformedBundle, NotAdmitted, RolledBack, UntrustedSignature
from appliance.state import VendorState

FIRST_ROOT = "metadata/1.root.json"
FILES_MAX = 1_000
FILE_BYTES_MAX = 5_000_000
KEYS_MAX = 64
_KEY_ID = re.compile(r"[0-9a-f]{64}")

_REFUSALS: tuple[tuple[type[Exception], type[ApplianceError], str], ...] = (
    (tuf_errors.UnsignedMetadataError, UntrustedSignature, "The trust repository is not signed by enough of its keys."),
    (tuf_errors.BadVersionNumberError, RolledBack, "The trust repository is older than one that this site has seen."),
    (tuf_errors.ExpiredMetadataError, NotAdmitted, "The trust repository has expired; ask the vendor for a newer one."),
    (tuf_errors.LengthOrHashMismatchError, CorruptPayload, "A file of the trust repository is not what was signed."),
    (tuf_errors.DownloadLengthMismatchError, MalformedBundle, "A file of the trust repository is too long."),
    (tuf_errors.DownloadError, MalformedBundle, "A file of the trust repository is missing."),
    (tuf_errors.RepositoryError, MalformedBundle, "The trust repository is not valid."),
)


@dataclass(frozen=True, slots=True)
class Refreshed:
    """A repository that was verified, and the policy it vouches for, with that policy's exact bytes."""

    vendor: VendorState
    policy: Policy
    policy_bytes: bytes


def read_medium(folder: Path) -> dict[str, bytes]:
    """The files of a repository in a directory, by their names in it.

    Raises:
        MalformedBundle: there is no repository, or it has a file that none would have.
        OSError
    """
    paths = [path for kind in ("metadata", "targets") for path in sorted((folder / kind).glob("*.json"))]
    if not (folder / FIRST_ROOT).is_file():
        raise MalformedBundle("There is no trust repository in this directory.")
    if len(paths) > FILES_MAX or any(not path.is_file() or path.stat().st_size > FILE_BYTES_MAX for path in paths):
        raise MalformedBundle("The trust repository has too many files, or one that is too long.")
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def root_of(medium: Mapping[str, bytes]) -> bytes:
    """The root that everything in a repository follows from. Raises MalformedBundle."""
    if FIRST_ROOT not in medium:
        raise MalformedBundle("The trust repository lacks its first root.")
    return medium[FIRST_ROOT]


def root_digest(root: bytes) -> str:
    return hashlib.sha256(root).hexdigest()


def root_fingerprint(root: bytes) -> str:
    """What a person reads to the vendor."""
    return canonical.fingerprint(root, policy.ROOT_FINGERPRINT_GROUPS)


def refresh(folder: Path, medium: Mapping[str, bytes], known: VendorState | None) -> Refreshed:
    """Verifies a repository, from the root that the site knows. Blocks; uses ``folder`` for a while.

    ``known`` is what the site remembers of this vendor; where it is None, the caller has made sure of the first root.

    Raises:
        UntrustedSignature, RolledBack, NotAdmitted, CorruptPayload, MalformedBundle
        OSError: the folder cannot be written.
    """
    root = _known_root(medium, known)
    try:
        with TemporaryDirectory(prefix="tuf-", dir=folder) as place:
            updater = Updater(place, "metadata/", place, "targets/", fetcher=_Medium(medium), bootstrap=root)
            updater.refresh()
            found = _Verified.read(Path(place))
            target = updater.get_targetinfo(policy.FILE_NAME)
            if target is None or target.length > policy.FILE_BYTES_MAX:
                raise MalformedBundle("The trust repository has no policy of a sensible length.")
            said = Path(updater.download_target(target)).read_bytes()
        vendor = found.vendor(root_digest(root_of(medium)), hashlib.sha256(said).hexdigest())
        if known is not None:
            vendor.require_not_older_than(known, anew=set(known.release.split()).isdisjoint(found.release))
        refreshed = Refreshed(vendor, policy.decode(said), said)
        refreshed.policy.require_within(*policy.decode_desks(found.root.signed.unrecognized_fields.get(policy.ROOT_DESKS)))
        return refreshed
    except (ApplianceError, OSError):
        raise
    except (tuf_errors.RepositoryError, tuf_errors.DownloadError) as error:
        kind, sentence = next((kind, sentence) for cause, kind, sentence in _REFUSALS if isinstance(error, cause))
        raise kind(sentence) from error
    except Exception as error:  # of a file that was signed and is not as TUF has it, python-tuf lets out what it meets
        raise MalformedBundle("The trust repository is not valid.") from error


def _known_root(medium: Mapping[str, bytes], known: VendorState | None) -> bytes:
    """The root that the site has seen last, as the medium has it: what root keys of older ones sign counts no more."""
    if known is None:
        return root_of(medium)
    root = medium.get(f"metadata/{known.root}.root.json")
    if root is None:
        raise RolledBack("The trust repository is older than one that this site has seen.")
    if root_digest(root) != known.root_sha256:
        raise UntrustedSignature("The trust repository has another root than the one that this site has seen.")
    return root


@dataclass(frozen=True, slots=True)
class _Verified:
    """What python-tuf has just verified, and written."""

    root: Metadata[Root]
    root_bytes: bytes
    timestamp: Metadata[Timestamp]
    snapshot: Metadata[Snapshot]
    targets: Metadata[Targets]

    @classmethod
    def read(cls, folder: Path) -> "_Verified":
        """Raises MalformedBundle where it is more than section 11 allows, though TUF would."""
        root_bytes, *rest = [(folder / f"{role}.json").read_bytes() for role in ("root", "timestamp", "snapshot", "targets")]
        root, timestamp, snapshot, targets = (
            Metadata[Root].from_bytes(root_bytes),
            Metadata[Timestamp].from_bytes(rest[0]),
            Metadata[Snapshot].from_bytes(rest[1]),
            Metadata[Targets].from_bytes(rest[2]),
        )
        if targets.signed.delegations is not None or not root.signed.consistent_snapshot:
            raise MalformedBundle("The trust repository delegates, or has no consistent snapshots.")
        keyids = {keyid for role in root.signed.roles.values() for keyid in role.keyids}
        if len(keyids) > KEYS_MAX:
            raise MalformedBundle(f"The trust repository has more than {KEYS_MAX} keys.")
        if not all(_KEY_ID.fullmatch(keyid) for keyid in keyids):  # TUF lets them be any text, and they go on record
            raise MalformedBundle("A key of the trust repository has an id that is not 64 hex digits.")
        if max(part.signed.version for part in (root, timestamp, snapshot, targets)) > canonical.INTEGER_MAX:
            raise MalformedBundle("A version of the trust repository is over 53 bits.")
        return cls(root, root_bytes, timestamp, snapshot, targets)

    @property
    def release(self) -> list[str]:
        """The ids of the keys that say which files are the newest."""
        return sorted({keyid for role in ("timestamp", "snapshot") for keyid in self.root.signed.roles[role].keyids})

    def vendor(self, first_root_sha256: str, policy_sha256: str) -> VendorState:
        return VendorState(
            first_root_sha256=first_root_sha256,
            root=self.root.signed.version,
            root_sha256=root_digest(self.root_bytes),
            timestamp=self.timestamp.signed.version,
            snapshot=self.snapshot.signed.version,
            targets=self.targets.signed.version,
            release=" ".join(self.release),
            policy=policy_sha256,
            expires=min(part.signed.expires for part in (self.root, self.timestamp, self.snapshot, self.targets)),
        )


class _Medium(FetcherInterface):
    """Hands out the files of a medium, from memory. Its "URLs" are their names."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self._files = files

    def _fetch(self, url: str) -> Iterator[bytes]:
        if url not in self._files:
            raise tuf_errors.DownloadHTTPError("no such file", 404)
        yield self._files[url]

    @contextmanager
    def download_file(self, url: str, max_length: int) -> Iterator[IO[bytes]]:
        """As in the base class, which would put the file in the machine's folder for temporary files."""
        data = b"".join(self._fetch(url))
        if len(data) > max_length:
            raise tuf_errors.DownloadLengthMismatchError("longer than allowed")
        yield BytesIO(data)
