"""The vendor's signing keys. One key, one purpose, and in the best case one person:

- ``exporter``   signs bundles
- ``licensing``  signs grants
- ``release``    signs what the trust repository says today
- ``root``       signs which of these keys count; kept offline, several of them

``ROLE.key`` is a private key's 32-byte seed sealed by a passphrase (bundle-format section 9), ``ROLE.pem`` the public key.
Where this module takes a key, it takes a file or the RFC 7512 URI of a key in a PKCS#11 token (``token.py``).
"""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from appliance import canonical
from appliance.bundle import secret, signature
from appliance.bundle.signature import ED25519, ML_DSA_65, SigningKey, VerifyingKey
from appliance.errors import ConfigError, KeyUnavailable
from export import files, token

EXPORTER, LICENSING, RELEASE, ROOT = ROLES = ("exporter", "licensing", "release", "root")
BUNDLE_ROLES, TRUST_ROLES = (EXPORTER, LICENSING), (RELEASE, ROOT)


def purpose(role: str, algorithm: str = ED25519) -> str:
    return f"{role} signing key" if algorithm == ED25519 else f"{role} signing key {algorithm}"


def content_purpose(digest: str) -> str:
    """The purpose of the sealed content key of one bundle."""
    return f"content key {digest}"


def generate(folder: Path, roles: Sequence[str], passphrase: bytes, algorithm: str = ED25519) -> dict[str, str]:
    """Makes a key pair for each role, as files; returns the key ids by name.

    Raises:
        ConfigError: one of the files is already there.
    """
    made: dict[Path, tuple[bytes, bool]] = {}
    ids = {}
    for role in roles:
        key = Ed25519PrivateKey.generate() if algorithm == ED25519 else MLDSA65PrivateKey.generate()
        name = role if algorithm == ED25519 else f"{role}-{algorithm}"
        ids[name] = signature.key_id(key.public_key())
        made[folder / f"{name}.key"] = secret.seal(key.private_bytes_raw(), passphrase, purpose(role, algorithm)), True
        made[folder / f"{name}.pem"] = _pem(key.public_key()), False
    folder.mkdir(parents=True, exist_ok=True)
    files.write_new(made)
    return ids


def generate_in_token(folder: Path, roles: Sequence[str], uri: str) -> dict[str, str]:
    """Makes an Ed25519 key pair for each role inside a token; only the public halves become files.

    Raises:
        ConfigError: a file is already there, or the URI cannot be used.
        KeyUnavailable: the token has a key of this name, or refuses.
    """
    files.require_absent(*(folder / f"{role}.pem" for role in roles))
    public = {role: token.generate(uri, role) for role in roles}
    folder.mkdir(parents=True, exist_ok=True)
    files.write_new({folder / f"{role}.pem": (_pem(key), False) for role, key in public.items()})
    return {role: signature.key_id(key) for role, key in public.items()}


def private(key: str, passphrases: Sequence[bytes], roles: Sequence[str]) -> SigningKey:
    """A key that is good for one of these roles: of a file, with the passphrase that fits, or in a token.

    Raises:
        KeyUnavailable: not such a key, altered, or none of the passphrases fits.
        ConfigError: there is no such file, or the URI cannot be used.
    """
    if key.startswith(token.SCHEME):
        return token.TokenKey(key)
    try:
        data = Path(key).read_bytes()
    except OSError:
        raise ConfigError(f"there is no key file {key}") from None
    said = _said_purpose(data)
    for role in roles:
        for algorithm in (ED25519, ML_DSA_65):
            if said == purpose(role, algorithm):
                seed = unseal(data, passphrases, said)
                kind = Ed25519PrivateKey.from_private_bytes if algorithm == ED25519 else MLDSA65PrivateKey.from_seed_bytes
                return kind(seed)
    raise KeyUnavailable(f"{Path(key).name} is not a signing key of the {' or '.join(roles)} role.")


def public(path: Path) -> VerifyingKey:
    """Raises ConfigError: not the public half of a signing key, in PEM."""
    try:
        key = load_pem_public_key(path.read_bytes())
    except ValueError:
        key = None
    if not isinstance(key, VerifyingKey):
        raise ConfigError(f"{path.name} is not an Ed25519 or ML-DSA-65 public key in PEM")
    return key


def _said_purpose(data: bytes) -> str:
    """What a sealed file says it is, which unsealing it then proves."""
    try:
        return str(canonical.decode(data)["purpose"])
    except (ValueError, KeyError, TypeError):
        return ""


def unseal(data: bytes, passphrases: Sequence[bytes], purpose: str) -> bytes:
    """The secret of a sealed file, by the passphrase that fits. Raises KeyUnavailable."""
    for passphrase in passphrases:
        with suppress(KeyUnavailable):
            return secret.unseal(data, passphrase, purpose)
    why = "another passphrase, or a damaged file" if passphrases else "no --passphrase-file was given"
    raise KeyUnavailable(f"The {purpose} cannot be opened: {why}.")


def _pem(key: VerifyingKey) -> bytes:
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
