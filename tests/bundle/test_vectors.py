"""The published vectors: what version 1 accepts and refuses, for ever (``tests/vectors/bundle/vectors.json``)."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from appliance.bundle.enrolment import RecipientKey
from appliance.bundle.opening import TrustedKeys
from appliance.bundle.signature import key_ring
from appliance.canonical import parse_time
from appliance.errors import BundleError
from appliance.load import Hardware, load

FOLDER = Path(__file__).parents[1] / "vectors" / "bundle"
INDEX = json.loads((FOLDER / "vectors.json").read_text())
KEY = RecipientKey(bytes.fromhex(INDEX["appliance_seed"]))
TRUSTED = TrustedKeys(
    *(key_ring([Ed25519PublicKey.from_public_bytes(bytes.fromhex(INDEX[role]))]) for role in ("exporter", "licensing"))
)


@pytest.mark.parametrize("vector", INDEX["vectors"], ids=lambda vector: vector["name"])
def test_vector_ends_as_published(vector: dict[str, Any]) -> None:
    bundle, permit = (FOLDER / vector[kind] for kind in ("bundle", "grant"))
    try:
        load(
            bundle.read_bytes(), permit.read_bytes(), KEY, TRUSTED,
            Hardware(("CPUExecutionProvider",), 1), parse_time(vector["time"]),
        )  # fmt: skip
        outcome = "ok"
    except BundleError as error:
        outcome = error.code
    assert outcome == vector["expect"]


def test_every_outcome_has_a_vector() -> None:
    seen = Counter(vector["expect"] for vector in INDEX["vectors"])
    assert set(seen) == {"ok", *(kind.code for kind in BundleError.__subclasses__())}
    assert seen.total() >= 20
    assert min(seen.values()) >= 2


def test_every_file_belongs_to_a_vector_and_all_are_small() -> None:
    named = {vector[kind] for vector in INDEX["vectors"] for kind in ("bundle", "grant")}
    found = {path.name: path.stat().st_size for path in FOLDER.iterdir() if path.name != "vectors.json"}
    assert set(found) == named
    assert sum(found.values()) < 400 << 10
