"""DSSE envelopes: what a trusted key signed, and not one byte else."""

import base64
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from appliance import canonical
from appliance.bundle import signature
from appliance.errors import BundleError, MalformedBundle, UntrustedSignature
from tests.bundle import wycheproof

KIND = "application/example"
A, B, C = (Ed25519PrivateKey.from_private_bytes(bytes([i]) * 32) for i in (1, 2, 3))
RING = signature.key_ring([A.public_key(), B.public_key()])


def sign(payload: bytes = b"payload", *keys: Ed25519PrivateKey) -> bytes:
    return signature.sign(KIND, payload, keys or (A,))


def edited(envelope: bytes, **changes: Any) -> bytes:
    return canonical.encode(canonical.decode(envelope) | changes)


def entry(key: Ed25519PrivateKey, payload: bytes = b"payload") -> dict[str, str]:
    """One signature of a key, as an envelope holds it."""
    return dict(canonical.decode(sign(payload, key))["signatures"][0])


@given(st.binary(min_size=1, max_size=200))
def test_what_is_signed_verifies(payload: bytes) -> None:
    assert signature.verify(sign(payload), KIND, RING) == payload


def test_pre_authentication_encoding_is_that_of_the_dsse_protocol() -> None:
    """The example of the protocol's page, secure-systems-lab/dsse protocol.md: what is signed is this string."""
    kind, payload = "http://example.com/HelloWorld", b"hello world"
    made = signature.decode_base64(canonical.decode(signature.sign(kind, payload, [A]))["signatures"][0]["sig"])
    A.public_key().verify(made, b"DSSEv1 29 http://example.com/HelloWorld 11 hello world")


def test_key_id_is_the_digest_of_the_der_public_key() -> None:
    """SHA-256 of the fixed 12-byte prefix of RFC 8410 and the 32 raw bytes."""
    import hashlib

    der = bytes.fromhex("302a300506032b6570032100") + A.public_key().public_bytes_raw()
    assert signature.key_id(A.public_key()) == hashlib.sha256(der).hexdigest()


def test_signature_of_a_stranger_is_not_enough() -> None:
    with pytest.raises(UntrustedSignature, match="not signed by a key"):
        signature.verify(sign(b"payload", C), KIND, RING)


def test_signature_of_a_stranger_does_no_harm_beside_a_good_one() -> None:
    """Even one that does not verify: nobody here could tell."""
    bad = entry(C, b"other")
    for order in ([entry(A), bad], [bad, entry(A)]):
        assert signature.verify(edited(sign(), signatures=order), KIND, RING) == b"payload"


def test_bad_signature_of_a_trusted_key_refuses_even_beside_a_good_one() -> None:
    bad = entry(B, b"other")
    for order in ([entry(A), bad], [bad, entry(A)], [bad]):
        with pytest.raises(UntrustedSignature, match="does not verify"):
            signature.verify(edited(sign(), signatures=order), KIND, RING)


def test_nobody_is_trusted_by_an_empty_ring() -> None:
    with pytest.raises(UntrustedSignature):
        signature.verify(sign(), KIND, {})


def test_key_id_of_another_key_does_not_lend_its_trust() -> None:
    stolen = entry(C) | {"keyid": signature.key_id(A.public_key())}
    with pytest.raises(UntrustedSignature):
        signature.verify(edited(sign(), signatures=[stolen]), KIND, RING)


def test_signature_is_for_its_payload_type_alone() -> None:
    """A type that was changed in the envelope is not the one that was signed."""
    other = edited(sign(), payloadType="application/other")
    with pytest.raises(MalformedBundle):
        signature.verify(other, KIND, RING)
    with pytest.raises(UntrustedSignature):
        signature.verify(other, "application/other", RING)


def test_eight_signatures_are_read_and_nine_or_none_are_not() -> None:
    assert signature.verify(edited(sign(), signatures=[entry(C)] * 7 + [entry(A)]), KIND, RING) == b"payload"
    for wrong in ([entry(A)] * 9, []):
        with pytest.raises(MalformedBundle):
            signature.verify(edited(sign(), signatures=wrong), KIND, RING)


SIG = base64.b64encode(bytes(64)).decode()


@pytest.mark.parametrize(
    "changes",
    [
        {"payload": ""}, {"payload": 5}, {"payload": "cGF5bG9hZA"}, {"payload": "cGF5bG9hZB=="},
        {"payload": "cGF5bG9hZA="}, {"payload": "-_=="}, {"payload": "AA\n=="}, {"payloadType": None},
        {"extra": 1}, {"signatures": {}},
        {"signatures": ["x"]}, {"signatures": [{"sig": SIG}]}, {"signatures": [{"keyid": "ab", "sig": SIG}]},
        {"signatures": [{"keyid": "AB" * 32, "sig": SIG}]}, {"signatures": [{"keyid": "ab" * 32, "sig": ""}]},
        {"signatures": [{"keyid": "ab" * 32, "sig": SIG, "cert": "x"}]},
    ],
)  # fmt: skip
def test_other_shapes_of_an_envelope_are_malformed(changes: dict[str, Any]) -> None:
    with pytest.raises(MalformedBundle):
        signature.parse(edited(sign(), **changes), KIND)


def test_other_spellings_of_an_envelope_are_malformed() -> None:
    """A space, a newline, another order: nothing of a file can change without being noticed."""
    good = sign()
    for data in (good + b"\n", b" " + good, good.replace(b":", b": "), good.replace(b"/", b"\\/", 1), b"", b"null", b"[]"):
        with pytest.raises(MalformedBundle):
            signature.verify(data, KIND, RING)


@given(st.integers(0, len(sign()) * 8 - 1))
def test_any_flipped_bit_refuses(bit: int) -> None:
    data = bytearray(sign())
    data[bit // 8] ^= 1 << bit % 8
    with pytest.raises(BundleError):
        signature.verify(bytes(data), KIND, RING)


@given(st.binary(max_size=100))
def test_any_bytes_are_refused_as_a_bundle_error(data: bytes) -> None:
    with pytest.raises(MalformedBundle):
        signature.verify(data, KIND, RING)


@given(st.binary(max_size=60))
def test_base64_has_one_spelling(data: bytes) -> None:
    text = signature.encode_base64(data)
    assert signature.decode_base64(text) == data
    for other in (text + "=", text + "\n", " " + text, text.rstrip("=") if text.endswith("=") else text + "A"):
        with pytest.raises(ValueError, match=r"[Bb]ase64|padding|Padding|characters|data"):
            signature.decode_base64(other)


class OverMessage:
    """A public key that checks a signature over a vector's own message, whatever envelope it came in."""

    def __init__(self, key: Ed25519PublicKey, message: bytes) -> None:
        self.key, self.message = key, message

    def verify(self, signature: bytes, _: bytes) -> None:
        self.key.verify(signature, self.message)


@wycheproof.needed
def test_wycheproofs_ed25519_signatures_are_judged_as_it_says() -> None:
    """151 signatures through ``verify``: only the message differs from what DSSE would have signed."""
    seen = {"valid": 0, "invalid": 0}
    for group, case in wycheproof.cases("ed25519_test.json"):
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(group["publicKey"]["pk"]))
        sealed = base64.b64encode(bytes.fromhex(case["sig"])).decode()
        envelope = edited(sign(), signatures=[{"keyid": signature.key_id(key), "sig": sealed}])
        ring = {signature.key_id(key): OverMessage(key, bytes.fromhex(case["msg"]))}
        try:
            signature.verify(envelope, KIND, ring)
            result = "valid"
        except BundleError:
            result = "invalid"
        assert result == case["result"], case["tcId"]
        seen[result] += 1
    assert min(seen.values()) > 50
