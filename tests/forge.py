"""Forges valid things in memory (bundles, grants, sites), so that a test can break one thing and expect one error.

The forged model is tiny and exact: uint8 8×8 grey images, logits = pixels @ W + b in float32, so a test can compute what a
row's answer must be, and no two different rows have the same one.
"""

import io
import os
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from numpy.typing import NDArray
from onnx import TensorProto, helper
from PIL import Image

from appliance import keys, wiring
from appliance.audit.verify import KEY_FILE
from appliance.bundle import grant, opening
from appliance.bundle.enrolment import RecipientKey
from appliance.bundle.grant import Terms
from appliance.bundle.manifest import (
    DecisionRule,
    Golden,
    InputSpec,
    Label,
    Manifest,
    ModelId,
    OutputSpec,
    Provenance,
    RuntimeSpec,
)
from appliance.bundle.opening import Opened, TrustedKeys
from appliance.bundle.signature import key_ring
from appliance.cli.authority import Authority
from appliance.keys import SealedFiles
from appliance.model import inputs
from appliance.model.golden import GoldenCases
from appliance.site import Site
from export.seal import seal

SIDE, CLASSES, OPSET = 8, 3, 20
NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
PASSPHRASE = b"a passphrase for tests"

_random = np.random.default_rng(7)
W: NDArray[np.float32] = (_random.standard_normal((SIDE * SIDE, CLASSES)) / 100).astype(np.float32)
B: NDArray[np.float32] = _random.standard_normal(CLASSES).astype(np.float32)

SPEC = InputSpec("image", SIDE, SIDE, 1, "stretch", 1_000_000, 1 << 20)


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


def golden() -> GoldenCases:
    images = [png(image(seed)) for seed in range(3)]
    return GoldenCases(tuple(images), logits(inputs.decode(SPEC, images)))


def parts() -> dict[str, bytes]:
    """Plain content by role."""
    return {"graph": model().SerializeToString(), "weights": W.tobytes(), "selftest": golden().encode()}


def manifest(**changes: Any) -> Manifest:
    """A valid manifest; ``changes`` replace whole fields."""
    return replace(
        Manifest(
            bundle_id="00112233445566778899aabbccddeeff",
            model=ModelId("forged", 1, 1),
            created="2026-11-24T10:00:00Z",
            change_class="initial",
            intended_use="For tests alone.",
            input=SPEC,
            outputs=OutputSpec("logits", None),
            labels=tuple(Label(name, None) for name in ("one", "two", "three")),
            decision=DecisionRule(1_000_000, 500_000, None),
            runtime=RuntimeSpec(OPSET, "1.20.0", ("CPUExecutionProvider",), 16),
            golden=Golden(3, 1000),
            provenance=Provenance("ab" * 32, {"forge": "1"}, {"images": 3}),
            parts=(),
        ),
        **changes,
    )


class Forge:
    """A vendor and one appliance, in memory."""

    def __init__(self) -> None:
        self.exporter, self.licensing = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
        self.content_key, self.seed = os.urandom(32), os.urandom(32)
        self.key = RecipientKey(self.seed)

    @property
    def trusted(self) -> TrustedKeys:
        return TrustedKeys(key_ring([self.exporter.public_key()]), key_ring([self.licensing.public_key()]))

    def bundle(
        self,
        made: Manifest | None = None,
        plain: dict[str, bytes] | None = None,
        signers: Sequence[Ed25519PrivateKey] | None = None,
    ) -> bytes:
        return seal(made or manifest(), plain or parts(), self.content_key, signers or [self.exporter])

    def terms(self, bundle: bytes, **changes: Any) -> Terms:
        genuine = opening.parse(bundle).verify(self.trusted)
        made = Terms(
            manifest_sha256=genuine.digest,
            model=genuine.manifest.model.id,
            version=genuine.manifest.model.version,
            site="Test hospital",
            recipient=self.key.recipient.digest,
            not_before=NOW - timedelta(days=1),
            not_after=NOW + timedelta(days=365),
            grace_days=30,
        )
        return replace(made, **changes)

    def grant(self, bundle: bytes, signer: Ed25519PrivateKey | None = None, **changes: Any) -> bytes:
        terms = self.terms(bundle, **changes)
        return grant.issue(terms, self.content_key, self.key.recipient, signer or self.licensing)

    def open(self, bundle: bytes, permit: bytes | None = None, now: datetime = NOW) -> Opened:
        """Steps 1 to 5 of the order of trust."""
        genuine = opening.parse(bundle).verify(self.trusted)
        return genuine.admit(permit or self.grant(bundle), self.key, self.trusted, now).decrypt()

    def site(self, folder: Path, bundles: Sequence[bytes] = (), settings: str = "") -> "ForgedSite":
        """A site directory that can serve, on free ports of 127.0.0.1, with these bundles active."""
        authority = Authority()
        root = folder / "site"
        for name in ("keys", "secrets", "tls", "trust/exporter", "trust/licensing", "models", "audit"):
            (root / name).mkdir(parents=True)
        (root / "appliance.toml").write_text(_TOML + settings)
        keys.write_private(root / "secrets" / "passphrase", PASSPHRASE)
        provider = SealedFiles(root / "keys", PASSPHRASE)
        for purpose in (keys.APPLIANCE_SEED, keys.AUDIT_KEY, keys.PSEUDONYM_KEY):
            provider.create(purpose)
        self.seed = provider.get(keys.APPLIANCE_SEED)
        self.key = RecipientKey(self.seed)
        (root / "audit" / KEY_FILE).write_text(wiring.log_key(provider).verifier.encode() + "\n")
        for role, key in (("exporter", self.exporter), ("licensing", self.licensing)):
            form = (Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
            (root / "trust" / role / "vendor.pem").write_bytes(key.public_key().public_bytes(*form))
        authority.server(root / "tls")
        for bundle in bundles:
            made = opening.parse(bundle).verify(self.trusted).manifest.model
            today = datetime.now(UTC).replace(microsecond=0)
            permit = self.grant(bundle, not_before=today - timedelta(days=1), not_after=today + timedelta(days=90))
            Site(root).install(made.id, made.version, bundle, permit)
            Site(root).activate(made.id, made.version)
        return ForgedSite(root, authority, folder)


class ForgedSite:
    """A site on disk, and a CA that its server trusts."""

    def __init__(self, root: Path, authority: Authority, folder: Path) -> None:
        self.root, self.authority, self._folder = root, authority, folder

    @property
    def config(self) -> Path:
        return self.root / "appliance.toml"

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
