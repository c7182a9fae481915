"""Secrets at rest under a passphrase: Argon2id and AES-256-GCM (bundle-format section 9).

The purpose is bound to the ciphertext, so a file that was renamed to stand in for another key does not open.
"""

import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from appliance import canonical
from appliance.bundle.signature import decode_base64, encode_base64
from appliance.errors import KeyUnavailable
from appliance.fields import Fields

MEMORY_KIB, MEMORY_KIB_MAX = 64 * 1024, 1024 * 1024
ITERATIONS, ITERATIONS_MAX = 3, 10
LANES, LANES_MAX = 4, 16
SECRET_BYTES_MAX = 16 << 20  # an epoch in which some thousand calls were erased


def seal(secret: bytes, passphrase: bytes, purpose: str) -> bytes:
    """The bytes of a sealed secret."""
    salt, nonce = os.urandom(16), os.urandom(12)
    key = _stretch(passphrase, salt, MEMORY_KIB, ITERATIONS, LANES)
    return canonical.encode(
        {
            "kdf": "argon2id",
            "memory_kib": MEMORY_KIB,
            "iterations": ITERATIONS,
            "lanes": LANES,
            "salt": encode_base64(salt),
            "nonce": encode_base64(nonce),
            "purpose": purpose,
            "sealed": encode_base64(AESGCM(key).encrypt(nonce, secret, purpose.encode())),
        }
    )


def unseal(data: bytes, passphrase: bytes, purpose: str) -> bytes:
    """The secret.

    Raises:
        KeyUnavailable: not a sealed secret of this purpose, altered, or another passphrase.
    """
    try:
        if len(data) > 2 * SECRET_BYTES_MAX:
            raise ValueError("too long")
        fields = Fields(canonical.decode(data))
        fields.choice("kdf", ("argon2id",))
        fields.choice("purpose", (purpose,))
        memory = fields.integer("memory_kib", 8 * LANES_MAX, MEMORY_KIB_MAX)
        iterations = fields.integer("iterations", 1, ITERATIONS_MAX)
        lanes = fields.integer("lanes", 1, LANES_MAX)
        salt, nonce = decode_base64(fields.text("salt")), decode_base64(fields.text("nonce"))
        sealed = decode_base64(fields.text("sealed", pattern=r"[A-Za-z0-9+/]+=*"))
        fields.close()
        if fields.problems:
            raise ValueError(fields.problems[0])
        key = _stretch(passphrase, salt, memory, iterations, lanes)
        return AESGCM(key).decrypt(nonce, sealed, purpose.encode())
    except (ValueError, InvalidTag) as error:
        raise KeyUnavailable(f"The {purpose} cannot be opened: another passphrase, or a damaged file.") from error


def _stretch(passphrase: bytes, salt: bytes, memory_kib: int, iterations: int, lanes: int) -> bytes:
    stretcher = Argon2id(salt=salt, length=32, iterations=iterations, lanes=lanes, memory_cost=memory_kib)
    return stretcher.derive(passphrase)
