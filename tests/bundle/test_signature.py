"""DSSE envelopes: what a trusted key signed, and not one byte else."""

import base64
import hashlib
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey, MLDSA65PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from appliance import canonical
from appliance.bundle import signature
from appliance.bundle.signature import ED25519, ML_DSA_65, SigningKey, VerifyingKey
from appliance.errors import BundleError, MalformedBundle, UntrustedSignature
from tests.bundle import wycheproof

KIND = "application/example"
A, B, C = (Ed25519PrivateKey.from_private_bytes(bytes([i]) * 32) for i in (1, 2, 3))
RING = signature.key_ring([A.public_key(), B.public_key()])


def sign(payload: bytes = b"payload", *keys: SigningKey) -> bytes:
    return signature.sign(KIND, payload, keys or (A,))


def edited(envelope: bytes, **changes: Any) -> bytes:
    return canonical.encode(canonical.decode(envelope) | changes)


def entry(key: SigningKey, payload: bytes = b"payload") -> dict[str, str]:
    """One signature of a key, as an envelope holds it."""
    return dict(canonical.decode(sign(payload, key))["signatures"][0])


@given(st.binary(min_size=1, max_size=200))
def test_what_is_signed_verifies(payload: bytes) -> None:
    assert signature.parse(sign(payload), KIND).verify(RING) == payload


def test_pre_authentication_encoding_is_that_of_the_dsse_protocol() -> None:
    """The example of the protocol's page, secure-systems-lab/dsse protocol.md: what is signed is this string."""
    kind, payload = "http://example.com/HelloWorld", b"hello world"
    made = signature.decode_base64(canonical.decode(signature.sign(kind, payload, [A]))["signatures"][0]["sig"])
    A.public_key().verify(made, b"DSSEv1 29 http://example.com/HelloWorld 11 hello world")


def test_key_id_is_the_digest_of_the_der_public_key() -> None:
    """SHA-256 of the fixed 12-byte prefix of RFC 8410 and the 32 raw bytes."""
    der = bytes.fromhex("302a300506032b6570032100") + A.public_key().public_bytes_raw()
    assert signature.key_id(A.public_key()) == hashlib.sha256(der).hexdigest()


def test_signature_of_a_stranger_is_not_enough() -> None:
    with pytest.raises(UntrustedSignature, match="not signed by a key"):
        signature.parse(sign(b"payload", C), KIND).verify(RING)


def test_signature_of_a_stranger_does_no_harm_beside_a_good_one() -> None:
    """Even one that does not verify: nobody here could tell."""
    bad = entry(C, b"other")
    for order in ([entry(A), bad], [bad, entry(A)]):
        assert signature.parse(edited(sign(), signatures=order), KIND).verify(RING) == b"payload"


def test_bad_signature_of_a_trusted_key_refuses_even_beside_a_good_one() -> None:
    bad = entry(B, b"other")
    for order in ([entry(A), bad], [bad, entry(A)], [bad]):
        with pytest.raises(UntrustedSignature, match="does not verify"):
            signature.parse(edited(sign(), signatures=order), KIND).verify(RING)


def test_nobody_is_trusted_by_an_empty_ring() -> None:
    with pytest.raises(UntrustedSignature):
        signature.parse(sign(), KIND).verify(signature.key_ring([]))


def test_key_id_of_another_key_does_not_lend_its_trust() -> None:
    stolen = entry(C) | {"keyid": signature.key_id(A.public_key())}
    with pytest.raises(UntrustedSignature):
        signature.parse(edited(sign(), signatures=[stolen]), KIND).verify(RING)


def test_signature_is_for_its_payload_type_alone() -> None:
    """A type that was changed in the envelope is not the one that was signed."""
    other = edited(sign(), payloadType="application/other")
    with pytest.raises(MalformedBundle):
        signature.parse(other, KIND).verify(RING)
    with pytest.raises(UntrustedSignature):
        signature.parse(other, "application/other").verify(RING)


def test_eight_signatures_are_read_and_nine_or_none_are_not() -> None:
    assert signature.parse(edited(sign(), signatures=[entry(C)] * 7 + [entry(A)]), KIND).verify(RING) == b"payload"
    for wrong in ([entry(A)] * 9, []):
        with pytest.raises(MalformedBundle):
            signature.parse(edited(sign(), signatures=wrong), KIND).verify(RING)


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
            signature.parse(data, KIND).verify(RING)


@given(st.integers(0, len(sign()) * 8 - 1))
def test_any_flipped_bit_refuses(bit: int) -> None:
    data = bytearray(sign())
    data[bit // 8] ^= 1 << bit % 8
    with pytest.raises(BundleError):
        signature.parse(bytes(data), KIND).verify(RING)


@given(st.binary(max_size=100))
def test_any_bytes_are_refused_as_a_bundle_error(data: bytes) -> None:
    with pytest.raises(MalformedBundle):
        signature.parse(data, KIND).verify(RING)


@given(st.binary(max_size=60))
def test_base64_has_one_spelling(data: bytes) -> None:
    text = signature.encode_base64(data)
    assert signature.decode_base64(text) == data
    for other in (text + "=", text + "\n", " " + text, text.rstrip("=") if text.endswith("=") else text + "A"):
        with pytest.raises(ValueError, match=r"[Bb]ase64|padding|Padding|characters|data"):
            signature.decode_base64(other)


def over(monkeypatch: pytest.MonkeyPatch, message: bytes) -> None:
    """Lets signatures be checked over a vector's own message, whatever envelope they came in."""
    monkeypatch.setattr(signature, "_pre_authentication_encoding", lambda *_: message)


def judged(key: VerifyingKey, sig: bytes, required: str) -> str:
    """What an envelope with this one signature comes to, where its algorithm alone is required."""
    sealed = base64.b64encode(sig).decode()
    envelope = edited(sign(), signatures=[{"keyid": signature.key_id(key), "sig": sealed}])
    try:
        signature.parse(envelope, KIND).verify(signature.key_ring([key], [required]))
    except BundleError:
        return "invalid"
    return "valid"


@wycheproof.needed
def test_wycheproofs_ed25519_signatures_are_judged_as_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """151 signatures through ``verify``: only the message differs from what DSSE would have signed."""
    seen = {"valid": 0, "invalid": 0}
    for group, case in wycheproof.cases("ed25519_test.json"):
        over(monkeypatch, bytes.fromhex(case["msg"]))
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(group["publicKey"]["pk"]))
        result = judged(key, bytes.fromhex(case["sig"]) or b"\0", ED25519)
        assert result == case["result"], case["tcId"]
        seen[result] += 1
    assert min(seen.values()) > 50


@wycheproof.needed
def test_wycheproofs_ml_dsa_65_signatures_are_judged_as_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those without a context, which we never use, and of a key that can be read."""
    seen = {"valid": 0, "invalid": 0}
    for group, case in wycheproof.cases("mldsa_65_verify_test.json"):
        try:
            key = MLDSA65PublicKey.from_public_bytes(bytes.fromhex(group["publicKey"]))
        except ValueError:
            assert case["result"] == "invalid"
            continue
        if case.get("ctx"):
            continue
        over(monkeypatch, bytes.fromhex(case["msg"]))
        result = judged(key, bytes.fromhex(case["sig"]) or b"\0", ML_DSA_65)
        assert result == case["result"], case["tcId"]
        seen[result] += 1
    assert min(seen.values()) > 5


QUANTUM = MLDSA65PrivateKey.from_seed_bytes(bytes(32))
BOTH = [ED25519, ML_DSA_65]


def test_key_id_of_an_ml_dsa_key_is_the_digest_of_its_der_public_key() -> None:
    """The prefix of RFC 9881 (its OID 2.16.840.1.101.3.4.3.18), and the 1,952 raw bytes."""
    der = bytes.fromhex("308207b2300b0609608648016503040312038207a100") + QUANTUM.public_key().public_bytes_raw()
    assert signature.key_id(QUANTUM.public_key()) == hashlib.sha256(der).hexdigest()


def test_policy_that_demands_both_algorithms_is_content_with_nothing_less() -> None:
    ring = signature.key_ring([A.public_key(), B.public_key(), QUANTUM.public_key()], BOTH)
    assert signature.parse(sign(b"payload", A, QUANTUM), KIND).verify(ring) == b"payload"
    assert signature.parse(sign(b"payload", QUANTUM, A), KIND).verify(ring) == b"payload"
    for keys, missing in (((A,), "ml-dsa-65"), ((A, B), "ml-dsa-65"), ((QUANTUM,), "ed25519")):
        with pytest.raises(UntrustedSignature, match=f"lacks the {missing}"):
            signature.parse(sign(b"payload", *keys), KIND).verify(ring)


def test_ml_dsa_signature_never_stands_in_for_ed25519() -> None:
    ring = signature.key_ring([A.public_key(), QUANTUM.public_key()])
    with pytest.raises(UntrustedSignature, match="lacks the ed25519"):
        signature.parse(sign(b"payload", QUANTUM), KIND).verify(ring)


def test_bad_ml_dsa_signature_refuses_beside_a_good_ed25519_one() -> None:
    """Even where no policy demands it: it is by a known key."""
    ring = signature.key_ring([A.public_key(), QUANTUM.public_key()])
    both = [entry(A), entry(QUANTUM, b"other")]
    with pytest.raises(UntrustedSignature, match="does not verify"):
        signature.parse(edited(sign(), signatures=both), KIND).verify(ring)


@pytest.mark.parametrize("key", [A.public_key(), QUANTUM.public_key()], ids=BOTH)
def test_public_key_has_one_spelling(key: VerifyingKey) -> None:
    spki = signature.encode_key(key)
    assert signature.key_id(signature.decode_key(spki)) == signature.key_id(key)
    for other in (spki + b"\0", spki[:-1], key.public_bytes_raw(), b""):
        with pytest.raises(ValueError, match=r"key|data|parse|ASN|deserial"):
            signature.decode_key(other)


def test_key_of_another_kind_is_refused() -> None:
    other = ec.generate_private_key(ec.SECP256R1()).public_key()
    with pytest.raises(ValueError, match="not an Ed25519"):
        signature.decode_key(other.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
