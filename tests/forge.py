"""Forges valid things, so that a test can break one thing and expect one error: bundles, grants and policies in memory,
trust repositories and sites on disk.

The forged model is tiny and exact: uint8 8×8 grey images, logits = pixels @ W + b in float32, so a test can compute what a
row's answer must be, and no two different rows have the same one. The one that takes texts is too: logits = tokens @ V, and
every sum is a number that float32 has.
"""

import hashlib
import io
import json
import os
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import onnx
import onnxruntime as ort
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from numpy.typing import NDArray
from onnx import TensorProto, helper
from PIL import Image

from appliance import keys, trust, wiring
from appliance.audit.verify import KEY_FILE
from appliance.bundle import grant, opening, secret
from appliance.bundle.enrolment import RecipientKey
from appliance.bundle.grant import Terms
from appliance.bundle.manifest import (
    Accept,
    DecisionRule,
    Expected,
    Golden,
    ImageSpec,
    InputSpec,
    Label,
    Manifest,
    ModelId,
    OutputSpec,
    Provenance,
    RuntimeSpec,
    TextSpec,
)
from appliance.bundle.opening import Opened
from appliance.bundle.policy import Listing, Policy
from appliance.bundle.signature import ED25519, SigningKey, key_ring
from appliance.cli.authority import Authority as CertificateAuthority
from appliance.errors import StateError
from appliance.keys import SealedFiles
from appliance.model import inputs
from appliance.model.golden import GoldenCases
from appliance.site import Site
from appliance.state import State, trust_detail
from export.seal import seal
from export.trust import Authority, Repository

SIDE, CLASSES, OPSET = 8, 3, 20
NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
PASSPHRASE = b"a passphrase for tests"

_random = np.random.default_rng(7)
W: NDArray[np.float32] = (_random.standard_normal((SIDE * SIDE, CLASSES)) / 100).astype(np.float32)
B: NDArray[np.float32] = _random.standard_normal(CLASSES).astype(np.float32)

SPEC = InputSpec("image", "UINT8", (SIDE, SIDE, 1), ImageSpec("stretch", "full", 1_000_000, 1 << 20))

TOKENS = 8
WORDS = ("no", "effusion", "heart", "normal", ".", *"0123456789")
TEXT_SPEC = InputSpec("report", "INT64", (1 + TOKENS,), text=TextSpec("folded", 200, WORDS))
V: NDArray[np.float32] = (_random.integers(-64, 64, (1 + TOKENS, CLASSES)) / 128).astype(np.float32)

RULE = DecisionRule(1_000_000, Accept("max_probability", 500_000), None, None, Expected(100, 5, 0))
CARD = b"# A model for tests\n"


def logits(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """What the forged model must answer, float32 ``[N, 3]``."""
    return np.asarray(images.reshape(len(images), -1).astype(np.float32) @ W + B, np.float32)


def image(seed: int) -> NDArray[np.uint8]:
    """A grey image of its own, uint8 ``[8, 8, 1]``."""
    return np.random.default_rng(seed).integers(0, 256, (SIDE, SIDE, 1), np.uint8)


def png(pixels: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(buffer, "PNG")
    return buffer.getvalue()


def text_logits(texts: Sequence[str]) -> NDArray[np.float32]:
    """What the forged model of texts must answer, float32 ``[N, 3]``, where spaces alone divide a text's words."""
    rows = np.zeros((len(texts), 1 + TOKENS), np.float32)
    for row, text in zip(rows, texts, strict=True):
        words = text.lower().split()
        row[: 1 + len(words)] = [len(words), *(WORDS.index(word) + 2 if word in WORDS else 1 for word in words)]
    return np.asarray(rows @ V, np.float32)


def report(number: int) -> str:
    """A text of its own, up to 99,999."""
    return " ".join(["Heart", *str(number), "."])


def tensor(name: str, values: NDArray[Any]) -> TensorProto:
    """A tensor that lies in the weights part, at its start."""
    made = TensorProto(name=name, data_type=helper.np_dtype_to_tensor_dtype(values.dtype), dims=values.shape)
    made.data_location = TensorProto.EXTERNAL
    for key, value in (("location", "weights"), ("offset", "0"), ("length", str(values.nbytes))):
        made.external_data.add(key=key, value=value)
    return made


def model() -> onnx.ModelProto:
    """The forged graph; its W lies in the weights part."""
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["float"], ["flat"]),
        helper.make_node("MatMul", ["flat", "W"], ["product"]),
        helper.make_node("Add", ["product", "B"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "forged",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", SIDE, SIDE, 1])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", CLASSES])],
        [tensor("W", W), onnx.numpy_helper.from_array(B, "B")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)


def text_model() -> onnx.ModelProto:
    """The forged graph that takes texts; its V lies in the weights part."""
    nodes = [
        helper.make_node("Cast", ["report"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["float", "V"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "forged",
        [helper.make_tensor_value_info("report", TensorProto.INT64, ["batch", 1 + TOKENS])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", CLASSES])],
        [tensor("V", V)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)


def golden(shift: float = 0) -> GoldenCases:
    """Three cases; with a ``shift`` of their logits they are wrong."""
    images = [png(image(seed)) for seed in range(3)]
    return GoldenCases.of_encoded(images, logits(inputs.decode(SPEC, images)) + np.float32(shift))


def parts() -> dict[str, bytes]:
    """Plain content by role."""
    return {"graph": model().SerializeToString(), "weights": W.tobytes(), "selftest": golden().encode(), "card": CARD}


def manifest(**changes: Any) -> Manifest:
    """A valid manifest; ``changes`` replace whole fields."""
    return replace(
        Manifest(
            bundle_id="00112233445566778899aabbccddeeff",
            model=ModelId("forged", 1, 1),
            created="2026-11-24T10:00:00Z",
            change_class="initial",
            intended_use="For tests alone.",
            inputs=(SPEC,),
            outputs=OutputSpec("logits", None),
            labels=tuple(Label(name, None) for name in ("one", "two", "three")),
            decision=RULE,
            runtime=RuntimeSpec(OPSET, "1.20.0", "fp32", ("CPUExecutionProvider",), 16),
            golden=Golden(3, 1000),
            provenance=Provenance("ab" * 32, {"forge": "1"}, {"images": 3}),
            parts=(),
        ),
        **changes,
    )


class Forge:
    """A vendor and one appliance, in memory. Whatever it seals or grants, it also publishes."""

    def __init__(self, name: str = "forge") -> None:
        self.name = name
        self.exporter, self.licensing = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
        self.release, self.root = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
        self.content_key, self.seed = os.urandom(32), os.urandom(32)
        self.key = RecipientKey.of(self.seed)
        self.published: dict[str, Listing] = {}

    @property
    def policy(self) -> Policy:
        """What the vendor says; a bundle that is published later is in it too."""
        rings = (key_ring([key.public_key()]) for key in (self.exporter, self.licensing))
        return Policy(self.name, *rings, self.published, {})

    @property
    def policies(self) -> list[Policy]:
        return [self.policy]

    def publish(self, bundle: bytes, revoked: str | None = None) -> str:
        """Lists a bundle, whoever signed it, perhaps as revoked; its digest."""
        statement = opening.parse(bundle).envelope.payload
        model = json.loads(statement)["predicate"]["model"]
        digest = hashlib.sha256(statement).hexdigest()
        self.published[digest] = Listing(model["id"], model["version"], revoked)
        return digest

    def bundle(
        self,
        made: Manifest | None = None,
        plain: dict[str, bytes] | None = None,
        signers: Sequence[SigningKey] | None = None,
    ) -> bytes:
        sealed = seal(made or manifest(), plain or parts(), self.content_key, signers or [self.exporter])
        self.publish(sealed)
        return sealed

    def version(self, number: int, minimum: int = 1, **changes: Any) -> bytes:
        """A bundle of some version of the forged model, all of which answer alike."""
        return self.bundle(manifest(model=ModelId("forged", number, minimum), bundle_id=f"{number:032x}", **changes))

    def texts(self, **changes: Any) -> bytes:
        """A bundle of the forged model that takes texts, named ``reports``."""
        cases = [report(number) for number in range(3)]
        plain = {
            "graph": text_model().SerializeToString(),
            "weights": V.tobytes(),
            "selftest": GoldenCases.of_encoded([case.encode() for case in cases], text_logits(cases)).encode(),
            "card": CARD,
        }
        fields = {"model": ModelId("reports", 1, 1), "inputs": (TEXT_SPEC,), "bundle_id": f"{7:032x}"}
        return self.bundle(manifest(**fields | changes), plain)

    def large(self, number: int, mebibytes: int) -> bytes:
        """A version with so many MiB of weights: 64 pixels, dense layers of 1,024, three logits."""
        random, width, weights = np.random.default_rng(number), 1024, bytearray()
        shapes = [(64, width), *[(width, width)] * (mebibytes * 1024 * 1024 // (4 * width * width)), (width, 3)]
        nodes = [
            helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
            helper.make_node("Flatten", ["float"], ["flat"]),
            helper.make_node("Mul", ["flat", "scale"], ["h0"]),
        ]
        tensors = [onnx.numpy_helper.from_array(np.float32(1 / 255), "scale")]
        for i, shape in enumerate(shapes):
            values = (random.standard_normal(shape) / 25).astype(np.float32)
            tensors.append(tensor(f"W{i}", values))
            tensors[-1].external_data[1].value = str(len(weights))
            weights += values.tobytes()
            last = i == len(shapes) - 1
            nodes.append(helper.make_node("MatMul", [f"h{i}", f"W{i}"], ["logits" if last else f"p{i}"]))
            if not last:
                nodes.append(helper.make_node("Relu", [f"p{i}"], [f"h{i + 1}"]))
        small = model()
        made = helper.make_graph(nodes, "large", list(small.graph.input), list(small.graph.output), tensors)
        graph = helper.make_model(made, opset_imports=small.opset_import, ir_version=10).SerializeToString()
        options = ort.SessionOptions()
        options.add_external_initializers_from_files_in_memory(["weights"], [weights], [len(weights)])
        session = ort.InferenceSession(graph, sess_options=options, providers=["CPUExecutionProvider"])
        images = [png(image(seed)) for seed in range(3)]
        golden = GoldenCases.of_encoded(images, session.run(["logits"], {"image": inputs.decode(SPEC, images)})[0])
        return self.bundle(
            manifest(model=ModelId("forged", number, 1), bundle_id=f"{number:032x}", golden=Golden(3, 1000)),
            {"graph": graph, "weights": bytes(weights), "selftest": golden.encode(), "card": CARD},
        )

    def terms(self, bundle: bytes, **changes: Any) -> Terms:
        digest = self.publish(bundle)
        made = Terms(
            manifest_sha256=digest,
            model=self.published[digest].model,
            version=self.published[digest].version,
            site="Test hospital",
            recipient=self.key.recipient.digest,
            not_before=NOW - timedelta(days=1),
            not_after=NOW + timedelta(days=365),
            grace_days=30,
        )
        return replace(made, **changes)

    def grant(self, bundle: bytes, signer: SigningKey | None = None, **changes: Any) -> bytes:
        terms = self.terms(bundle, **changes)
        return grant.issue(terms, self.content_key, self.key.recipient, [signer or self.licensing])

    def grant_today(self, bundle: bytes, **changes: Any) -> bytes:
        """A grant that is good by this machine's clock."""
        today = datetime.now(UTC).replace(microsecond=0)
        return self.grant(
            bundle, **{"not_before": today - timedelta(days=1), "not_after": today + timedelta(days=90)} | changes
        )

    def open(self, bundle: bytes, permit: bytes | None = None, now: datetime | None = NOW) -> Opened:
        """Steps 1 to 5 of the order of trust."""
        permit = permit or self.grant(bundle)
        return opening.parse(bundle).verify(self.policies).admit(permit, self.key, now).decrypt()

    def repository(self, folder: Path, now: datetime | None = None) -> Repository:
        """A trust repository in a folder, one root key and one release key."""
        made, now = Repository(folder), now or datetime.now(UTC)
        root, release, exporter, licensing = (
            [key.public_key()] for key in (self.root, self.release, self.exporter, self.licensing)
        )
        signers = [self.root, self.release]
        assert made.create(self.name, Authority(root, 1, release, exporter, licensing, [ED25519]), signers, now) == 0
        if self.published:
            self.say(made, now)
        return made

    def rotate(self, repository: Repository, **authority: Any) -> None:
        """Changes whose keys count, by the root key's word."""
        assert repository.rotate(Authority(**authority), [self.root], datetime.now(UTC)) == 0

    def say(self, repository: Repository, now: datetime | None = None) -> None:
        """Publishes what is in ``published`` now."""
        repository.publish(
            lambda said: replace(said, bundles=dict(self.published)), [self.release], now or datetime.now(UTC)
        )

    def site(self, folder: Path, bundles: Sequence[bytes] = (), settings: str = "") -> "ForgedSite":
        """A site directory that can serve, on free ports of 127.0.0.1, where these bundles were activated in this order.

        Nobody has loaded them: a bundle may be one that is refused.
        """
        authority = CertificateAuthority()
        root = folder / "site"
        for name in ("keys", "secrets", "tls", "trust", "models", "audit"):
            (root / name).mkdir(parents=True)
        root.chmod(0o700)
        (root / "appliance.toml").write_text(_TOML + settings)
        keys.write_private(root / "secrets" / "passphrase", PASSPHRASE)
        provider = SealedFiles(root / "keys", PASSPHRASE)
        with mock.patch.multiple(secret, MEMORY_KIB=128, ITERATIONS=1, LANES=1):  # a test need not wait for Argon2id
            for purpose in (keys.APPLIANCE_SEED, keys.AUDIT_KEY, keys.PSEUDONYM_KEY):
                provider.create(purpose)
        self.seed = provider.get(keys.APPLIANCE_SEED)
        self.key = RecipientKey.of(self.seed)
        (root / "audit" / KEY_FILE).write_text(wiring.log_key(provider).verifier.encode() + "\n")
        authority.server(root / "tls")
        for bundle in bundles:
            self.publish(bundle)
        made = ForgedSite(root, authority, folder, self, self.repository(folder / "repository"))
        made.trust()
        for bundle in bundles:
            made.install(bundle)
            made.activate(bundle)
        return made


class ForgedSite:
    """A site on disk, a CA that its server trusts, and the repository of the vendor that it trusts."""

    def __init__(
        self, root: Path, authority: "CertificateAuthority", folder: Path, vendor: Forge, repository: Repository
    ) -> None:
        self.root, self.authority, self._folder = root, authority, folder
        self.vendor, self.repository = vendor, repository
        self.site = Site(root)

    @property
    def config(self) -> Path:
        return self.root / "appliance.toml"

    @property
    def medium(self) -> Path:
        """The folder of the trust repository."""
        return self._folder / "repository"

    @property
    def state(self) -> State:
        """What the site remembers; of a new one, nothing."""
        try:
            return self.site.remembered(self.vendor.seed)
        except StateError:
            return State(datetime.now(UTC).replace(microsecond=0))

    def remember(self, state: State) -> None:
        self.site.remember(state, self.vendor.seed)

    def trust(self) -> None:
        """Takes the repository in, and remembers it."""
        new = trust.refresh(self.site.incoming, trust.read_medium(self.medium), None)
        self.site.write_policy(new.policy.vendor, new.vendor, new.policy_bytes)
        detail = trust_detail(new.policy.vendor, new.vendor)
        self.remember(self.state.after("trust.update", None, detail, datetime.now(UTC)))

    def install(self, bundle: bytes, permit: bytes | None = None) -> None:
        """Puts a bundle and a grant in place, unchecked."""
        made = self.vendor.terms(bundle)
        incoming = self.site.incoming / "forged"
        incoming.write_bytes(bundle)
        self.site.install(made.model, made.version, incoming, permit or self.vendor.grant_today(bundle))

    def activate(self, bundle: bytes) -> None:
        """Remembers that a bundle was activated, unchecked."""
        terms = self.vendor.terms(bundle)
        model = {"id": terms.model, "version": terms.version, "digest": terms.manifest_sha256}
        detail = {"vendor": "forge", "min_supported_version": 1}
        self.remember(self.state.after("model.activate", model, detail, datetime.now(UTC)))

    def client(self, *dns: str) -> Path:
        """A folder with ``ca.crt``, ``client.crt`` and ``client.key`` for a client of these DNS names, perhaps none."""
        folder = self._folder / ("client-" + "-".join(dns))
        if not folder.exists():
            self.authority.client(folder, *[x509.DNSName(name) for name in dns])
        return folder


_TOML = """\
[site]
name = "Test hospital"

[server]
address = "127.0.0.1:0"
certificate = "tls/server.crt"
key = "tls/server.key"
client_ca = "tls/clients-ca.crt"
lame_duck_s = 0

[metrics]
address = "127.0.0.1:0"

[keys]
passphrase_file = "secrets/passphrase"

[[access]]
caller = "DNS:reader"
roles = ["predict"]
models = ["forged"]

[[access]]
caller = "DNS:admin"
roles = ["administer", "predict"]

"""
