"""The site directory: which keys are trusted, which bundles are installed, and which of them is active.

::

    trust/exporter/*.pem   trust/licensing/*.pem
    models/chest/3/model.bundle   models/chest/3/model.grant
    models/active.json     {"chest":3}
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from appliance import canonical
from appliance.bundle.opening import TrustedKeys
from appliance.bundle.signature import KeyRing, key_ring
from appliance.errors import ConfigError, MalformedBundle


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


class Site:
    """What lies in a site directory. Every change is a whole file put in place by a rename."""

    def __init__(self, root: Path) -> None:
        self._models, self._trust = root / "models", root / "trust"

    def trusted(self) -> TrustedKeys:
        """The keys this site trusts. Raises ConfigError where one cannot be read."""
        return TrustedKeys(_ring(self._trust / "exporter"), _ring(self._trust / "licensing"))

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
        raise ConfigError(f"version {version} of {name} is not installed")

    def active(self) -> dict[str, int]:
        """The active version of each model."""
        try:
            active = canonical.decode((self._models / "active.json").read_bytes())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError):
            raise ConfigError("models/active.json cannot be read") from None
        if not isinstance(active, dict) or not all(isinstance(version, int) for version in active.values()):
            raise ConfigError("models/active.json is not a table of versions")
        return active

    def install(self, name: str, version: int, bundle: bytes, grant: bytes) -> Installed:
        """Puts the files in place. A bundle that is there already must be the same; a grant may be a newer one."""
        installed = Installed(name, version, self._models / name / str(version))
        if installed.bundle.exists() and installed.bundle.read_bytes() != bundle:
            raise MalformedBundle("Another bundle of this model and version is installed already.")
        installed.folder.mkdir(parents=True, exist_ok=True)
        _replace(installed.bundle, bundle)
        _replace(installed.grant, grant)
        return installed

    def activate(self, name: str, version: int) -> None:
        """Makes a version the one that serves from the next start on."""
        _replace(self._models / "active.json", canonical.encode(self.active() | {self.find(name, version).name: version}))


def _ring(folder: Path) -> KeyRing:
    keys = []
    for path in sorted(folder.glob("*.pem")):
        try:
            key = load_pem_public_key(path.read_bytes())
        except (OSError, ValueError, UnsupportedAlgorithm):
            raise ConfigError(f"the trusted key {path.name} cannot be read") from None
        if not isinstance(key, Ed25519PublicKey):
            raise ConfigError(f"the trusted key {path.name} is not an Ed25519 key")
        keys.append(key)
    return key_ring(keys)


def _replace(path: Path, data: bytes) -> None:
    """Writes a file whole or not at all."""
    temporary = path.with_suffix(".new")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
