"""Trust policies: what a vendor says, in one spelling, and nothing else."""

from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from appliance import canonical
from appliance.bundle import policy
from appliance.bundle.policy import Listing, Policy
from appliance.bundle.signature import encode_base64, encode_key, key_id, key_ring
from appliance.errors import MalformedBundle

EXPORTER, LICENSING, OLD = (Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32).public_key() for n in (1, 2, 3))
QUANTUM = MLDSA65PrivateKey.from_seed_bytes(bytes(32)).public_key()
DIGEST = "ab" * 32
SAID = Policy(
    "acme",
    key_ring([EXPORTER]),
    key_ring([LICENSING]),
    {DIGEST: Listing("chest", 3), "cd" * 32: Listing("chest", 2, "Wrong for children.")},
    {key_id(OLD): "The key was lost."},
)
SPKI = encode_base64(encode_key(EXPORTER))
EC = ec.generate_private_key(ec.SECP256R1()).public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def edited(**changes: Any) -> bytes:
    return canonical.encode(canonical.decode(policy.encode(SAID)) | changes)


def without(field: str) -> bytes:
    said = canonical.decode(policy.encode(SAID))
    del said[field]
    return canonical.encode(said)


def row(**changes: Any) -> list[dict[str, Any]]:
    return [{"digest": DIGEST, "model": "chest", "version": 3, "revoked": None} | changes]


def test_what_is_said_is_read() -> None:
    assert policy.decode(policy.encode(SAID)) == SAID
    both = ["ed25519", "ml-dsa-65"]
    strict = replace(SAID, exporter=key_ring([EXPORTER, QUANTUM], both), licensing=key_ring([LICENSING], both))
    assert policy.decode(policy.encode(strict)) == strict


names = st.text("abcdefghijklmnopqrstuvwxyz0123456789-", min_size=1, max_size=64)
listings = st.builds(Listing, names, st.integers(1, 2**31 - 1), st.none() | st.text(min_size=1, max_size=200))
digests = st.binary(min_size=32, max_size=32).map(bytes.hex)


@given(names, st.dictionaries(digests, listings, max_size=5), st.dictionaries(digests, st.text(min_size=1, max_size=200)))
def test_whatever_a_vendor_may_say_is_read_as_it_was_said(
    vendor: str, bundles: dict[str, Listing], revoked_keys: dict[str, str]
) -> None:
    said = replace(SAID, vendor=vendor, bundles=bundles, revoked_keys=revoked_keys)
    assert policy.decode(policy.encode(said)) == said


@pytest.mark.parametrize("field", canonical.decode(policy.encode(SAID)))
def test_policy_without_a_field_is_malformed(field: str) -> None:
    with pytest.raises(MalformedBundle):
        policy.decode(without(field))


@pytest.mark.parametrize("changes", [
    {"vendor": ""}, {"vendor": "Acme"}, {"vendor": "x" * 65}, {"vendor": None}, {"stray": 1},
    {"require": []}, {"require": ["ml-dsa-65"]}, {"require": ["ml-dsa-65", "ed25519"]}, {"require": ["ed25519", "rsa"]},
    {"require": ["ed25519", "ed25519"]}, {"require": "ed25519"},
    {"exporter": [SPKI, SPKI]}, {"licensing": [SPKI]}, {"exporter": [SPKI[:-4]]}, {"exporter": ["AAAA"]}, {"exporter": None},
    {"exporter": [encode_base64(EC)]}, {"exporter": [encode_base64(EXPORTER.public_bytes_raw())]}, {"exporter": [5]},
    {"exporter": [encode_base64(encode_key(EXPORTER) + b"\0")]}, {"exporter": [SPKI.rstrip("=")]},
    {"bundles": row() * 2}, {"bundles": row(digest="AB" * 32)}, {"bundles": row(version=0)}, {"bundles": row(version="3")},
    {"bundles": row(model="Chest")}, {"bundles": row(revoked="")}, {"bundles": row(revoked="x" * 201)},
    {"bundles": row(revoked=True)}, {"bundles": row(stray=1)}, {"bundles": {}},
    {"bundles": [{"digest": DIGEST, "model": "chest", "version": 3}]},
    {"revoked_keys": [{"key_id": key_id(OLD), "reason": ""}]}, {"revoked_keys": [{"key_id": key_id(OLD)}]},
    {"revoked_keys": [{"key_id": key_id(EXPORTER), "reason": "x"}]}, {"revoked_keys": None},
    {"revoked_keys": [{"key_id": key_id(OLD), "reason": "x"}] * 2},
])  # fmt: skip
def test_policy_out_of_its_form_is_malformed(changes: dict[str, Any]) -> None:
    with pytest.raises(MalformedBundle):
        policy.decode(edited(**changes))


def test_other_spellings_are_malformed() -> None:
    said = policy.encode(SAID)
    for data in (b"", b"[]", said + b"\n", said.replace(b",", b", ", 1), said[:-1], bytes(policy.FILE_BYTES_MAX + 1)):
        with pytest.raises(MalformedBundle):
            policy.decode(data)


def test_limits_are_held() -> None:
    """One more than each of them."""
    keys = [Ed25519PrivateKey.generate().public_key() for _ in range(policy.KEYS_MAX + 1)]
    bundles = {f"{n:064x}": Listing("chest", 1) for n in range(policy.BUNDLES_MAX + 1)}
    revoked = {f"{n:064x}": "x" for n in range(policy.REVOKED_KEYS_MAX + 1)}
    for over in (
        replace(SAID, exporter=key_ring(keys)),
        replace(SAID, bundles=bundles),
        replace(SAID, revoked_keys=revoked),
    ):
        with pytest.raises(MalformedBundle):
            policy.decode(policy.encode(over))
    assert len(policy.decode(policy.encode(replace(SAID, exporter=key_ring(keys[1:])))).exporter.keys) == policy.KEYS_MAX
