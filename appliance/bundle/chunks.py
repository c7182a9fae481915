"""C2SP chunked-encryption, instantiation Cobblestone-256: how every part of a bundle is encrypted (bundle-format section 5).

    salt (24 bytes) || commitment (32) || chunk 0 || chunk 1 || … || last chunk, always shorter than 16 KiB

Since the last chunk is always short, a message that was cut between chunks ends in a full one, and shows.
"""

import hmac
import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA512
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from appliance.errors import CorruptPayload

KEY_BYTES = 32
CHUNK_BYTES = 16 * 1024
_TAG, _NONCE, _SALT, _COMMITMENT = 16, 12, 24, 32
_PREFIX = b"c2sp.org/chunked-encryption@v1+AEAD_AES_256_GCM\x00"


def encrypt(key: bytes, context: bytes, plaintext: bytes | bytearray | memoryview) -> bytes:
    """One message. ``key`` is 32 uniformly random bytes; the salt is drawn here."""
    salt = os.urandom(_SALT)
    aead, base_nonce, commitment = _derive(key, salt, context)
    view = memoryview(plaintext)
    chunks = [
        aead.encrypt(_nonce(base_nonce, i), view[start : start + CHUNK_BYTES], None)
        for i, start in enumerate(range(0, len(view) + 1, CHUNK_BYTES))
    ]
    return b"".join([salt, commitment, *chunks])


def decrypt_into(key: bytes, context: bytes, ciphertext: bytes | memoryview, out: memoryview) -> None:
    """Writes the plaintext to ``out``, which must have exactly its size. What ``out`` holds after an error is void.

    Raises:
        CorruptPayload: wrong key or context, or the message was altered, cut or extended.
    """
    view = memoryview(ciphertext)
    body = len(view) - _SALT - _COMMITMENT
    full, last = divmod(body, CHUNK_BYTES + _TAG)
    if body < _TAG or last < _TAG or full * CHUNK_BYTES + last - _TAG != len(out):
        raise CorruptPayload("An encrypted part is cut off, or not of the size it should have.")
    aead, base_nonce, commitment = _derive(key, bytes(view[:_SALT]), context)
    if not hmac.compare_digest(commitment, view[_SALT : _SALT + _COMMITMENT]):
        raise CorruptPayload("An encrypted part was not made with this key for this place.")
    chunks = view[_SALT + _COMMITMENT :]
    try:
        for i in range(full + 1):
            chunk = chunks[i * (CHUNK_BYTES + _TAG) : (i + 1) * (CHUNK_BYTES + _TAG)]
            target = out[i * CHUNK_BYTES : i * CHUNK_BYTES + len(chunk) - _TAG]
            aead.decrypt_into(_nonce(base_nonce, i), chunk, None, target)
    except InvalidTag:
        raise CorruptPayload("An encrypted part was altered.") from None


def encrypted_bytes(plain_bytes: int) -> int:
    """The size of the message that holds ``plain_bytes``."""
    return _SALT + _COMMITMENT + plain_bytes + (plain_bytes // CHUNK_BYTES + 1) * _TAG


def _derive(key: bytes, salt: bytes, context: bytes) -> tuple[AESGCM, bytes, bytes]:
    info = _PREFIX + salt + context
    okm = HKDFExpand(algorithm=SHA512(), length=KEY_BYTES + _NONCE + _COMMITMENT, info=info).derive(key)
    return AESGCM(okm[:KEY_BYTES]), okm[KEY_BYTES : KEY_BYTES + _NONCE], okm[KEY_BYTES + _NONCE :]


def _nonce(base: bytes, index: int) -> bytes:
    return (int.from_bytes(base, "big") ^ index).to_bytes(_NONCE, "big")
