"""The published vectors: what version 1 accepts and refuses, for ever (``tests/vectors/bundle``).

Two readers are held to them: ours, and one that was written from the page alone (``second_reader.py``).
"""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from appliance.bundle import manifest, opening, policy
from appliance.bundle.enrolment import RecipientKey
from appliance.bundle.policy import Listing, Policy
from appliance.bundle.signature import key_ring
from appliance.canonical import parse_time
from appliance.engine.session import Hardware
from appliance.errors import BundleError, NewVendor
from appliance.load import load
from tests.bundle import second_reader
from tests.bundle.breaking import flipped

FOLDER = Path(__file__).parents[1] / "vectors" / "bundle"
INDEX = json.loads((FOLDER / "vectors.json").read_text())
KEY = RecipientKey.of(bytes.fromhex(INDEX["appliance_seed"]))
KEPT = ("vectors.json", "README.md")


def publishing(bundle: bytes) -> Policy:
    """The policy of the first vectors, which publishes whatever it is asked about."""
    rings = (
        key_ring([Ed25519PublicKey.from_public_bytes(bytes.fromhex(INDEX[role]))]) for role in ("exporter", "licensing")
    )
    listings = {}
    try:
        statement = opening.parse(bundle).envelope.payload
        model = manifest.decode(statement).model
        listings[manifest.digest(statement)] = Listing(model.id, model.version)
    except BundleError:
        pass  # it will be refused before anybody asks
    return Policy("vectors", *rings, listings, {})


def first_reader(
    bundle: bytes, permit: bytes, policies: list[bytes] | None, index: object, time: str | None, version_min: int = 1
) -> str:
    """How our reader ends, steps 1 to 8."""
    try:
        said = [publishing(bundle)] if policies is None else [policy.decode(data) for data in policies]
        genuine = opening.parse(bundle).verify(said)
        opened = genuine.admit(permit, KEY, time and parse_time(time), version_min).decrypt()
        load(opened, Hardware(("CPUExecutionProvider",), 1))
    except BundleError as error:
        return error.code
    return "ok"


READERS = {"first": first_reader, "second": second_reader.read}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("vector", INDEX["vectors"], ids=lambda vector: vector["name"])
def test_vector_ends_as_published(vector: dict[str, Any], reader: str) -> None:
    bundle, permit = ((FOLDER / vector[kind]).read_bytes() for kind in ("bundle", "grant"))
    policies = [(FOLDER / name).read_bytes() for name in vector["policies"]] if "policies" in vector else None
    ended = READERS[reader](bundle, permit, policies, INDEX, vector["time"], vector.get("version_min", 1))
    assert ended == vector["expect"]


@pytest.mark.parametrize("step", [1_009, pytest.param(7, marks=pytest.mark.soak)], ids=["sampled", "every seventh bit"])
def test_both_readers_take_a_flipped_bit_for_the_same(step: int) -> None:
    """Of a bundle, its grant and its policy, which nobody has signed here: a vendor of another name is a vendor."""
    row = next(row for row in INDEX["vectors"] if row["name"] == "valid-as-published")
    files = [(FOLDER / name).read_bytes() for name in (row["bundle"], row["grant"], row["policies"][0])]
    for place, data in enumerate(files):
        for bit in range(0, len(data) * 8, step):
            changed = [flipped(data, bit) if i == place else file for i, file in enumerate(files)]
            ended = {name: read(*changed[:2], changed[2:], INDEX, row["time"]) for name, read in READERS.items()}
            assert ended["first"] == ended["second"], (place, bit)
            assert ended["first"] != "ok" or place == 2


def test_second_reader_shares_no_code_with_the_first() -> None:
    source = Path(second_reader.__file__).read_text()
    assert not re.search(r"^\s*(import|from) (appliance|export|tests)\b", source, re.M)
    assert len(source.splitlines()) <= 400


def test_every_outcome_has_vectors() -> None:
    seen = Counter(vector["expect"] for vector in INDEX["vectors"])
    codes = {kind.code for kind in BundleError.__subclasses__() if kind is not NewVendor}  # which is about no bundle
    assert set(seen) == {"ok", *codes}
    assert seen.total() >= 100
    assert min(seen.values()) >= 2


def test_every_file_belongs_to_a_vector_and_all_are_small() -> None:
    named = {vector[kind] for vector in INDEX["vectors"] for kind in ("bundle", "grant")}
    named |= {name for vector in INDEX["vectors"] for name in vector.get("policies", ())}
    found = {path.name: path.stat().st_size for path in FOLDER.iterdir() if path.name not in KEPT}
    assert set(found) == named
    assert sum(found.values()) < 2 << 20
