"""Makes ``tests/vectors/bundle``: what is valid, and one failure in each of the others.

The vectors are committed and kept, so those that are there are never made again: ``python -m tests.bundle.make_vectors``
adds what the folder lacks. What the rows of the index mean stands in the folder's README.
"""

import hashlib
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey
from onnx import TensorProto, helper
from PIL import Image

from appliance import canonical
from appliance.bundle import chunks, container, grant, policy, signature
from appliance.bundle.enrolment import RecipientKey
from appliance.bundle.manifest import (
    PAYLOAD_TYPE,
    Accept,
    Golden,
    InputSpec,
    LabelSetRule,
    ModelId,
    OutputSpec,
    RuntimeSpec,
    TextSpec,
    Unknown,
)
from appliance.bundle.policy import Listing
from appliance.bundle.signature import ED25519, ML_DSA_65, SigningKey, encode_key, key_id, key_ring
from appliance.canonical import format_time
from appliance.model import inputs, text, unknown
from appliance.model.golden import GoldenCases
from appliance.model.inputs import Encoded, Raw
from appliance.model.unknown import Detector, Mahalanobis, Nearest, RelativeMahalanobis, Vim
from tests import forge
from tests.bundle import breaking
from tests.bundle.breaking import flipped, regranted, resigned, with_parts, with_signed_parts
from tests.forge import NOW, Forge

FOLDER = Path(__file__).parents[1] / "vectors" / "bundle"


@dataclass(frozen=True)
class Vector:
    """Without ``policies``, a reader is given one that trusts the index's keys and publishes whatever it is asked about."""

    name: str
    expect: str
    bundle: bytes
    grant: bytes
    time: datetime | None = NOW
    policies: tuple[bytes, ...] | None = None
    version_min: int = 1


class Vendor(Forge):
    """A forge whose keys are the same every time."""

    def __init__(self, first: int = 1, name: str = "forge") -> None:
        super().__init__()
        self.name = name
        self.exporter, self.licensing, self.stranger = (
            Ed25519PrivateKey.from_private_bytes(bytes([first + n]) * 32) for n in range(3)
        )
        self.quantum = MLDSA65PrivateKey.from_seed_bytes(bytes([first]) * 32)
        self.content_key, self.seed = bytes([4]) * 32, bytes([5]) * 32
        self.key = RecipientKey.of(self.seed)


Pair = tuple[bytes, bytes, datetime]


def first_edition(vendor: Vendor) -> Iterator[Vector]:
    """What was published before there were policies."""
    for name, expect, (bundle, permit, now) in vectors(vendor):
        yield Vector(name, expect, bundle, permit, now)


def vectors(vendor: Vendor) -> Iterator[tuple[str, str, Pair]]:
    """Name, expected outcome, and the bundle, the grant and the time."""
    good = vendor.bundle()
    permit = vendor.grant(good)
    own = [vendor.exporter]

    def pair(bundle: bytes = good, given: bytes | None = None, now: datetime = NOW) -> Pair:
        return bundle, given if given is not None else permit, now

    def granted(bundle: bytes) -> Pair:
        return bundle, vendor.grant(bundle), NOW

    def of(**changed: bytes) -> Pair:
        return granted(vendor.bundle(None, forge.parts() | changed))

    end = vendor.terms(good).not_after
    yield "valid", "ok", pair()
    yield "valid-in-grace", "ok", pair(now=end + timedelta(days=30))
    yield "valid-with-a-strangers-signature-too", "ok", granted(vendor.bundle(signers=[vendor.stranger, vendor.exporter]))

    yield "magic", "malformed", pair(flipped(good, 8))
    yield "format-version-2", "malformed", pair(good[:3] + b"\x02" + good[4:])
    yield "envelope-cut", "malformed", pair(good[:500])
    spaced = container.split(good)[0].replace(b'","', b'", "', 1)
    yield "envelope-with-a-space", "malformed", pair(breaking.with_envelope(good, spaced))
    stray = resigned(good, own, lambda s: s["predicate"].update(stray=1))
    yield "manifest-with-an-unknown-field", "malformed", granted_as(vendor, stray)
    channels = resigned(good, own, lambda s: s["predicate"]["inputs"][0].update(shape=[8, 8, 2]))
    yield "manifest-with-two-channels", "malformed", granted_as(vendor, channels)
    yield "grant-cut", "malformed", pair(given=permit[:-1])
    long_grace = regranted(permit, vendor.licensing, lambda t: t.update(grace_days=366))
    yield "grant-with-grace-over-a-year", "malformed", pair(given=long_grace)

    yield "signed-by-a-stranger", "untrusted_signature", pair(vendor.bundle(signers=[vendor.stranger]))
    yield "signed-by-the-licensing-key", "untrusted_signature", pair(vendor.bundle(signers=[vendor.licensing]))

    def bad_beside_good(envelope: breaking.Json) -> None:
        other = breaking.envelope(vendor.bundle())["signatures"][0]
        envelope["signatures"] = [other, *envelope["signatures"]]

    yield "bad-signature-beside-a-good-one", "untrusted_signature", pair(breaking.reenveloped(good, bad_beside_good))
    yield "grant-signed-by-the-exporter", "untrusted_signature", pair(given=vendor.grant(good, signer=vendor.exporter))

    yield "grant-expired", "not_admitted", pair(now=end + timedelta(days=30, seconds=1))
    yield "grant-not-yet-valid", "not_admitted", pair(now=NOW - timedelta(days=2))
    other = vendor.bundle(forge.manifest(model=ModelId("forged", 2, 1)))
    yield "grant-for-another-bundle", "not_admitted", pair(given=vendor.grant(other))

    elsewhere = RecipientKey.of(bytes([6]) * 32).recipient
    terms = replace(vendor.terms(good), recipient=elsewhere.digest)
    moved = grant.issue(terms, vendor.content_key, elsewhere, [vendor.licensing])
    yield "grant-for-another-appliance", "wrong_key", pair(given=moved)
    longer = regranted(permit, vendor.licensing, lambda t: t.update(not_after="2099-01-01T00:00:00Z"))
    yield "grant-lengthened-by-the-licensing-key", "wrong_key", pair(given=longer)

    ours = breaking.parts(good)
    yield "part-with-a-flipped-bit", "corrupt_payload", pair(flipped(good, (len(good) - 700) * 8))
    yield "file-cut", "corrupt_payload", pair(good[:-1])
    yield "file-extended", "corrupt_payload", pair(good + b"\0")
    yield "parts-swapped", "corrupt_payload", pair(with_parts(good, [ours[1], ours[0], *ours[2:]]))
    yield "parts-of-another-bundle", "corrupt_payload", pair(with_parts(good, breaking.parts(other)))
    weights = forge.parts()["weights"]
    for name, key, context, plain in (
        ("part-under-another-key", bytes(32), breaking.context(good, 1), weights),
        ("part-made-for-another-place", vendor.content_key, breaking.context(good, 2), weights),
        ("part-with-other-content", vendor.content_key, breaking.context(good, 1), bytes(len(weights))),
    ):
        changed = [ours[0], chunks.encrypt(key, context, plain), *ours[2:]]
        yield name, "corrupt_payload", granted(with_signed_parts(good, own, changed))

    yield "graph-is-not-one", "refused_graph", of(graph=b"not a protobuf")
    model = forge.model()
    model.graph.initializer[0].external_data[0].value = "../weights"
    yield "graph-reads-another-file", "refused_graph", of(graph=model.SerializeToString())
    model = forge.model()
    model.graph.initializer[0].external_data[1].value = "1"
    yield "graph-reads-beyond-the-weights", "refused_graph", of(graph=model.SerializeToString())
    model = forge.model()
    model.graph.node.append(helper.make_node("EPContext", ["flat"], ["x"], domain="com.microsoft"))
    yield "graph-with-another-domain", "refused_graph", of(graph=model.SerializeToString())
    model = forge.model()
    model.graph.input[0].CopyFrom(helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 8, 8, 1]))
    yield "graph-takes-floats", "refused_graph", of(graph=model.SerializeToString())
    later = RuntimeSpec(forge.OPSET, "99.0.0", "fp32", ("CPUExecutionProvider",), 16)
    yield "proved-with-a-later-runtime", "refused_graph", granted(vendor.bundle(forge.manifest(runtime=later)))

    golden = forge.golden()
    off = forge.golden(1).encode()
    yield "golden-logits-off-by-one", "failed_golden_case", of(selftest=off)
    junk = GoldenCases(((Encoded((b"junk",)),), *golden.cases[1:]), golden.logits).encode()
    yield "golden-case-is-no-image", "failed_golden_case", of(selftest=junk)


def granted_as(vendor: Vendor, bundle: bytes) -> Pair:
    """A grant for a bundle whose manifest does not parse: by its digest."""
    return bundle, vendor.grant(vendor.bundle(), manifest_sha256=digest_of(bundle)), NOW


def digest_of(bundle: bytes) -> str:
    return hashlib.sha256(signature.decode_base64(breaking.envelope(bundle)["payload"])).hexdigest()


def second_edition(vendor: Vendor) -> Iterator[Vector]:
    """What came with trust policies, a second signature, limits and rollback; and more of what came before."""
    yield from _policies(vendor)
    yield from _signatures(vendor)
    yield from _envelopes(vendor)
    yield from _manifests(vendor)
    yield from _grants(vendor)
    yield from _contents(vendor)
    yield from _kinds_of_image(vendor)


def third_edition(vendor: Vendor) -> Iterator[Vector]:
    """What came with inputs that are no images."""
    specs = (InputSpec("age", "FP32", (), None), InputSpec("words", "INT64", (4,), None))
    nodes = [
        helper.make_node("Cast", ["words"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["floats", "W"], ["product"]),
        helper.make_node("Unsqueeze", ["age", "last"], ["column"]),
        helper.make_node("Add", ["product", "column"], ["logits"]),
    ]
    weights = np.linspace(-1, 1, 4 * forge.CLASSES, dtype=np.float32).reshape(4, forge.CLASSES)
    made = helper.make_graph(
        nodes,
        "tensors",
        [
            helper.make_tensor_value_info("age", TensorProto.FLOAT, ["batch"]),
            helper.make_tensor_value_info("words", TensorProto.INT64, ["batch", 4]),
        ],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", forge.CLASSES])],
        [forge.tensor("W", weights), onnx.numpy_helper.from_array(np.array([1], np.int64), "last")],
    )
    graph = helper.make_model(made, opset_imports=[helper.make_opsetid("", forge.OPSET)], ir_version=10)
    ages, words = np.array([61, 7, 33], np.float32), np.arange(12, dtype=np.int64).reshape(3, 4)
    logits = words.astype(np.float32) @ weights + ages[:, None]
    cases = tuple(
        (Raw("FP32", (1,), a.tobytes()), Raw("INT64", (1, 4), w.tobytes())) for a, w in zip(ages, words, strict=True)
    )
    parts = {"graph": graph.SerializeToString(), "weights": weights.tobytes(), "card": forge.CARD}

    def bundle(name: str, expect: str, selftest: bytes, **changes: Any) -> Vector:
        sealed = vendor.bundle(forge.manifest(**{"inputs": specs} | changes), parts | {"selftest": selftest})
        return Vector(name, expect, sealed, vendor.grant(sealed))

    good = GoldenCases(cases, logits).encode()
    kept = replace(forge.RULE, label_set=LabelSetRule("lac", 900_000, (50_000,)))
    yield bundle("valid-tensors-and-label-sets", "ok", good, decision=kept)
    yield bundle("tensor-inputs-in-another-order", "malformed", good, inputs=specs[::-1])
    yield bundle("tensor-of-another-datatype", "refused_graph", good, inputs=(specs[0], replace(specs[1], datatype="INT32")))
    yield bundle("tensor-of-another-shape", "refused_graph", good, inputs=(specs[0], replace(specs[1], shape=(5,))))
    yield bundle("tensor-golden-logits-differ", "failed_golden_case", GoldenCases(cases, logits + 1).encode())
    of_images = GoldenCases.of_encoded([forge.png(forge.image(seed)) for seed in range(3)], logits).encode()
    yield bundle("images-where-tensors-are-wanted", "malformed", of_images)


def fourth_edition(vendor: Vendor) -> Iterator[Vector]:
    """What came with confidence: the model card, ways to tell the unknown, label sets of other kinds; and texts."""
    yield from _rules(vendor)
    yield from _references(vendor)
    yield from _texts(vendor)


def _rules(vendor: Vendor) -> Iterator[Vector]:
    def bundle(name: str, expect: str, plain: dict[str, bytes] | None = None, **decision: Any) -> Vector:
        made = forge.manifest(decision=replace(forge.RULE, **decision))
        sealed = vendor.bundle(made, forge.parts() | (plain or {}))
        return Vector(name, expect, sealed, vendor.grant(sealed))

    yield bundle("valid-label-sets-by-class", "ok", label_set=LabelSetRule("lac_by_class", 900_000, (1, 2, 3)))
    yield bundle("valid-label-sets-adaptive", "ok", label_set=LabelSetRule("raps", 900_000, (10**6,), 10_000, 2))
    yield bundle("valid-score-below-zero", "ok", accept=Accept("entropy", -300_000))
    yield bundle("card-is-not-utf-8", "malformed", {"card": b"\xff"})
    good, own = vendor.bundle(), [vendor.exporter]
    said = breaking.payload(good)["predicate"]["decision"]
    adaptive = {"method": "raps", "coverage_e6": 900_000, "thresholds_e6": [1], "penalty_e6": 0, "free_ranks": 0}
    for name, changes in {
        "manifest-with-a-threshold-too-few": {"label_set": adaptive | {"method": "lac_by_class"}},
        "manifest-with-a-penalty-and-no-ranks": {"label_set": adaptive | {"method": "lac", "penalty_e6": 1}},
        "manifest-with-a-score-of-no-name": {"accept": {"score": "confidence", "at_least_e6": 1}},
        "manifest-that-expects-more-than-its-cases": {"expected": {"cases": 5, "abstained": 3, "unknown": 3}},
    }.items():
        bad = resigned(good, own, lambda s, c=changes: s["predicate"].update(decision=said | c))  # type: ignore[misc]
        yield Vector(name, "malformed", *granted_as(vendor, bad)[:2])
    bad = resigned(good, own, lambda s: s["predicate"]["runtime"].update(precision="bf16"))
    yield Vector("manifest-of-another-precision", "malformed", *granted_as(vendor, bad)[:2])


def _references(vendor: Vendor) -> Iterator[Vector]:
    """One of each method, and one array of each wrong."""
    images, width, f = [_file(Image.fromarray(forge.image(seed)[..., 0]), "PNG") for seed in range(3)], 70, np.float32
    means, unit, one = np.zeros((forge.CLASSES, width), f), np.eye(width, dtype=f), np.ones((), f)
    good: list[Detector] = [
        RelativeMahalanobis(means, unit, np.zeros(width, f), unit),
        Vim(np.zeros(width, f), unit[:, :5], one),
        Nearest(unit[:9], 2 * one),
    ]
    for detector in good:
        yield _linear(vendor, f"valid-{detector.method.replace('_', '-')}", "ok", 1, "stretch", images, detector=detector)
    bad: dict[str, Detector] = {
        "reference-for-other-classes": Mahalanobis(means[1:], unit),
        "reference-that-is-not-positive": Mahalanobis(means, -unit),
        "reference-with-a-spread-of-another-width": RelativeMahalanobis(means, unit, np.zeros(width, f), unit[1:, 1:]),
        "reference-with-a-residual-of-no-column": Vim(np.zeros(width, f), unit[:, :0], one),
        "reference-with-fewer-neighbours-than-k": Nearest(unit[:9], 10 * one),
        "reference-with-a-number-that-is-none": Nearest(unit[:9] * f("nan"), one),
    }
    for name, detector in bad.items():
        yield _linear(vendor, name, "malformed", 1, "stretch", images, detector=detector)


def _texts(vendor: Vendor) -> Iterator[Vector]:
    """Logits are linear in the numbers of the words, so that a reader that counts otherwise misses them."""
    spec = InputSpec("text", "INT64", (7,), text=TextSpec("folded", 100, ("fever", "no", ".", "strasse")))
    weights = np.linspace(-1, 1, 7 * forge.CLASSES, dtype=np.float32).reshape(7, forge.CLASSES)
    nodes = [
        helper.make_node("Cast", ["text"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["floats", "W"], ["logits"]),
    ]
    made = helper.make_graph(
        nodes,
        "texts",
        [helper.make_tensor_value_info("text", TensorProto.INT64, ["batch", 7])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", forge.CLASSES])],
        [forge.tensor("W", weights)],
    )
    graph = helper.make_model(made, opset_imports=[helper.make_opsetid("", forge.OPSET)], ir_version=10)
    texts = ["No FEVER.", "Stra\u00dfe\u2003\ufb01ve_5 no", "fever\u0301..no"]
    encoded = [said.encode() for said in texts]
    assert spec.text is not None
    rows = text.tokens(spec.text, 6, encoded)
    logits = rows.astype(np.float32) @ weights

    def bundle(name: str, expect: str, cases: list[bytes], **changes: Any) -> Vector:
        parts = {"graph": graph.SerializeToString(), "weights": weights.tobytes(), "card": forge.CARD}
        selftest = GoldenCases.of_encoded(cases, logits).encode()
        sealed = vendor.bundle(forge.manifest(**{"inputs": (spec,)} | changes), parts | {"selftest": selftest})
        return Vector(name, expect, sealed, vendor.grant(sealed))

    yield bundle("valid-texts", "ok", encoded)
    yield bundle("golden-text-that-is-too-long", "failed_golden_case", [b"a b c d e f g", *encoded[1:]])
    yield bundle("golden-text-of-nothing", "failed_golden_case", [b" ", *encoded[1:]])
    yield bundle("golden-text-that-is-not-utf-8", "failed_golden_case", [b"\xff", *encoded[1:]])
    for name, mark in (("marks", "\u0301"), ("marks-once-decomposed", "\uff9e")):
        tower = ("a" + 31 * mark).encode()
        yield bundle(f"golden-text-with-a-tower-of-{name}", "failed_golden_case", [tower, *encoded[1:]])
    yield bundle("golden-text-over-its-bytes", "failed_golden_case", [b"a" * 101, *encoded[1:]])
    kept = replace(spec, text=replace(spec.text, case="kept"))
    yield bundle("texts-whose-case-is-kept", "failed_golden_case", encoded, inputs=(kept,))
    good, own = bundle("", "", encoded).bundle, [vendor.exporter]
    said = breaking.payload(good)["predicate"]["inputs"][0]
    for name, changes in {
        "manifest-with-a-word-twice": {"text": said["text"] | {"words": ["no", "no"]}},
        "manifest-with-texts-of-int32": {"datatype": "INT32"},
        "manifest-with-texts-of-no-words": {"shape": [1]},
        "manifest-with-texts-that-are-images": {
            "image": breaking.payload(vendor.bundle())["predicate"]["inputs"][0]["image"]
        },
    }.items():
        bad = resigned(good, own, lambda s, c=changes: s["predicate"].update(inputs=[said | c]))  # type: ignore[misc]
        yield Vector(name, "malformed", *granted_as(vendor, bad)[:2])


def says(vendor: Vendor, *bundles: bytes, **changes: Any) -> bytes:
    """A policy of this vendor that publishes these bundles."""
    listings = {digest_of(bundle): vendor.published[digest_of(bundle)] for bundle in bundles}
    return policy.encode(replace(vendor.policy, **{"vendor": vendor.name, "bundles": listings} | changes))


def edited(said: bytes, **changes: Any) -> bytes:
    """A policy that says something else, which no tool of ours would write."""
    return canonical.encode(canonical.decode(said) | changes)


def _policies(vendor: Vendor) -> Iterator[Vector]:
    good = vendor.bundle()
    permit, said = vendor.grant(good), says(vendor, good)
    digest, end = digest_of(good), vendor.terms(good).not_after

    def vector(name: str, expect: str, *policies: bytes, now: datetime | None = NOW, least: int = 1) -> Vector:
        return Vector(name, expect, good, permit, now, policies, least)

    def listed(listing: Listing) -> bytes:
        return says(vendor, bundles={digest: listing})

    other = Vendor(11, "other")
    yield vector("valid-as-published", "ok", said)
    yield vector("valid-of-one-of-two-vendors", "ok", says(other), said)
    yield vector("valid-at-the-lowest-version", "ok", said, least=1)
    yield vector("valid-going-on-after-its-grant", "ok", said, now=None)
    withdrawn = listed(Listing("forged", 1, "Wrong for children."))
    yield vector("bundle-revoked", "revoked", withdrawn)
    yield vector("bundle-revoked-while-it-went-on", "revoked", withdrawn, now=None)
    yield vector("bundle-revoked-under-another-version", "revoked", listed(Listing("forged", 2, "Wrong for children.")))
    gone = says(vendor, good, exporter=key_ring([]), revoked_keys={key_id(vendor.exporter.public_key()): "Lost."})
    yield vector("exporter-key-revoked", "revoked", gone)
    gone = says(vendor, good, licensing=key_ring([]), revoked_keys={key_id(vendor.licensing.public_key()): "Lost."})
    yield vector("licensing-key-revoked", "revoked", gone)
    yield vector("not-published", "not_admitted", says(vendor))
    yield vector("published-as-another-version", "not_admitted", listed(Listing("forged", 2)))
    yield vector("published-as-another-model", "not_admitted", listed(Listing("other", 1)))
    yield vector("published-by-another-vendor-alone", "not_admitted", says(vendor), says(other, bundles=vendor.published))
    yield vector("expired-while-it-does-not-go-on", "not_admitted", said, now=end + timedelta(days=31))
    yield vector("older-than-the-lowest-version", "rolled_back", said, least=2)
    yield vector("older-than-the-lowest-version-and-expired", "rolled_back", said, now=end + timedelta(days=31), least=2)
    yield vector("no-vendor", "untrusted_signature")
    yield vector("key-of-no-vendor", "untrusted_signature", says(other))

    spki = signature.encode_base64(encode_key(vendor.exporter.public_key()))
    yield vector("policy-with-an-unknown-field", "malformed", edited(said, stray=1))
    yield vector("policy-that-requires-nothing", "malformed", edited(said, require=[]))
    yield vector("policy-that-requires-ml-dsa-alone", "malformed", edited(said, require=["ml-dsa-65"]))
    yield vector("policy-with-a-key-twice", "malformed", edited(said, exporter=[spki, spki]))
    yield vector("policy-with-one-key-for-both", "malformed", edited(said, licensing=[spki]))
    raw = signature.encode_base64(vendor.exporter.public_key().public_bytes_raw())
    yield vector("policy-with-a-raw-key", "malformed", edited(said, exporter=[raw]))
    row = canonical.decode(said)["bundles"][0]
    yield vector("policy-with-a-bundle-twice", "malformed", edited(said, bundles=[row, row]))
    yield vector("policy-with-an-empty-reason", "malformed", edited(said, bundles=[row | {"revoked": ""}]))
    yield vector("policy-with-a-space", "malformed", said.replace(b",", b", ", 1))


def _signatures(vendor: Vendor) -> Iterator[Vector]:
    classic, quantum = [vendor.exporter], [vendor.exporter, vendor.quantum]
    licensing = MLDSA65PrivateKey.from_seed_bytes(bytes([2]) * 32)
    strict = {
        "exporter": key_ring([key.public_key() for key in quantum], [ED25519, ML_DSA_65]),
        "licensing": key_ring([vendor.licensing.public_key(), licensing.public_key()], [ED25519, ML_DSA_65]),
    }

    def vector(name: str, expect: str, bundle: bytes, desk: Sequence[SigningKey] = (vendor.licensing, licensing)) -> Vector:
        permit = grant.issue(vendor.terms(bundle), vendor.content_key, vendor.key.recipient, desk)
        return Vector(name, expect, bundle, permit, NOW, (says(vendor, bundle, **strict),))

    both = vendor.bundle(signers=quantum)
    yield vector("valid-with-both-signatures", "ok", both)
    yield vector("ml-dsa-signature-missing", "untrusted_signature", vendor.bundle(signers=classic))
    yield vector("ml-dsa-signature-alone", "untrusted_signature", vendor.bundle(signers=[vendor.quantum]))
    yield vector("ml-dsa-signature-missing-on-the-grant", "untrusted_signature", both, [vendor.licensing])

    def spoil(envelope: breaking.Json) -> None:
        entry = envelope["signatures"][1]
        entry["sig"] = signature.encode_base64(flipped(signature.decode_base64(entry["sig"]), 9))

    yield vector("ml-dsa-signature-bad", "untrusted_signature", breaking.reenveloped(both, spoil))

    other = Vendor(11, "other")
    good = vendor.bundle()
    theirs = other.policy.bundles | {digest_of(good): Listing("forged", 1)}
    two = (says(vendor, good), says(other, bundles=theirs))
    named = vendor.bundle(signers=[vendor.exporter, other.exporter])
    everywhere = {digest_of(named): Listing("forged", 1)}
    names = (says(vendor, bundles=everywhere), says(other, bundles=everywhere))
    yield Vector("signed-in-the-name-of-two-vendors", "untrusted_signature", named, vendor.grant(named), NOW, names)
    permit = vendor.grant(good, signer=other.licensing)
    yield Vector("grant-of-another-vendor", "untrusted_signature", good, permit, NOW, two)


def _envelopes(vendor: Vendor) -> Iterator[Vector]:
    good = vendor.bundle()
    permit = vendor.grant(good)
    magic, rest = good[:8], good[12:]
    for name, bundle in {
        "empty-file": b"",
        "header-alone": good[:12],
        "envelope-length-zero": magic + bytes(4) + rest,
        "magic-through-a-text-mode": good.replace(b"\r\n", b"\n", 1),
        "envelope-of-another-type": breaking.reenveloped(good, lambda e: e.update(payloadType="text/plain")),
        "envelope-without-signatures": breaking.reenveloped(good, lambda e: e.update(signatures=[])),
        "envelope-with-nine-signatures": breaking.reenveloped(good, lambda e: e.update(signatures=e["signatures"] * 9)),
        "envelope-with-an-unknown-field": breaking.reenveloped(good, lambda e: e.update(stray=1)),
        "envelope-with-base64-of-another-spelling": breaking.reenveloped(
            good, lambda e: e["signatures"][0].update(sig=e["signatures"][0]["sig"].rstrip("="))
        ),
    }.items():
        yield Vector(name, "malformed", bundle, permit)


def _manifests(vendor: Vendor) -> Iterator[Vector]:
    good, own = vendor.bundle(), [vendor.exporter]

    def predicate(**changes: Any) -> bytes:
        return resigned(good, own, lambda s: s["predicate"].update(changes))

    def spelled(old: bytes, new: bytes) -> bytes:
        statement = canonical.encode(breaking.payload(good)).replace(old, new)
        return breaking.with_envelope(good, signature.sign(PAYLOAD_TYPE, statement, own))

    said = breaking.payload(good)["predicate"]
    for name, bundle in {
        "statement-of-another-predicate-type": resigned(good, own, lambda s: s.update(predicateType="urn:other")),
        "manifest-without-its-labels": resigned(good, own, lambda s: s["predicate"].pop("labels")),
        "manifest-with-two-labels-of-one-name": predicate(labels=[said["labels"][0]] * 3),
        "manifest-of-version-zero": predicate(model=said["model"] | {"version": 0}),
        "manifest-that-supports-no-version-of-itself": predicate(model=said["model"] | {"min_supported_version": 2}),
        "manifest-with-true-for-a-number": predicate(golden=said["golden"] | {"cases": True}),
        "manifest-with-a-number-over-its-limit": predicate(decision=said["decision"] | {"temperature_e6": 10**9 + 1}),
        "manifest-with-a-number-over-53-bits": spelled(b'"pixels_max":1000000', b'"pixels_max":9007199254740992'),
        "manifest-with-a-fraction": spelled(b'"cases":3', b'"cases":3.0'),
        "manifest-made-on-the-30th-of-february": predicate(created="2026-02-30T00:00:00Z"),
        "manifest-with-a-distance-and-no-reference": predicate(
            decision=said["decision"] | {"unknown": {"method": "mahalanobis", "reject_above_e6": 1}}
        ),
        "manifest-with-a-part-too-few": resigned(good, own, lambda s: s["subject"].pop()),
        "manifest-with-two-parts-of-one-role": resigned(
            good, own, lambda s: s["subject"][1]["annotations"].update(role="graph")
        ),
        "manifest-with-a-reference-and-no-distance": resigned(
            good,
            own,
            lambda s: s["subject"].append(
                s["subject"][2]
                | {"name": "reference", "annotations": s["subject"][2]["annotations"] | {"role": "reference"}}
            ),
        ),
        "manifest-with-two-outputs-of-one-name": predicate(outputs={"logits": "logits", "embedding": "logits"}),
        "manifest-with-one-label": predicate(labels=said["labels"][:1]),
        "manifest-with-two-parts-of-one-name": resigned(good, own, lambda s: s["subject"][1].update(name="graph")),
    }.items():
        yield Vector(name, "malformed", *granted_as(vendor, bundle)[:2])


def _grants(vendor: Vendor) -> Iterator[Vector]:
    good = vendor.bundle()
    yield Vector("valid-with-a-limit", "ok", good, vendor.grant(good, workers_max=2))
    limited = vendor.grant(good, workers_max=2)
    for name, changes in {
        "grant-with-limits-of-null": {"limits": None},
        "grant-with-limits-of-nothing": {"limits": {}},
        "grant-with-a-limit-over-its-own": {"limits": {"workers_max": 65}},
        "grant-with-an-unknown-limit": {"limits": {"workers_max": 2, "days": 2}},
        "grant-with-another-suite": {"suite": {"kem": 16, "kdf": 1, "aead": 2}},
        "grant-that-ends-before-it-begins": {"not_after": "2026-11-23T11:59:59Z"},
        "grant-with-a-time-of-another-spelling": {"not_after": "2027-11-24T12:00:00+00:00"},
    }.items():
        yield Vector(name, "malformed", good, regranted(limited, vendor.licensing, lambda t, c=changes: t.update(c)))
    lifted = regranted(limited, vendor.licensing, lambda terms: terms.pop("limits"))
    yield Vector("grant-without-its-limit", "wrong_key", good, lifted)
    raised = regranted(limited, vendor.licensing, lambda terms: terms.update(limits={"workers_max": 4}))
    yield Vector("grant-with-its-limit-raised", "wrong_key", good, raised)
    for length in (31, 33):
        short = grant.issue(vendor.terms(good), bytes(length), vendor.key.recipient, [vendor.licensing])
        yield Vector(f"grant-of-a-key-of-{length}-bytes", "wrong_key", good, short)


def _contents(vendor: Vendor) -> Iterator[Vector]:
    good, own = vendor.bundle(), [vendor.exporter]
    ours, weights = breaking.parts(good), forge.parts()["weights"]

    def of(name: str, expect: str, **changed: bytes) -> Vector:
        bundle = vendor.bundle(None, forge.parts() | changed)
        return Vector(name, expect, bundle, vendor.grant(bundle))

    def with_weights(name: str, part: bytes) -> Vector:
        bundle = with_signed_parts(good, own, [ours[0], part, *ours[2:]])
        return Vector(name, "corrupt_payload", bundle, vendor.grant(bundle))

    yield with_weights("part-with-its-salt-changed", flipped(ours[1], 3))
    yield with_weights("part-with-its-commitment-changed", flipped(ours[1], 24 * 8 + 3))
    yield with_weights("part-with-its-tag-changed", flipped(ours[1], len(ours[1]) * 8 - 1))
    yield with_weights("part-cut-by-a-byte", ours[1][:-1])
    longer = chunks.encrypt(vendor.content_key, breaking.context(good, 1), weights + b"\0")
    yield with_weights("part-longer-than-its-plain-size", longer)

    def model(**changes: Any) -> onnx.ModelProto:
        made = forge.model()
        for name, value in changes.items():
            getattr(made.graph, name).extend(value)
        return made

    def graph(name: str, made: onnx.ModelProto) -> Vector:
        return of(name, "refused_graph", graph=made.SerializeToString())

    functional = model()
    functional.functions.append(
        helper.make_function("local", "F", ["x"], ["y"], [helper.make_node("Identity", ["x"], ["y"])], [])
    )
    yield graph("graph-with-a-function", functional)
    values = helper.make_tensor("v", TensorProto.FLOAT, [1], [1.0])
    indices = helper.make_tensor("i", TensorProto.INT64, [1], [0])
    yield graph("graph-with-a-sparse-tensor", model(sparse_initializer=[helper.make_sparse_tensor(values, indices, [3])]))
    yield graph(
        "graph-with-an-output-more", model(output=[helper.make_tensor_value_info("flat", TensorProto.FLOAT, ["b", 64])])
    )
    fixed = model()
    fixed.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 4
    yield graph("graph-of-a-fixed-batch", fixed)
    older = model()
    older.opset_import[0].version = forge.OPSET - 1
    yield graph("graph-of-another-opset", older)
    inner = helper.make_graph([helper.make_node("Foo", [], ["z"], domain="com.microsoft")], "inner", [], [
        helper.make_tensor_value_info("z", TensorProto.FLOAT, [])
    ])  # fmt: skip
    branch = helper.make_node("If", ["c"], ["w"], then_branch=inner, else_branch=inner)
    yield graph("graph-with-another-domain-inside-a-branch", model(node=[branch]))

    yield graph("graph-of-two-opsets", _with_opset(model(), "ai.onnx", forge.OPSET))

    yield of("selftest-is-no-archive", "malformed", selftest=b"not an archive")
    golden = forge.golden()
    short = GoldenCases(golden.cases[:2], golden.logits[:2]).encode()
    yield of("selftest-with-a-case-too-few", "malformed", selftest=short)
    archive = dict(np.load(io.BytesIO(golden.encode())).items()) | {"more": np.zeros(1)}
    more = io.BytesIO()
    np.savez(more, **archive)  # type: ignore[arg-type]
    yield of("selftest-with-an-array-more", "malformed", selftest=more.getvalue())
    nan = GoldenCases(golden.cases, golden.logits * float("nan")).encode()
    yield of("golden-logits-not-a-number", "failed_golden_case", selftest=nan)


def _with_opset(model: onnx.ModelProto, domain: str, version: int) -> onnx.ModelProto:
    model.opset_import.append(helper.make_opsetid(domain, version))
    return model


def _kinds_of_image(vendor: Vendor) -> Iterator[Vector]:
    """What section 4.1 does to an image: a reader that does something else misses the golden logits."""
    upright = Image.fromarray(np.random.default_rng(1).integers(0, 256, (9, 13, 3), np.uint8))
    clear = upright.convert("RGBA")
    clear.putalpha(Image.fromarray(np.random.default_rng(2).integers(0, 256, (9, 13), np.uint8)))
    turned = Image.Exif()
    turned[0x0112] = 6  # EXIF's orientation: turn by 90 degrees
    images = [
        _file(upright, "PNG"),
        _file(clear, "PNG"),
        _file(upright, "JPEG", exif=turned),
        _file(upright.convert("P"), "PNG"),
    ]
    for channels, resize in ((3, "stretch"), (3, "crop"), (1, "crop")):
        yield _linear(vendor, f"valid-{'grey' if channels == 1 else 'colour'}-{resize}", "ok", channels, resize, images)
    deep = io.BytesIO()
    Image.fromarray(np.arange(64, dtype=np.uint16).reshape(8, 8)).save(deep, "PNG")
    yield _linear(vendor, "golden-case-of-16-bits", "failed_golden_case", 1, "stretch", images, deep.getvalue())
    yield _linear(
        vendor, "golden-case-over-its-pixels", "failed_golden_case", 1, "stretch", images, images[0], pixels_max=116
    )
    yield _linear(vendor, "golden-case-over-its-bytes", "failed_golden_case", 1, "stretch", images, images[0], bytes_max=100)


def _file(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _linear(
    vendor: Vendor,
    name: str,
    expect: str,
    channels: int,
    resize: str,
    images: list[bytes],
    instead: bytes | None = None,
    detector: Detector | None = None,
    **limits: int,
) -> Vector:
    """Logits and an embedding, linear in the pixels: weights of several chunks, a reference, and these golden cases.

    ``instead`` takes the first one's place after the logits were made.
    """
    spec = replace(forge.SPEC, shape=(8, 8, channels), image=replace(forge.SPEC.image, resize=resize))
    random = np.random.default_rng(channels)
    pixels, width = 64 * channels, 70
    embed = (random.standard_normal((pixels, width)) / 100).astype(np.float32)
    decide = random.standard_normal((width, forge.CLASSES)).astype(np.float32)
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["float"], ["flat"]),
        helper.make_node("MatMul", ["flat", "E"], ["embedding"]),
        helper.make_node("MatMul", ["embedding", "D"], ["logits"]),
    ]
    made = helper.make_graph(
        nodes,
        "linear",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", 8, 8, channels])],
        [
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", forge.CLASSES]),
            helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", width]),
        ],
        [forge.tensor("E", embed), onnx.numpy_helper.from_array(decide, "D")],
    )
    graph = helper.make_model(made, opset_imports=[helper.make_opsetid("", forge.OPSET)], ir_version=10)
    rows = inputs.decode(spec, images)
    logits = np.asarray(rows.reshape(len(rows), -1).astype(np.float32) @ embed @ decide, np.float32)
    golden = GoldenCases.of_encoded((instead or images[0], *images[1:]), logits)
    reference = detector or Mahalanobis(np.zeros((forge.CLASSES, width), np.float32), np.eye(width, dtype=np.float32))
    manifest = forge.manifest(
        inputs=(replace(spec, image=replace(spec.image, **limits)),),
        outputs=OutputSpec("logits", "embedding"),
        decision=replace(forge.RULE, unknown=Unknown(reference.method, 10**9)),
        golden=Golden(len(images), 10_000),
    )
    parts = {"graph": graph.SerializeToString(), "weights": embed.tobytes(), "card": forge.CARD}
    bundle = vendor.bundle(manifest, parts | {"selftest": golden.encode(), "reference": unknown.encode(reference)})
    return Vector(name, expect, bundle, vendor.grant(bundle))


def main(folder: Path = FOLDER) -> None:
    """Adds to a folder the vectors that it lacks."""
    vendor = Vendor()
    index_path = folder / "vectors.json"
    folder.mkdir(parents=True, exist_ok=True)
    index = json.loads(index_path.read_text()) if index_path.exists() else _empty_index(vendor)
    known = {row["name"] for row in index["vectors"]}
    for edition in (first_edition, second_edition, third_edition, fourth_edition):
        for vector in edition(vendor):
            if vector.name not in known:
                index["vectors"].append(_write(folder, vector))
    index_path.write_text(json.dumps(index, indent=1) + "\n")


def _empty_index(vendor: Vendor) -> dict[str, Any]:
    return {
        "format": "appliance bundle version 1",
        "appliance_seed": vendor.seed.hex(),
        "exporter": vendor.exporter.public_key().public_bytes_raw().hex(),
        "licensing": vendor.licensing.public_key().public_bytes_raw().hex(),
        "vectors": [],
    }


def _write(folder: Path, vector: Vector) -> dict[str, Any]:
    """The row of a vector, whose files are written where no file holds the same bytes yet."""
    row: dict[str, Any] = {
        "name": vector.name, "expect": vector.expect, "time": vector.time and format_time(vector.time),
        "bundle": _place(folder, vector.name, "bundle", vector.bundle),
        "grant": _place(folder, vector.name, "grant", vector.grant),
    }  # fmt: skip
    if vector.policies is not None:
        row["policies"] = [
            _place(folder, f"{vector.name}{i or ''}", "policy", said) for i, said in enumerate(vector.policies)
        ]
    if vector.version_min > 1:
        row["version_min"] = vector.version_min
    return row


def _place(folder: Path, name: str, kind: str, data: bytes) -> str:
    same = next((path for path in sorted(folder.glob(f"*.{kind}")) if path.read_bytes() == data), None)
    path = same or folder / f"{name}.{kind}"
    path.write_bytes(data)
    return path.name


if __name__ == "__main__":
    main()
