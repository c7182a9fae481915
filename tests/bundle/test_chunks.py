"""C2SP chunked-encryption: whatever was done to a message, it decrypts to what it was, or not at all."""

import hashlib
import hmac

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.bundle import chunks
from appliance.bundle.chunks import CHUNK_BYTES, encrypt, encrypted_bytes
from appliance.errors import CorruptPayload
from tests.bundle import wycheproof
from tests.bundle.breaking import decrypt

KEY, CONTEXT = bytes(range(32)), b"a context"
HEAD, STEP = 24 + 32, CHUNK_BYTES + 16
EDGES = sorted({max(0, n * CHUNK_BYTES + d) for n in range(4) for d in (-17, -16, -1, 0, 1, 15, 16, 17)})


def refuses(message: bytes, key: bytes = KEY, context: bytes = CONTEXT) -> str:
    """The sentence with which a message is refused."""
    with pytest.raises(CorruptPayload) as caught:
        decrypt(key, context, message)
    return str(caught.value)


@pytest.mark.parametrize("size", EDGES)
def test_every_size_around_a_chunks_end_round_trips(size: int) -> None:
    plain = bytes(i * 7 % 251 for i in range(size))
    message = encrypt(KEY, CONTEXT, plain)
    assert len(message) == encrypted_bytes(size)
    assert decrypt(KEY, CONTEXT, message) == plain


@settings(max_examples=40, deadline=None)
@given(st.binary(max_size=64), st.integers(0, 3 * CHUNK_BYTES), st.binary(max_size=40))
def test_what_is_encrypted_decrypts(filling: bytes, size: int, context: bytes) -> None:
    plain = (filling or b"x") * (size // max(1, len(filling)) + 1)
    assert decrypt(KEY, context, encrypt(KEY, context, plain)) == plain


def test_nothing_is_encrypted_twice_alike() -> None:
    assert encrypt(KEY, CONTEXT, b"x" * 50)[:HEAD] != encrypt(KEY, CONTEXT, b"x" * 50)[:HEAD]


def expand(key: bytes, info: bytes, length: int) -> bytes:
    """HKDF-Expand of RFC 5869 with SHA-512, written out."""
    out = block = b""
    for i in range(1, -(-length // 64) + 1):
        block = hmac.digest(key, block + info + bytes([i]), "sha512")
        out += block
    return out[:length]


def by_the_page(key: bytes, context: bytes, message: bytes) -> bytes:
    """The specification read once more, without our code: key || nonce || commitment; nonce XOR chunk number."""
    salt, commitment, body = message[:24], message[24:56], message[56:]
    info = b"c2sp.org/chunked-encryption@v1+AEAD_AES_256_GCM\x00" + salt + context
    derived = expand(key, info, 32 + 12 + 32)
    assert commitment == derived[44:]
    plain = b""
    for i, start in enumerate(range(0, len(body), STEP)):
        nonce = bytes(a ^ b for a, b in zip(derived[32:44], i.to_bytes(12, "big"), strict=True))
        plain += AESGCM(derived[:32]).decrypt(nonce, body[start : start + STEP], None)
    return plain


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES, 2 * CHUNK_BYTES + 5])
def test_a_second_reading_of_the_specification_agrees(size: int) -> None:
    plain = hashlib.shake_256(b"plain").digest(size)
    assert by_the_page(KEY, CONTEXT, encrypt(KEY, CONTEXT, plain)) == plain


def test_every_truncation_of_a_small_message_is_refused() -> None:
    message = encrypt(KEY, CONTEXT, b"twenty bytes or more")
    for length in range(len(message)):
        refuses(message[:length])


@pytest.mark.parametrize("at", [0, 1, HEAD, HEAD + 1, HEAD + 15, HEAD + 16, HEAD + STEP - 1, HEAD + STEP, HEAD + STEP + 15,
                                HEAD + STEP + 16, HEAD + 2 * STEP, HEAD + 2 * STEP + 15])  # fmt: skip
def test_message_cut_anywhere_near_a_chunks_end_is_refused(at: int) -> None:
    """Between chunks too: a message that ends in a full chunk has lost its last one."""
    message = encrypt(KEY, CONTEXT, bytes(2 * CHUNK_BYTES + 100))
    refuses(message[:at])


@pytest.mark.parametrize("more", [b"\0", bytes(16), bytes(STEP), bytes(STEP + 16)])
def test_extension_is_refused(more: bytes) -> None:
    for size in (10, CHUNK_BYTES):
        refuses(encrypt(KEY, CONTEXT, bytes(size)) + more)


def test_chunks_in_another_order_are_refused() -> None:
    message = encrypt(KEY, CONTEXT, bytes(3 * CHUNK_BYTES + 9))
    head, body = message[:HEAD], message[HEAD:]
    cut = [body[i : i + STEP] for i in range(0, len(body), STEP)]
    for order in ([1, 0, 2, 3], [0, 2, 1, 3], [0, 0, 2, 3], [0, 1, 3], [1, 2, 3]):
        assert "altered" in refuses(head + b"".join(cut[i] for i in order))


def test_chunks_of_another_message_under_the_same_key_are_refused() -> None:
    one, two = (encrypt(KEY, CONTEXT, bytes(CHUNK_BYTES + 9)) for _ in range(2))
    refuses(one[: HEAD + STEP] + two[HEAD + STEP :])
    refuses(one[:HEAD] + two[HEAD:])


@pytest.mark.parametrize(
    ("key", "context"), [(KEY, b""), (KEY, CONTEXT + b"\0"), (bytes(32), CONTEXT), (KEY[::-1], CONTEXT)]
)
def test_wrong_key_or_place_fails_at_the_commitment(key: bytes, context: bytes) -> None:
    """Before one byte is decrypted, so that no message has two keys that open it."""
    assert "not made with this key" in refuses(encrypt(KEY, CONTEXT, b"x"), key, context)


def test_every_flipped_bit_of_a_small_message_is_refused() -> None:
    message = encrypt(KEY, CONTEXT, b"sixteen bytes ..")
    for bit in range(len(message) * 8):
        changed = bytearray(message)
        changed[bit // 8] ^= 1 << bit % 8
        refuses(bytes(changed))


@pytest.mark.parametrize("size", [0, 5, 7, CHUNK_BYTES])
def test_buffer_of_another_size_than_the_plaintext_is_refused(size: int) -> None:
    """Nothing is written past its end, and nothing is left over in it."""
    with pytest.raises(CorruptPayload):
        chunks.decrypt_into(KEY, CONTEXT, encrypt(KEY, CONTEXT, b"secret"), memoryview(bytearray(size)))


@pytest.mark.parametrize("size", EDGES)
def test_the_size_is_known_before_decryption(size: int) -> None:
    assert encrypted_bytes(size) == 56 + size + 16 * (size // CHUNK_BYTES + 1)


@wycheproof.needed
def test_wycheproofs_aes_gcm_messages_are_judged_as_it_says() -> None:
    """The AEAD as chunks uses it: 256-bit key, 96-bit nonce, decrypt_into a buffer."""
    seen = {"valid": 0, "invalid": 0}
    for group, case in wycheproof.cases("aes_gcm_test.json"):
        if (group["keySize"], group["ivSize"]) != (256, 96):
            continue
        key, nonce, aad, plain, ct, tag = (bytes.fromhex(case[name]) for name in ("key", "iv", "aad", "msg", "ct", "tag"))
        out = bytearray(len(ct))
        try:
            chunks.AESGCM(key).decrypt_into(nonce, ct + tag, aad, memoryview(out))
            result = "valid"
            assert out == plain
            assert chunks.AESGCM(key).encrypt(nonce, plain, aad) == ct + tag
        except InvalidTag:
            result = "invalid"
        assert result == case["result"], case["tcId"]
        seen[result] += 1
    assert min(seen.values()) > 15


@wycheproof.needed
def test_wycheproofs_hkdf_sha512_outputs_come_out_of_the_expansion() -> None:
    """We use Expand alone; Extract is one HMAC, done here."""
    seen = 0
    for _, case in wycheproof.cases("hkdf_sha512_test.json"):
        if case["result"] != "valid":
            continue
        salt = bytes.fromhex(case["salt"]) or bytes(64)
        pseudorandom = hmac.digest(salt, bytes.fromhex(case["ikm"]), "sha512")
        info = bytes.fromhex(case["info"])
        kdf = chunks.HKDFExpand(algorithm=chunks.SHA512(), length=case["size"], info=info)
        assert kdf.derive(pseudorandom).hex() == case["okm"], case["tcId"]
        assert expand(pseudorandom, info, case["size"]).hex() == case["okm"]
        seen += 1
    assert seen > 70
