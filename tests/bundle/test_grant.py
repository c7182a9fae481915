"""Grants: one bundle, one appliance, some days; and every field is tied to the key."""

import hmac
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from appliance import canonical
from appliance.bundle import grant, opening, signature
from appliance.bundle.enrolment import RecipientKey
from appliance.bundle.grant import Grant, Terms
from appliance.canonical import format_time, parse_time
from appliance.errors import MalformedBundle, NotAdmitted, UntrustedSignature, WrongKey
from tests.bundle.breaking import payload, regranted
from tests.forge import NOW, Forge

FORGE = Forge()
BUNDLE = FORGE.bundle()
GRANT = FORGE.grant(BUNDLE)
TERMS = FORGE.terms(BUNDLE)
SECOND, DAY = timedelta(seconds=1), timedelta(days=1)


def admit(permit: bytes, key: RecipientKey | None = None, now: datetime = NOW) -> bytes:
    """The content key, after all of step 3."""
    return opening.parse(BUNDLE).verify(FORGE.policies).admit(permit, key or FORGE.key, now).content_key


def test_a_grant_gives_its_appliance_the_key() -> None:
    assert admit(GRANT) == FORGE.content_key
    assert grant.read(GRANT, FORGE.policies).terms == TERMS


def test_two_grants_of_the_same_terms_share_no_ciphertext() -> None:
    assert payload(FORGE.grant(BUNDLE))["sealed"] != payload(GRANT)["sealed"]


@pytest.mark.parametrize("now", [
    TERMS.not_before, NOW, TERMS.not_after, TERMS.not_after + SECOND, TERMS.not_after + 30 * DAY,
])  # fmt: skip
def test_grant_is_in_force_from_its_first_second_to_the_last_of_its_grace(now: datetime) -> None:
    assert admit(GRANT, now=now) == FORGE.content_key


@pytest.mark.parametrize(("now", "sentence"), [
    (TERMS.not_before - SECOND, "not valid yet"),
    (datetime(1970, 1, 1, tzinfo=UTC), "clock"),
    (TERMS.not_after + 30 * DAY + SECOND, "expired"),
    (datetime(9999, 12, 31, tzinfo=UTC), "expired"),
])  # fmt: skip
def test_grant_is_of_no_use_outside_its_dates(now: datetime, sentence: str) -> None:
    with pytest.raises(NotAdmitted, match=sentence):
        admit(GRANT, now=now)


def test_grant_without_grace_ends_on_time() -> None:
    permit = FORGE.grant(BUNDLE, grace_days=0)
    admit(permit, now=TERMS.not_after)
    with pytest.raises(NotAdmitted):
        admit(permit, now=TERMS.not_after + SECOND)


def test_grant_to_the_end_of_time_is_in_force() -> None:
    """Grace after the last day that a datetime knows must not overflow."""
    permit = FORGE.grant(BUNDLE, not_after=datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC), grace_days=365)
    assert admit(permit) == FORGE.content_key


def test_grant_for_another_appliance_is_refused() -> None:
    with pytest.raises(WrongKey, match="another appliance"):
        admit(GRANT, RecipientKey.of(bytes(32)))


def test_grant_for_another_bundle_is_refused() -> None:
    with pytest.raises(NotAdmitted, match="another bundle"):
        admit(FORGE.grant(FORGE.bundle()))


@pytest.mark.parametrize(("field", "value"), [
    ("model", "other"), ("version", 2), ("site", "Another hospital"), ("not_before", "2020-01-01T00:00:00Z"),
    ("not_after", "2099-01-01T00:00:00Z"), ("grace_days", 365),
])  # fmt: skip
def test_changed_field_makes_the_key_unreadable_even_where_the_vendor_signed_it(field: str, value: object) -> None:
    """HPKE's info holds every field: a licensing key without the content key cannot lengthen a grant."""
    with pytest.raises(WrongKey, match="cannot be opened"):
        admit(regranted(GRANT, FORGE.licensing, lambda terms: terms.update({field: value})))


def test_bundle_or_recipient_moved_by_a_licensing_key_does_not_open() -> None:
    """The two fields that are checked by value first are bound all the same."""
    other = Forge()
    given = replace(grant.read(GRANT, FORGE.policies), terms=replace(TERMS, recipient=other.key.recipient.digest))
    with pytest.raises(WrongKey):
        given.unwrap(other.key)
    moved = replace(grant.read(GRANT, FORGE.policies), terms=replace(TERMS, manifest_sha256="00" * 32))
    with pytest.raises(WrongKey):
        moved.unwrap(FORGE.key)


@pytest.mark.parametrize("sealed", [b"x", bytes(1120), bytes(1168), b"\xff" * 1168, bytes(3000)])
def test_sealed_key_that_is_no_sealed_key_is_refused(sealed: bytes) -> None:
    text = signature.encode_base64(sealed)
    with pytest.raises(WrongKey):
        admit(regranted(GRANT, FORGE.licensing, lambda terms: terms.update(sealed=text)))


@pytest.mark.parametrize("length", [0, 16, 31, 33])
def test_sealed_key_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(WrongKey, match="not a content key"):
        admit(grant.issue(TERMS, bytes(length), FORGE.key.recipient, [FORGE.licensing]))


def test_exporter_key_cannot_sign_grants_nor_a_licensing_key_bundles() -> None:
    """One key, one purpose: section 3."""
    with pytest.raises(UntrustedSignature):
        admit(FORGE.grant(BUNDLE, signer=FORGE.exporter))
    with pytest.raises(UntrustedSignature):
        opening.parse(FORGE.bundle(signers=[FORGE.licensing])).verify(FORGE.policies)


def test_grant_of_a_stranger_is_refused() -> None:
    with pytest.raises(UntrustedSignature):
        admit(FORGE.grant(BUNDLE, signer=Forge().licensing))


def test_bundles_statement_does_not_pass_for_a_grant() -> None:
    """The payload types differ, whoever signed."""
    from appliance.bundle import container

    with pytest.raises(MalformedBundle):
        admit(container.split(FORGE.bundle(signers=[FORGE.licensing]))[0])


@pytest.mark.parametrize("changes", [
    {"grace_days": 366}, {"grace_days": -1}, {"version": 0}, {"version": "1"}, {"model": "Upper"}, {"site": ""},
    {"site": "x" * 201}, {"recipient": "AB" * 32}, {"manifest_sha256": "ab"}, {"not_after": "2026-11-24"},
    {"not_after": "2026-02-30T00:00:00Z"}, {"not_after": "2026-1-2T00:00:00Z"}, {"not_before": "0026-11-24T00:00:00Z"},
    {"not_before": None}, {"sealed": ""}, {"sealed": "AB"}, {"sealed": "A" * 4004},
    {"suite": {"kem": 16, "kdf": 1, "aead": 2}},
    {"suite": {"kem": 25722, "kdf": 1}}, {"suite": {"kem": 25722, "kdf": 1, "aead": 2, "x": 1}}, {"stray": 1},
])  # fmt: skip
def test_signed_grant_out_of_its_form_is_malformed(changes: dict[str, Any]) -> None:
    with pytest.raises(MalformedBundle):
        admit(regranted(GRANT, FORGE.licensing, lambda terms: terms.update(changes)))


@pytest.mark.parametrize("field", payload(GRANT))
def test_signed_grant_without_a_field_is_malformed(field: str) -> None:
    with pytest.raises(MalformedBundle):
        admit(regranted(GRANT, FORGE.licensing, lambda terms: terms.pop(field)))


@pytest.mark.parametrize(
    "data", [b"", b"{}", bytes(grant.FILE_BYTES_MAX + 1), BUNDLE], ids=["empty", "no fields", "too long", "bundle"]
)
def test_other_files_are_malformed(data: bytes) -> None:
    with pytest.raises(MalformedBundle):
        admit(data)


@given(st.datetimes(datetime(1000, 1, 1), datetime(9999, 12, 31)))
def test_time_has_one_spelling(moment: datetime) -> None:
    whole = moment.replace(microsecond=0, tzinfo=UTC)
    assert parse_time(format_time(whole)) == whole


@pytest.mark.parametrize("text", [
    "2026-11-24T12:00:00", "2026-11-24t12:00:00z", "2026-11-24 12:00:00Z", "2026-11-24T12:00:00+00:00",
    " 2026-11-24T12:00:00Z", "2026-11-24T24:00:00Z", "2026-11-24T1:00:00Z", "٢٠٢٦-11-24T12:00:00Z", "",
])  # fmt: skip
def test_other_spellings_of_a_time_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"time|canonical|unconverted"):
        parse_time(text)


@pytest.mark.parametrize("workers_max", [1, 64])
def test_a_limit_is_part_of_what_is_granted(workers_max: int) -> None:
    permit = FORGE.grant(BUNDLE, workers_max=workers_max)
    assert payload(permit)["limits"] == {"workers_max": workers_max}
    assert grant.read(permit, FORGE.policies).terms.workers_max == workers_max
    assert admit(permit) == FORGE.content_key


@pytest.mark.parametrize("limits", [None, {}, {"workers_max": 0}, {"workers_max": 65}, {"workers_max": 1, "x": 1}, 5])
def test_limits_out_of_their_form_are_malformed(limits: object) -> None:
    with pytest.raises(MalformedBundle):
        admit(regranted(GRANT, FORGE.licensing, lambda terms: terms.update(limits=limits)))


def test_grant_of_one_vendor_does_not_open_a_bundle_of_another() -> None:
    """Though both are trusted here, and the second has published the bundle too."""
    other = Forge()
    policies = [FORGE.policy, replace(other.policy, vendor="other", bundles=FORGE.published)]
    genuine = opening.parse(BUNDLE).verify(policies)
    with pytest.raises(UntrustedSignature):
        genuine.admit(FORGE.grant(BUNDLE, signer=other.licensing), FORGE.key, NOW)
    assert genuine.admit(GRANT, FORGE.key, NOW).content_key == FORGE.content_key


def test_a_model_that_goes_on_is_asked_for_no_date() -> None:
    """After a restart; the signature, the bundle and the appliance still count."""
    genuine = opening.parse(BUNDLE).verify(FORGE.policies)
    over = FORGE.grant(BUNDLE, not_before=NOW - 9 * DAY, not_after=NOW - 8 * DAY, grace_days=0)
    with pytest.raises(NotAdmitted):
        genuine.admit(over, FORGE.key, NOW)
    assert genuine.admit(over, FORGE.key, None).content_key == FORGE.content_key
    with pytest.raises(UntrustedSignature):
        genuine.admit(FORGE.grant(BUNDLE, signer=FORGE.exporter), FORGE.key, None)


VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "hpke.json").read_text())


def key_schedule(vector: dict[str, Any], aead_id: int, key_bytes: int, info: bytes) -> tuple[bytes, bytes]:
    """Key and nonce of base mode, written out from RFC 9180 section 5.1, for HKDF-SHA256."""
    suite = b"HPKE" + b"".join(number.to_bytes(2, "big") for number in (vector["kem_id"], vector["kdf_id"], aead_id))

    def extract(salt: bytes, label: bytes, secret: bytes) -> bytes:
        return hmac.digest(salt, b"HPKE-v1" + suite + label + secret, "sha256")

    def expand(secret: bytes, label: bytes, context: bytes, length: int) -> bytes:
        labelled = length.to_bytes(2, "big") + b"HPKE-v1" + suite + label + context
        return hmac.digest(secret, labelled + b"\x01", "sha256")[:length]

    context = b"\0" + extract(b"", b"psk_id_hash", b"") + extract(b"", b"info_hash", info)
    secret = extract(bytes.fromhex(vector["shared_secret"]), b"secret", b"")
    return expand(secret, b"key", context, key_bytes), expand(secret, b"base_nonce", context, 12)


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["source"])
def test_key_schedule_of_these_tests_is_that_of_the_rfc(vector: dict[str, Any]) -> None:
    key, nonce = key_schedule(vector, vector["aead_id"], len(vector["key"]) // 2, bytes.fromhex(vector["info"]))
    assert (key.hex(), nonce.hex()) == (vector["key"], vector["base_nonce"])


def test_grant_sealed_by_the_published_vectors_is_unwrapped() -> None:
    """The KEM's own vector, carried to our suite by the key schedule above: ``unwrap`` finds the key, and only that."""
    vector = next(vector for vector in VECTORS if vector["kem_id"] == grant.SUITE["kem"])
    site = RecipientKey(bytes.fromhex(vector["skRm"]))
    assert site.recipient.public_bytes.hex() == vector["pkRm"]
    terms = replace(TERMS, recipient=site.recipient.digest)
    info = b"appliance grant v1\0" + canonical.encode(
        {name: value for name, value in payload(GRANT).items() if name != "sealed"} | {"recipient": terms.recipient}
    )
    key, nonce = key_schedule(vector, grant.SUITE["aead"], 32, info)
    sealed = bytes.fromhex(vector["enc"]) + AESGCM(key).encrypt(nonce, bytes(range(32)), b"")
    assert Grant("acme", terms, sealed).unwrap(site) == bytes(range(32))
    with pytest.raises(WrongKey):
        Grant("acme", replace(terms, site="Another hospital"), sealed).unwrap(site)


def test_terms_are_compared_with_the_moment_they_are_given() -> None:
    """Pure: the clock is the caller's."""
    terms: Terms = TERMS
    terms.require_in_force(NOW)
    with pytest.raises(NotAdmitted):
        terms.require_in_force(NOW - 2 * DAY)
