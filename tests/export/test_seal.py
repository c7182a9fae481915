"""Sealing, and the way back through the product's own order of trust."""

import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.bundle import grant, opening, signature
from appliance.bundle.enrolment import RecipientKey
from appliance.bundle.grant import Terms
from appliance.bundle.manifest import Label, Manifest
from appliance.bundle.policy import Listing, Policy
from appliance.errors import MalformedBundle
from export.seal import countersign, seal
from tests.export.desk import Opened

EXPORTER, LICENSING = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def bare(manifest: Manifest) -> Manifest:
    """A valid manifest without parts and without a rule for the unknown."""
    return replace(manifest, parts=(), decision=replace(manifest.decision, unknown=None))


@settings(max_examples=15, deadline=None)
@given(st.tuples(st.binary(max_size=40_000), *[st.binary(max_size=100)] * 3))
def test_what_is_sealed_can_be_opened(opened: Opened, contents: tuple[bytes, ...]) -> None:
    """parse → verify → admit → decrypt gives back every part, an empty one too."""
    plain = dict(zip(("card", "selftest", "graph", "weights"), contents, strict=True))
    key, site = os.urandom(32), RecipientKey.of(bytes(32))
    listings: dict[str, Listing] = {}
    rings = (signature.key_ring([key.public_key()]) for key in (EXPORTER, LICENSING))
    sealed = opening.parse(seal(bare(opened.manifest), plain, key, [EXPORTER]))
    genuine = sealed.verify([Policy("vendor", *rings, listings, {})])
    assert [part.role for part in genuine.manifest.parts] == ["graph", "weights", "selftest", "card"]
    model = genuine.manifest.model
    terms = Terms(genuine.digest, model.id, model.version, "a site", site.recipient.digest, NOW, NOW + timedelta(days=1), 0)
    listings[genuine.digest] = Listing(model.id, model.version)
    ticket = grant.issue(terms, key, site.recipient, [LICENSING])
    assert genuine.admit(ticket, site, NOW).decrypt().parts == plain


def test_manifest_that_a_site_would_refuse_is_never_signed(opened: Opened) -> None:
    plain = {"graph": b"g", "weights": b"", "selftest": b"s", "card": b"c"}
    with pytest.raises(MalformedBundle, match="not one of each role"):
        seal(replace(opened.manifest, parts=()), plain, os.urandom(32), [EXPORTER])
    with pytest.raises(ValueError, match="unknown roles"):
        seal(bare(opened.manifest), plain | {"extra": b""}, os.urandom(32), [EXPORTER])


def test_more_labels_than_a_reader_takes_are_one_sentence_at_the_desk(opened: Opened) -> None:
    plain = {"graph": b"g", "weights": b"", "selftest": b"s", "card": b"c"}
    many = replace(bare(opened.manifest), labels=tuple(Label(f"class {i}", None) for i in range(30_000)))
    with pytest.raises(MalformedBundle, match="too many labels or words"):
        seal(many, plain, os.urandom(32), [EXPORTER])


def test_one_key_signs_a_bundle_once(opened: Opened) -> None:
    plain = {"graph": b"g", "weights": b"", "selftest": b"s", "card": b"c"}
    sealed, other = seal(bare(opened.manifest), plain, os.urandom(32), [EXPORTER]), Ed25519PrivateKey.generate()
    for signers in ([other, other], [EXPORTER], [other, EXPORTER]):
        with pytest.raises(MalformedBundle, match="signed by this key already"):
            countersign(sealed, signers)
    assert len(opening.parse(countersign(sealed, [other])).envelope.signers) == 2
