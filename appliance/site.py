"""The site directory: what is installed, what the vendors say, and what the site remembers.

::

    state.json                                   what it remembers (appliance/state.py)
    trust/acme/1c77…e0.policy.json               the policy of a vendor, named by its digest
    models/chest/3/model.bundle  model.grant
    incoming/                                    what is on its way in
"""

import hashlib
import re
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from appliance import durable, state
from appliance.bundle import policy
from appliance.bundle.container import HEAD_BYTES_MAX
from appliance.bundle.manifest import MODEL_ID
from appliance.bundle.policy import Policy
from appliance.errors import ConfigError, NotAdmitted, StateError
from appliance.state import State, VendorState

RESERVE_BYTES = 64 << 20  # of the disk, that no bundle on its way in may take from the audit log


@dataclass(frozen=True, slots=True)
class Installed:
    """One version of one model, as files."""

    name: str
    version: int
    folder: Path

    @property
    def bundle(self) -> Path:
        return self.folder / "model.bundle"

    @property
    def grant(self) -> Path:
        return self.folder / "model.grant"

    def head(self) -> bytes:
        """As much of the bundle as its envelope can take. Raises NotAdmitted where it cannot be read."""
        try:
            with self.bundle.open("rb") as file:
                return file.read(HEAD_BYTES_MAX)
        except OSError:
            raise NotAdmitted("The installed bundle cannot be read.") from None

    def read(self) -> bytes:
        """The whole bundle. Raises NotAdmitted where it cannot be read."""
        try:
            return self.bundle.read_bytes()
        except OSError:
            raise NotAdmitted("The installed bundle cannot be read.") from None

    def permit(self) -> bytes:
        """Its grant. Raises NotAdmitted where it cannot be read."""
        try:
            return self.grant.read_bytes()
        except OSError:
            raise NotAdmitted("The installed bundle's grant cannot be read.") from None


class Site:
    """What lies in a site directory. Every change is a whole file put in place by a rename."""

    def __init__(self, root: Path) -> None:
        self._models, self._trust, self._incoming = root / "models", root / "trust", root / "incoming"
        self._state = root / "state.json"

    # --- models ------------------------------------------------------------------------------------------------------

    def installed(self) -> Iterator[Installed]:
        """Every installed version, by name and version."""
        found = [path for path in self._models.glob("*/*/model.bundle") if path.parts[-2].isdecimal()]
        for bundle in sorted(found, key=lambda p: (p.parts[-3], int(p.parts[-2]))):
            yield Installed(bundle.parts[-3], int(bundle.parts[-2]), bundle.parent)

    def find(self, name: str, version: int) -> Installed:
        """Raises ConfigError where it is not installed."""
        for installed in self.installed():
            if (installed.name, installed.version) == (name, version):
                return installed
        raise ConfigError(f"version {version} of {repeated(name)} is not installed")

    @property
    def incoming(self) -> Path:
        """Where a bundle is put until it has been verified; on the same file system as where it will stay."""
        self._incoming.mkdir(mode=0o700, parents=True, exist_ok=True)
        return self._incoming

    def empty_incoming(self) -> Path:
        """The same, without what a crash has left there."""
        shutil.rmtree(self._incoming, ignore_errors=True)
        return self.incoming

    def install(self, name: str, version: int, bundle: Path, grant: bytes) -> Installed:
        """Moves a verified bundle out of ``incoming`` into its place."""
        installed = Installed(name, version, self._models / name / str(version))
        installed.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        durable.sync(bundle)
        bundle.replace(installed.bundle)
        self.renew(installed, grant)
        return installed

    def renew(self, installed: Installed, grant: bytes) -> None:
        """Puts a newer grant beside an installed bundle."""
        durable.replace(installed.grant, grant)

    def remove(self, installed: Installed) -> None:
        """Deletes the files of a version."""
        shutil.rmtree(installed.folder)

    # --- trust -------------------------------------------------------------------------------------------------------

    def write_policy(self, name: str, vendor: VendorState, data: bytes) -> None:
        """Keeps a policy. The one before stays until ``drop_old_policies``: what the site remembers still names it."""
        path = self._policy_path(name, vendor)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        durable.replace(path, data)

    def drop_old_policies(self, name: str, vendor: VendorState) -> None:
        """Deletes every policy of a vendor but the one it names; one that cannot be deleted does no harm."""
        kept = self._policy_path(name, vendor)
        for path in kept.parent.iterdir():
            if path != kept:
                with suppress(OSError):
                    path.unlink()

    def policy(self, remembered: State, name: str) -> Policy:
        """What a vendor says. Raises StateError where that is not what was verified."""
        vendor = remembered.vendors[name]
        try:
            data = self._policy_path(name, vendor).read_bytes()
        except OSError:
            data = b""
        if hashlib.sha256(data).hexdigest() != vendor.policy:
            raise StateError(f"The trust policy of {name} is missing or was altered; bring its repository again.")
        return _decoded(data)

    def policies(self, remembered: State) -> tuple[Policy, ...]:
        """What every vendor says. Raises StateError."""
        return tuple(self.policy(remembered, name) for name in remembered.vendors)

    def _policy_path(self, name: str, vendor: VendorState) -> Path:
        return self._trust / name / f"{vendor.policy}.policy.json"

    # --- memory ------------------------------------------------------------------------------------------------------

    def remembered(self, seed: bytes) -> State:
        """What the site remembers. Raises StateError where that is missing or was altered."""
        try:
            return state.decode(self._state.read_bytes(), seed)
        except OSError:
            raise StateError("What this site remembers (state.json) is missing.") from None

    def remember(self, new: State, seed: bytes) -> None:
        durable.replace(self._state, state.encode(new, seed))


@lru_cache(maxsize=8)
def _decoded(data: bytes) -> Policy:
    """Kept, since one with thousands of bundles takes longer to decode than a call may wait."""
    return policy.decode(data)


def repeated(name: str) -> str:
    """A model's name as a message may repeat it: what cannot be one may be any text."""
    return name if re.fullmatch(MODEL_ID, name) else "such a model"
