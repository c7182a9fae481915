"""The order of trust: which failure is met first, and that nothing is done with bytes that are not yet trusted."""

from dataclasses import replace

import pytest

from appliance import memory
from appliance.bundle import chunks, opening, signature
from appliance.bundle.manifest import ModelId
from appliance.bundle.policy import Listing, Policy
from appliance.errors import (
    CorruptPayload,
    MalformedBundle,
    NotAdmitted,
    Revoked,
    RolledBack,
    UntrustedSignature,
    WrongKey,
)
from tests import forge
from tests.bundle import breaking
from tests.forge import NOW, Forge

FORGE = Forge()
BUNDLE = FORGE.bundle()
GRANT = FORGE.grant(BUNDLE)
STRANGER = Forge()
CORRUPT = breaking.flipped(BUNDLE, len(BUNDLE) * 8 - 1)
LONG_AGO = NOW.replace(year=2000)


def test_a_forged_bundle_opens() -> None:
    opened = FORGE.open(BUNDLE, GRANT)
    assert opened.parts == forge.parts()
    assert replace(opened.manifest, parts=()) == forge.manifest()
    assert opened.terms == FORGE.terms(BUNDLE)


def test_the_model_digest_is_of_the_signed_statement() -> None:
    import hashlib

    statement = signature.decode_base64(breaking.envelope(BUNDLE)["payload"])
    assert FORGE.open(BUNDLE).digest == hashlib.sha256(statement).hexdigest()


def test_unsigned_bundle_with_corrupt_parts_is_untrusted_and_not_corrupt() -> None:
    """Nobody looks at the parts of a bundle that nobody trusted has signed."""
    with pytest.raises(UntrustedSignature):
        FORGE.open(breaking.flipped(FORGE.bundle(signers=[STRANGER.exporter]), len(BUNDLE) * 8 - 1), GRANT)


def test_malformed_manifest_of_a_stranger_is_untrusted_and_not_malformed() -> None:
    """A manifest is parsed only once it is signed."""
    broken = breaking.resigned(BUNDLE, [STRANGER.exporter], lambda statement: statement.update(stray=1))
    with pytest.raises(UntrustedSignature):
        opening.parse(broken).verify(FORGE.policies)


def test_malformed_manifest_that_is_signed_is_malformed() -> None:
    broken = breaking.resigned(BUNDLE, [FORGE.exporter], lambda statement: statement.update(stray=1))
    with pytest.raises(MalformedBundle, match="stray is not a known setting"):
        opening.parse(broken).verify(FORGE.policies)


def test_corrupt_bundle_without_its_grant_is_not_admitted_and_not_corrupt() -> None:
    for permit in (STRANGER.grant(STRANGER.bundle()), FORGE.grant(BUNDLE, signer=STRANGER.licensing)):
        with pytest.raises(UntrustedSignature):
            FORGE.open(CORRUPT, permit)
    with pytest.raises(NotAdmitted):
        FORGE.open(CORRUPT, FORGE.grant(FORGE.bundle()))
    with pytest.raises(NotAdmitted):
        FORGE.open(CORRUPT, GRANT, LONG_AGO)


def test_expired_grant_for_another_appliance_is_not_admitted_before_its_key_is_tried() -> None:
    with pytest.raises(NotAdmitted):
        opening.parse(BUNDLE).verify(FORGE.policies).admit(GRANT, STRANGER.key, LONG_AGO)


def test_wrong_appliance_with_a_corrupt_bundle_has_the_wrong_key() -> None:
    with pytest.raises(WrongKey):
        opening.parse(CORRUPT).verify(FORGE.policies).admit(GRANT, STRANGER.key, NOW)


def test_all_digests_are_checked_before_any_decryption(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        raise AssertionError("a part was decrypted")

    monkeypatch.setattr(chunks, "decrypt_into", never)
    with pytest.raises(CorruptPayload, match="not what was signed"):
        FORGE.open(CORRUPT, GRANT)


def test_no_part_is_hashed_before_the_grant_admits(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> list[memoryview]:
        raise AssertionError("parts were looked at")

    monkeypatch.setattr(opening.Genuine, "check_parts", never)
    with pytest.raises(NotAdmitted):
        FORGE.open(BUNDLE, GRANT, LONG_AGO)


@pytest.mark.parametrize("cut", [1, 16, 100, 2000])
def test_cut_or_extended_body_is_corrupt(cut: int) -> None:
    with pytest.raises(CorruptPayload, match="does not end"):
        FORGE.open(BUNDLE[:-cut], GRANT)
    with pytest.raises(CorruptPayload, match="does not end"):
        FORGE.open(BUNDLE + bytes(cut), GRANT)


def test_parts_that_changed_places_are_corrupt() -> None:
    """By their digests; and by their context, where the exporter himself signed the swap."""
    graph, weights, *others = breaking.parts(BUNDLE)
    swapped = breaking.with_parts(BUNDLE, [weights, graph, *others])
    with pytest.raises(CorruptPayload, match="not what was signed"):
        FORGE.open(swapped, GRANT)
    signed = breaking.with_signed_parts(BUNDLE, [FORGE.exporter], [weights, graph, *others])
    with pytest.raises(CorruptPayload):
        FORGE.open(signed)


def test_part_made_for_another_place_is_refused_even_where_everything_else_fits() -> None:
    """Right key, right plaintext, signed digests; only the context says that it was another part."""
    parts = breaking.parts(BUNDLE)
    parts[1] = chunks.encrypt(FORGE.content_key, breaking.context(BUNDLE, 2), forge.parts()["weights"])
    with pytest.raises(CorruptPayload, match="for this place"):
        FORGE.open(breaking.with_signed_parts(BUNDLE, [FORGE.exporter], parts))


def test_part_under_another_content_key_is_refused() -> None:
    parts = breaking.parts(BUNDLE)
    parts[1] = chunks.encrypt(bytes(32), breaking.context(BUNDLE, 1), forge.parts()["weights"])
    with pytest.raises(CorruptPayload, match="with this key"):
        FORGE.open(breaking.with_signed_parts(BUNDLE, [FORGE.exporter], parts))


def test_part_that_decrypts_to_something_else_is_refused() -> None:
    """Same size, same key, same place: the plain digest is what tells."""
    parts = breaking.parts(BUNDLE)
    parts[1] = chunks.encrypt(FORGE.content_key, breaking.context(BUNDLE, 1), bytes(len(forge.parts()["weights"])))
    with pytest.raises(CorruptPayload, match="does not decrypt to what was signed"):
        FORGE.open(breaking.with_signed_parts(BUNDLE, [FORGE.exporter], parts))


def test_what_was_decrypted_before_a_part_was_refused_is_wiped() -> None:
    parts = breaking.parts(BUNDLE)
    parts[1] = chunks.encrypt(FORGE.content_key, breaking.context(BUNDLE, 1), bytes(len(forge.parts()["weights"])))
    bundle = breaking.with_signed_parts(BUNDLE, [FORGE.exporter], parts)
    admitted = opening.parse(bundle).verify(FORGE.policies).admit(FORGE.grant(bundle), FORGE.key, forge.NOW)
    made: list[bytearray] = []

    def allocate(size: int) -> bytearray:
        made.append(bytearray(size))
        return made[-1]

    with pytest.raises(CorruptPayload):
        admitted.decrypt(allocate, memory.wipe)
    assert [len(buffer) for buffer in made] == [len(forge.parts()["graph"]), len(forge.parts()["weights"])]
    assert not any(map(any, made))


def test_sizes_that_contradict_each_other_are_refused() -> None:
    """The plain size is checked against the sealed one, so that nothing is allocated on its word alone."""

    def lie(statement: breaking.Json) -> None:
        statement["subject"][1]["annotations"]["plain_size"] = 16 << 30

    with pytest.raises(CorruptPayload, match="contradict"):
        FORGE.open(breaking.resigned(BUNDLE, [FORGE.exporter], lie))


def test_envelope_of_one_bundle_over_the_body_of_another_is_corrupt() -> None:
    other = FORGE.bundle(forge.manifest(model=ModelId("forged", 2, 1)))
    with pytest.raises(CorruptPayload):
        FORGE.open(breaking.with_parts(BUNDLE, breaking.parts(other)), GRANT)


def test_resealed_bundle_needs_a_new_grant() -> None:
    """Same model and version, other bytes: the grant names the digest and not the name."""
    again = FORGE.bundle()
    with pytest.raises(NotAdmitted):
        FORGE.open(again, GRANT)
    assert FORGE.open(again).parts == forge.parts()


def test_one_of_two_trusted_signers_is_enough() -> None:
    assert FORGE.open(FORGE.bundle(signers=[STRANGER.exporter, FORGE.exporter])).parts == forge.parts()


def test_empty_part_is_a_part() -> None:
    plain = forge.parts() | {"weights": b""}
    assert FORGE.open(FORGE.bundle(None, plain)).parts["weights"] == b""


def revoking(reason: str = "Wrong for children.") -> list[Policy]:
    published = {digest: replace(listing, revoked=reason) for digest, listing in FORGE.published.items()}
    return [replace(FORGE.policy, bundles=published)]


def test_revoked_bundle_is_refused_before_its_grant_is_looked_at() -> None:
    genuine = opening.parse(BUNDLE).verify(revoking())
    with pytest.raises(Revoked, match=r"Wrong for children\."):
        genuine.admit(b"not a grant", FORGE.key, NOW)


def test_revoked_bundle_does_not_go_on_either() -> None:
    with pytest.raises(Revoked):
        opening.parse(BUNDLE).verify(revoking()).admit(GRANT, FORGE.key, None)


def test_bundle_that_is_not_published_is_not_admitted() -> None:
    genuine = opening.parse(BUNDLE).verify([replace(FORGE.policy, bundles={})])
    with pytest.raises(NotAdmitted, match="not published"):
        genuine.admit(GRANT, FORGE.key, NOW)


@pytest.mark.parametrize("listing", [Listing("forged", 2), Listing("other", 1)])
def test_digest_that_is_published_under_another_name_is_not_admitted(listing: Listing) -> None:
    digest = opening.parse(BUNDLE).verify(FORGE.policies).digest
    with pytest.raises(NotAdmitted):
        opening.parse(BUNDLE).verify([replace(FORGE.policy, bundles={digest: listing})]).admit(GRANT, FORGE.key, NOW)


def test_version_below_the_lowest_is_rolled_back_and_not_expired() -> None:
    genuine = opening.parse(BUNDLE).verify(FORGE.policies)
    with pytest.raises(RolledBack):
        genuine.admit(GRANT, FORGE.key, LONG_AGO, version_min=2)
    genuine.admit(GRANT, FORGE.key, NOW, version_min=1)


def test_what_a_revoked_key_has_signed_says_so_and_what_another_has_signed_too_is_good() -> None:
    """A vendor that lost a key signs anew, and publishes both signatures in one file."""
    old = STRANGER.exporter
    policy = replace(FORGE.policy, revoked_keys={signature.key_id(old.public_key()): "The key was lost."})
    with pytest.raises(Revoked, match=r"The key was lost\."):
        opening.parse(FORGE.bundle(signers=[old])).verify([policy])
    assert opening.parse(FORGE.bundle(signers=[old, FORGE.exporter])).verify([policy]).policy is policy


def test_bundle_belongs_to_the_one_vendor_whose_key_signed_it() -> None:
    theirs = replace(STRANGER.policy, vendor="stranger")
    for policies in ([FORGE.policy, theirs], [theirs, FORGE.policy]):
        assert opening.parse(BUNDLE).verify(policies).policy.vendor == "forge"
        assert opening.parse(STRANGER.bundle()).verify(policies).policy.vendor == "stranger"
        with pytest.raises(UntrustedSignature, match="two vendors"):
            opening.parse(FORGE.bundle(signers=[STRANGER.exporter, FORGE.exporter])).verify(policies)


def test_only_the_parts_that_are_asked_for_are_decrypted_and_all_are_checked() -> None:
    sizes: list[int] = []

    def allocate(size: int) -> bytearray:
        sizes.append(size)
        return bytearray(size)

    def admitted(bundle: bytes) -> opening.Admitted:
        return opening.parse(bundle).verify(FORGE.policies).admit(GRANT, FORGE.key, NOW)

    opened = admitted(BUNDLE).decrypt(allocate, roles={"card"})
    assert opened.parts == {"card": forge.CARD}
    assert sizes == [len(forge.CARD)]
    start = len(BUNDLE) - sum(part.size for part in opened.manifest.parts)
    for part in opened.manifest.parts:
        damaged = bytearray(BUNDLE)
        damaged[start] ^= 1
        with pytest.raises(CorruptPayload):
            admitted(bytes(damaged)).decrypt(allocate, roles={"card"})
        start += part.size
    assert sizes == [len(forge.CARD)], "nothing of a bundle that is damaged is decrypted"


def test_plaintext_goes_to_the_buffers_that_the_caller_gives() -> None:
    given: list[bytearray] = []

    def allocate(size: int) -> bytearray:
        given.append(bytearray(size))
        return given[-1]

    opened = opening.parse(BUNDLE).verify(FORGE.policies).admit(GRANT, FORGE.key, NOW).decrypt(allocate)
    assert [opened.parts[role] for role in ("graph", "weights", "selftest", "card")] == given
    assert given == list(forge.parts().values())
