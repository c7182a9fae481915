"""The tamper matrix: whatever is done to a bundle or its grant, none is accepted, and each ends in a BundleError.

Sampled here; the soak version does every bit, every truncation and every byte inserted, removed or replaced.
"""

import random
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from appliance.bundle import container, opening
from appliance.bundle.manifest import ModelId
from appliance.errors import BundleError
from tests import forge
from tests.bundle import breaking
from tests.bundle.breaking import flipped
from tests.forge import NOW, Forge

FORGE = Forge()
POLICIES = FORGE.policies
BUNDLE, OTHER = FORGE.bundle(), FORGE.bundle(forge.manifest(model=ModelId("forged", 2, 1)))
GRANT, OTHER_GRANT = FORGE.grant(BUNDLE), FORGE.grant(OTHER)


def outcome(bundle: bytes, permit: bytes) -> str:
    """How steps 1 to 5 end; anything but a BundleError is a failure of the test."""
    try:
        opening.parse(bundle).verify(POLICIES).admit(permit, FORGE.key, NOW).decrypt()
    except BundleError as error:
        return error.code
    return "accepted"


def regions(bundle: bytes) -> dict[str, range]:
    """Where each region of a bundle lies, in bytes."""
    start = 12 + len(container.split(bundle)[0])
    found = {"header": range(12), "envelope": range(12, start)}
    for i, part in enumerate(breaking.parts(bundle)):
        found[f"part {i}"] = range(start, start + len(part))
        start += len(part)
    assert start == len(bundle)
    return found


def test_unbroken_pair_is_accepted() -> None:
    """The control: what follows refuses because something was broken."""
    assert outcome(BUNDLE, GRANT) == "accepted"
    assert outcome(OTHER, OTHER_GRANT) == "accepted"


@pytest.mark.parametrize("region", regions(BUNDLE))
def test_no_flipped_bit_of_a_bundle_is_accepted(region: str) -> None:
    """96 bits of each region, the first and the last among them."""
    where = regions(BUNDLE)[region]
    bits = range(where.start * 8, where.stop * 8)
    chosen = {bits[0], bits[-1], *random.Random(region).sample(bits, min(94, len(bits)))}
    outcomes = Counter(outcome(flipped(BUNDLE, bit), GRANT) for bit in chosen)
    expected = {"corrupt_payload"} if region.startswith("part") else {"malformed", "untrusted_signature"}
    assert set(outcomes) <= expected
    assert outcomes.total() >= 94


def test_no_flipped_bit_of_a_grant_is_accepted() -> None:
    chosen = {0, len(GRANT) * 8 - 1, *random.Random(1).sample(range(len(GRANT) * 8), 300)}
    assert {outcome(BUNDLE, flipped(GRANT, bit)) for bit in chosen} <= {"malformed", "untrusted_signature"}


def lengths(data: bytes, marks: list[int]) -> list[int]:
    """A truncation of every class: near each boundary, and some in between."""
    near = {mark + d for mark in marks for d in (-1, 0, 1)}
    return sorted(n for n in near | set(range(0, len(data), 199)) if 0 <= n < len(data))


def test_no_truncated_bundle_is_accepted() -> None:
    marks = [edge for where in regions(BUNDLE).values() for edge in (where.start, where.start + 8, where.stop)]
    for length in lengths(BUNDLE, marks):
        assert outcome(BUNDLE[:length], GRANT) in ("malformed", "corrupt_payload"), length


def test_no_truncated_grant_is_accepted() -> None:
    for length in lengths(GRANT, [0, len(GRANT)]):
        assert outcome(BUNDLE, GRANT[:length]) == "malformed", length


@pytest.mark.parametrize("more", [b"\0", b"\n", b"x" * 16, BUNDLE])
def test_no_extended_file_is_accepted(more: bytes) -> None:
    assert outcome(BUNDLE + more, GRANT) == "corrupt_payload"
    assert outcome(more + BUNDLE, GRANT) != "accepted"
    assert outcome(BUNDLE, GRANT + more) == "malformed"
    assert outcome(BUNDLE, more + GRANT) == "malformed"


def test_no_exchange_of_parts_is_accepted() -> None:
    """Swapped, repeated, left out, or taken from another bundle under the same content key."""
    ours, theirs = breaking.parts(BUNDLE), breaking.parts(OTHER)
    for i in range(4):
        for j in range(4):
            if i != j:
                assert (
                    outcome(breaking.with_parts(BUNDLE, [ours[j] if k == i else ours[k] for k in range(4)]), GRANT)
                    != "accepted"
                )
        mixed = [theirs[k] if k == i else ours[k] for k in range(4)]
        assert outcome(breaking.with_parts(BUNDLE, mixed), GRANT) == "corrupt_payload"
        signed = breaking.with_signed_parts(BUNDLE, [FORGE.exporter], mixed)
        assert outcome(signed, GRANT) == "not_admitted"
        assert outcome(breaking.with_parts(BUNDLE, ours[:i] + ours[i + 1 :]), GRANT) == "corrupt_payload"


def test_part_of_another_bundle_is_refused_by_its_context_where_the_vendor_signed_it() -> None:
    """Two bundles under one content key, which section 5 forbids: the bundle id still keeps their parts apart."""
    theirs = breaking.parts(FORGE.bundle(forge.manifest(bundle_id="ff" * 16)))
    spliced = breaking.with_signed_parts(BUNDLE, [FORGE.exporter], theirs)
    assert outcome(spliced, FORGE.grant(spliced)) == "corrupt_payload"


def test_no_splice_of_two_files_is_accepted() -> None:
    for envelope, body in ((BUNDLE, OTHER), (OTHER, BUNDLE)):
        spliced = breaking.with_parts(envelope, breaking.parts(body))
        for permit in (GRANT, OTHER_GRANT):
            assert outcome(spliced, permit) in ("corrupt_payload", "not_admitted")
    assert outcome(BUNDLE, OTHER_GRANT) == "not_admitted"
    assert outcome(breaking.with_envelope(BUNDLE, GRANT), GRANT) == "malformed"
    assert outcome(BUNDLE, container.split(BUNDLE)[0]) == "malformed"


def test_signatures_of_one_bundle_do_not_fit_another() -> None:
    def take(envelope: breaking.Json) -> None:
        envelope["signatures"] = breaking.envelope(OTHER)["signatures"]

    assert outcome(breaking.reenveloped(BUNDLE, take), GRANT) == "untrusted_signature"


def mutations(data: bytes) -> Iterator[bytes]:
    """Every single-bit flip, every truncation, and every byte removed, doubled, zeroed or set."""
    for bit in range(len(data) * 8):
        yield flipped(data, bit)
    for i in range(len(data)):
        yield data[:i]
        yield data[:i] + data[i + 1 :]
        yield data[:i] + data[i : i + 1] + data[i:]
        for byte in (0, 0x20, 0xFF):
            if data[i] != byte:
                yield data[:i] + bytes([byte]) + data[i + 1 :]


def one_each(data: bytes, attempt: Callable[[bytes], str]) -> Counter[str]:
    return Counter(attempt(changed) for changed in mutations(data) if changed != data)


@pytest.mark.soak
def test_no_change_of_one_place_anywhere_is_accepted() -> None:
    bundle = one_each(BUNDLE, lambda changed: outcome(changed, GRANT))
    permit = one_each(GRANT, lambda changed: outcome(BUNDLE, changed))
    print(f"\n{len(BUNDLE)} bytes of bundle, {bundle.total()} cases: {dict(bundle)}")
    print(f"{len(GRANT)} bytes of grant, {permit.total()} cases: {dict(permit)}")
    assert bundle["accepted"] == permit["accepted"] == 0
    assert bundle.total() + permit.total() >= 100_000
