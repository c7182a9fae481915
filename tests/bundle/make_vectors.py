"""Makes ``tests/vectors/bundle``: what is valid, and one failure in each of the others.

The vectors are committed and kept: ``python -m tests.bundle.make_vectors`` is for a new version of the format, and for
another folder.
"""

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from onnx import TensorProto, helper

from appliance.bundle import chunks, container, grant
from appliance.bundle.enrolment import RecipientKey
from appliance.bundle.manifest import ModelId, RuntimeSpec
from appliance.canonical import format_time
from appliance.model.golden import GoldenCases
from tests import forge
from tests.bundle import breaking
from tests.bundle.breaking import flipped, resigned, with_parts, with_signed_parts
from tests.forge import NOW, Forge

FOLDER = Path(__file__).parents[1] / "vectors" / "bundle"

Pair = tuple[bytes, bytes, datetime]


class Vendor(Forge):
    """A forge whose keys are the same every time."""

    def __init__(self) -> None:
        self.exporter, self.licensing, self.stranger = (
            Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32) for n in (1, 2, 3)
        )
        self.content_key, self.seed = bytes([4]) * 32, bytes([5]) * 32
        self.key = RecipientKey(self.seed)


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
    channels = resigned(good, own, lambda s: s["predicate"]["input"].update(channels=2))
    yield "manifest-with-two-channels", "malformed", granted_as(vendor, channels)
    yield "grant-cut", "malformed", pair(given=permit[:-1])
    long_grace = breaking.regranted(permit, vendor.licensing, lambda t: t.update(grace_days=366))
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

    elsewhere = RecipientKey(bytes([6]) * 32).recipient
    terms = replace(vendor.terms(good), recipient=elsewhere.digest)
    moved = grant.issue(terms, vendor.content_key, elsewhere, vendor.licensing)
    yield "grant-for-another-appliance", "wrong_key", pair(given=moved)
    longer = breaking.regranted(permit, vendor.licensing, lambda t: t.update(not_after="2099-01-01T00:00:00Z"))
    yield "grant-lengthened-by-the-licensing-key", "wrong_key", pair(given=longer)

    ours = breaking.parts(good)
    yield "part-with-a-flipped-bit", "corrupt_payload", pair(flipped(good, (len(good) - 700) * 8))
    yield "file-cut", "corrupt_payload", pair(good[:-1])
    yield "file-extended", "corrupt_payload", pair(good + b"\0")
    yield "parts-swapped", "corrupt_payload", pair(with_parts(good, [ours[1], ours[0], ours[2]]))
    yield "parts-of-another-bundle", "corrupt_payload", pair(with_parts(good, breaking.parts(other)))
    weights = forge.parts()["weights"]
    for name, key, context, plain in (
        ("part-under-another-key", bytes(32), breaking.context(good, 1), weights),
        ("part-made-for-another-place", vendor.content_key, breaking.context(good, 2), weights),
        ("part-with-other-content", vendor.content_key, breaking.context(good, 1), bytes(len(weights))),
    ):
        changed = [ours[0], chunks.encrypt(key, context, plain), ours[2]]
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
    later = RuntimeSpec(forge.OPSET, "99.0.0", ("CPUExecutionProvider",), 16)
    yield "proved-with-a-later-runtime", "refused_graph", granted(vendor.bundle(forge.manifest(runtime=later)))

    golden = forge.golden()
    off = GoldenCases(golden.images, golden.logits + 1).encode()
    yield "golden-logits-off-by-one", "failed_golden_case", of(selftest=off)
    junk = GoldenCases((b"junk", *golden.images[1:]), golden.logits).encode()
    yield "golden-case-is-no-image", "failed_golden_case", of(selftest=junk)


def granted_as(vendor: Vendor, bundle: bytes) -> Pair:
    """A grant for a bundle whose manifest does not parse: by its digest."""
    import hashlib

    from appliance.bundle.signature import decode_base64

    digest = hashlib.sha256(decode_base64(breaking.envelope(bundle)["payload"])).hexdigest()
    return bundle, vendor.grant(vendor.bundle(), manifest_sha256=digest), NOW


def main() -> None:
    vendor, files = Vendor(), set()
    FOLDER.mkdir(parents=True, exist_ok=True)
    rows = []
    for name, expect, (bundle, permit, now) in vectors(vendor):
        row = {"name": name, "expect": expect, "time": format_time(now)}
        for kind, data in (("bundle", bundle), ("grant", permit)):
            same = next((path for path in sorted(files) if path.suffix == f".{kind}" and path.read_bytes() == data), None)
            path = same or FOLDER / f"{name}.{kind}"
            path.write_bytes(data)
            files.add(path)
            row[kind] = path.name
        rows.append(row)
    index = {
        "format": "appliance bundle version 1",
        "appliance_seed": vendor.seed.hex(),
        "exporter": vendor.exporter.public_key().public_bytes_raw().hex(),
        "licensing": vendor.licensing.public_key().public_bytes_raw().hex(),
        "vectors": rows,
    }
    (FOLDER / "vectors.json").write_text(json.dumps(index, indent=1) + "\n")


if __name__ == "__main__":
    main()
