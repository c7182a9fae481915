"""Enrolment: an appliance's public keys, and the fingerprint that people compare."""

import hashlib
import hmac
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from appliance import canonical
from appliance.bundle import enrolment, signature
from appliance.bundle.enrolment import RecipientKey
from appliance.errors import BundleError, MalformedBundle, UntrustedSignature
from tests.bundle.breaking import flipped, payload, reenveloped

SEED = bytes(range(32))
REQUEST = enrolment.request(SEED, "Test hospital", "2026-11-24T10:00:00Z")
SIGNER = Ed25519PrivateKey.from_private_bytes(hmac.digest(SEED, b"enrolment\x01", "sha256"))


def signed(changes: dict[str, Any], signer: Ed25519PrivateKey = SIGNER) -> bytes:
    """A request whose payload was changed by whoever signs it."""
    return signature.sign(enrolment.PAYLOAD_TYPE, canonical.encode(payload(REQUEST) | changes), [signer])


def test_a_request_introduces_the_appliance_that_made_it() -> None:
    read = enrolment.read(REQUEST)
    assert (read.site, read.recipient) == ("Test hospital", RecipientKey.of(SEED).recipient)
    assert len(read.recipient.public_bytes) == 1184 + 32
    assert read.recipient.digest == hashlib.sha256(read.recipient.public_bytes).hexdigest()


def test_fingerprint_is_five_groups_of_the_payloads_digest() -> None:
    digits = hashlib.sha256(canonical.encode(payload(REQUEST))).hexdigest()[:20]
    assert enrolment.read(REQUEST).fingerprint.split(" ") == [digits[i : i + 4] for i in range(0, 20, 4)]


def test_signing_key_is_derived_as_the_page_says() -> None:
    """HKDF-Expand with SHA-256 of one block is one HMAC; so the key is the one this file derives for itself."""
    raw = signature.decode_base64(payload(REQUEST)["signing_public_key"])
    assert raw == SIGNER.public_key().public_bytes_raw()


def test_recipient_key_is_derived_as_x_wing_does() -> None:
    """SHAKE256 of the seed for ``hpke``: 64 bytes for ML-KEM-768 and 32 for X25519, computed here from the primitives."""
    from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    expanded = hashlib.shake_256(hmac.digest(SEED, b"hpke\x01", "sha256")).digest(96)
    kem = MLKEM768PrivateKey.from_seed_bytes(expanded[:64]).public_key().public_bytes_raw()
    dh = X25519PrivateKey.from_private_bytes(expanded[64:]).public_key().public_bytes_raw()
    assert RecipientKey.of(SEED).recipient.public_bytes == kem + dh


def test_another_seed_is_another_appliance() -> None:
    assert RecipientKey.of(bytes(32)).recipient.digest != RecipientKey.of(SEED).recipient.digest


def test_anyone_can_make_one_but_not_with_the_same_fingerprint() -> None:
    """A request in which an attacker put his own keys is valid: the telephone is what tells."""
    forged = enrolment.read(enrolment.request(bytes(32), "Test hospital", "2026-11-24T10:00:00Z"))
    assert forged.fingerprint != enrolment.read(REQUEST).fingerprint


def test_request_signed_by_another_key_than_it_carries_is_refused() -> None:
    with pytest.raises(UntrustedSignature):
        enrolment.read(signed({}, Ed25519PrivateKey.generate()))
    with pytest.raises(UntrustedSignature):
        enrolment.read(reenveloped(REQUEST, lambda e: e["signatures"][0].update(keyid="00" * 32)))


@pytest.mark.parametrize("site", [
    "A\nfingerprint  dead beef dead beef dead", "A\x1b[1A\rB", "A\x85B", "A\u2028B",
    "A\u202eB", "A\u200bB", "A\u00a0B", "\x7f",
])  # fmt: skip
def test_name_of_a_site_draws_no_line_of_its_own(site: str) -> None:
    """Shown at the vendor's desk beside the fingerprint, it could show the one that somebody else has read out."""
    with pytest.raises(MalformedBundle):
        enrolment.read(signed({"site": site}))


def test_name_of_a_site_may_be_of_any_script() -> None:
    assert enrolment.read(signed({"site": "Hôpital Łódź 東京, Radiology (2)"})).site == "Hôpital Łódź 東京, Radiology (2)"


def test_key_that_nothing_can_be_sealed_for_is_malformed() -> None:
    """An X25519 point of small order: every shared secret with it is zeros."""
    mlkem = RecipientKey.of(SEED).recipient.public_bytes[:1184]
    for point in (bytes(32), bytes([1]) + bytes(31)):
        with pytest.raises(MalformedBundle):
            enrolment.read(signed({"hpke_public_key": signature.encode_base64(mlkem + point)}))


OTHER = signature.encode_base64(RecipientKey.of(bytes(32)).recipient.public_bytes)


@pytest.mark.parametrize("changes", [
    {"hpke_public_key": "AAAA"}, {"hpke_public_key": signature.encode_base64(b"\xff" * 1216)}, {"hpke_public_key": ""},
    {"hpke_public_key": OTHER.rstrip("=")[:-4]}, {"signing_public_key": "AAAA"}, {"signing_public_key": "?"},
    {"site": ""}, {"site": "x" * 201}, {"site": 5}, {"created": None}, {"stray": 1},
])  # fmt: skip
def test_request_out_of_its_form_is_malformed(changes: dict[str, Any]) -> None:
    with pytest.raises(MalformedBundle):
        enrolment.read(signed(changes))


def test_sampled_bit_flips_are_all_refused() -> None:
    for bit in range(0, len(REQUEST) * 8, 97):
        with pytest.raises(BundleError):
            enrolment.read(flipped(REQUEST, bit))


def test_every_sampled_truncation_is_refused() -> None:
    for length in range(0, len(REQUEST), 41):
        with pytest.raises(MalformedBundle):
            enrolment.read(REQUEST[:length])
