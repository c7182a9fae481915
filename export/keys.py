"""The vendor's two keys: one signs bundles (exporter), one signs grants (licensing). One key, one purpose.

``NAME.key`` is the private Ed25519 key (32 bytes) sealed by a passphrase (bundle-format section 9); ``NAME.pem`` is the
public one, for the sites' ``trust/`` directories.
"""

from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from appliance.bundle import secret, signature
from appliance.errors import ConfigError
from export import files

EXPORTER, LICENSING = "exporter", "licensing"


def purpose(name: str) -> str:
    return f"{name} signing key"


def content_purpose(digest: str) -> str:
    """The purpose of the sealed content key of one bundle."""
    return f"content key {digest}"


def generate(folder: Path, passphrase: bytes) -> dict[str, str]:
    """Makes both key pairs; returns the key ids by name.

    Raises:
        ConfigError: one of the files is already there.
    """
    made: dict[Path, tuple[bytes, bool]] = {}
    ids = {}
    for name in (EXPORTER, LICENSING):
        key = Ed25519PrivateKey.generate()
        public = key.public_key()
        ids[name] = signature.key_id(public)
        made[folder / f"{name}.key"] = secret.seal(key.private_bytes_raw(), passphrase, purpose(name)), True
        made[folder / f"{name}.pem"] = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo), False
    folder.mkdir(parents=True, exist_ok=True)
    files.write_new(made)
    return ids


def private(path: Path, passphrase: bytes, name: str) -> Ed25519PrivateKey:
    """Raises KeyUnavailable: not that key, altered, or another passphrase."""
    return Ed25519PrivateKey.from_private_bytes(secret.unseal(path.read_bytes(), passphrase, purpose(name)))


def public(path: Path) -> Ed25519PublicKey:
    """Raises ConfigError: not an Ed25519 public key in PEM."""
    try:
        key = load_pem_public_key(path.read_bytes())
    except ValueError:
        key = None
    if not isinstance(key, Ed25519PublicKey):
        raise ConfigError(f"{path.name} is not an Ed25519 public key in PEM")
    return key
