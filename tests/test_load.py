"""Life of a model: it loads, or says at which step it was refused; and it leaves nothing behind."""

import os
import tempfile
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from appliance import load as loading
from appliance.bundle.manifest import Golden, Manifest, OutputSpec, RuntimeSpec, Unknown
from appliance.engine import graph
from appliance.engine.session import Hardware
from appliance.errors import BundleError, ConfigError, FailedGoldenCase, InvalidInput, MalformedBundle, RefusedGraph
from appliance.load import LoadedModel
from appliance.model import unknown
from appliance.model.golden import GoldenCases
from appliance.model.inputs import Encoded
from appliance.model.unknown import Mahalanobis
from tests import forge
from tests.forge import Forge

FORGE = Forge()
ONE = Encoded((b"one",))
CPU = Hardware(("CPUExecutionProvider",), 1)


def load(made: Manifest | None = None, hardware: Hardware = CPU, **changed: bytes) -> LoadedModel:
    """Loads a bundle that is forged from these parts, signed and granted as it should be."""
    bundle = FORGE.bundle(made, forge.parts() | changed)
    return loading.load(FORGE.open(bundle), hardware)


def test_a_forged_bundle_loads_and_answers_as_forged() -> None:
    model = load()
    assert (model.name, model.version, model.session.provider) == ("forged", 1, "CPUExecutionProvider")
    assert model.outputs == ("probabilities", "logits", "label", "decision")
    assert 0 <= model.golden_margin <= 0.001
    images = np.stack([forge.image(seed) for seed in range(5)])
    assert np.allclose(model.session.run((images,)).logits, forge.logits(images), atol=1e-4)


def test_a_caller_may_ask_for_what_the_model_has() -> None:
    model = load()
    model.require(frozenset({"label", "logits"}))
    model.require(frozenset())
    for name in ("image", ""):
        assert model.arrange([(name, ONE)]) == (ONE,)
    with pytest.raises(InvalidInput, match="inputs are image"):
        model.arrange([("picture", ONE)])
    with pytest.raises(InvalidInput, match="outputs are probabilities"):
        model.require(frozenset({"distance"}))


def test_weights_are_zeroed_once_the_session_has_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """The decrypted buffer, caught on its way to the session, holds nothing afterwards; and the model still answers."""
    seen: list[bytearray] = []
    inner = loading.open_session

    def catch(manifest: Manifest, data: bytearray, weights: bytearray, *rest: object) -> object:
        assert weights == forge.W.tobytes()
        seen.append(weights)
        return inner(manifest, data, weights, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(loading, "open_session", catch)
    model = load()
    assert seen == [bytearray(forge.W.nbytes)]
    image = forge.image(9)[None]
    assert np.allclose(model.session.run((image,)).logits, forge.logits(image), atol=1e-4)


@pytest.mark.parametrize("changed", [
    {}, {"graph": b"not a graph"}, {"selftest": b"junk"}, {"weights": bytes(forge.W.nbytes)},
], ids=["loaded", "refused graph", "malformed self-test", "failed golden case"])  # fmt: skip
def test_no_plaintext_is_left_however_a_load_ends(changed: dict[str, bytes]) -> None:
    """Graph, weights, and the golden cases, which are images of somebody."""
    bundle = FORGE.bundle(None, forge.parts() | changed)
    opened = FORGE.open(bundle)
    assert any(any(part) for part in opened.parts.values())
    with suppress(BundleError):
        loading.load(opened, CPU)
    assert not any(any(part) for part in opened.parts.values())


def test_the_runtime_sees_no_graph_that_was_not_inspected(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise RefusedGraph("refused")

    def never(*_: object) -> None:
        raise AssertionError("a session was opened")

    monkeypatch.setattr(graph, "inspect", refuse)
    monkeypatch.setattr(loading, "open_session", never)
    with pytest.raises(RefusedGraph):
        load()


def files(*folders: Path) -> set[tuple[Path, int]]:
    """Every file and its size."""
    return {(path, path.stat().st_size) for folder in folders for path in folder.rglob("*") if path.is_file()}


def test_nothing_is_written_to_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither to the working folder, nor where temporary files go, nor home."""
    for name in ("work", "temporary", "home"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.chdir(tmp_path / "work")
    assert tempfile.gettempdir() == str(tmp_path / "temporary")
    load()
    assert files(tmp_path) == set()
    assert os.listdir() == []  # noqa: PTH208


def wrong(by: float) -> bytes:
    """A self-test whose logits are off."""
    return forge.golden(by).encode()


def test_machine_that_does_not_reproduce_the_golden_cases_is_refused() -> None:
    with pytest.raises(FailedGoldenCase):
        load(selftest=wrong(0.01))
    assert load(forge.manifest(golden=Golden(3, 20_000)), selftest=wrong(0.01)).golden_margin == pytest.approx(
        0.01, rel=0.01
    )


@pytest.mark.parametrize("by", [float("nan"), float("inf")])
def test_golden_logits_that_are_no_numbers_are_refused(by: float) -> None:
    with pytest.raises(FailedGoldenCase):
        load(selftest=wrong(by))


def test_golden_case_that_is_no_image_is_refused_as_the_bundles_fault() -> None:
    """Not as a caller's bad input: nobody has called."""
    with pytest.raises(FailedGoldenCase, match="cannot be answered"):
        load(selftest=GoldenCases.of_encoded((b"junk",) * 3, forge.golden().logits).encode())


@pytest.mark.parametrize("data", [b"", b"junk", b"PK\x03\x04junk", forge.golden().encode()[:-30]])
def test_selftest_that_is_no_archive_is_malformed(data: bytes) -> None:
    with pytest.raises(MalformedBundle):
        load(selftest=data)


def test_provider_that_this_machine_lacks_is_the_operators_problem() -> None:
    allowed = RuntimeSpec(forge.OPSET, "1.20.0", "fp32", ("RemoteExecutionProvider", "CPUExecutionProvider"), 16)
    for providers in (("RemoteExecutionProvider",), ("NoSuchProvider",), ("CUDAExecutionProvider",)):
        with pytest.raises(ConfigError, match=r"engine\.providers"):
            load(forge.manifest(runtime=allowed), Hardware(providers, 1))


def test_provider_that_the_manifest_does_not_allow_is_never_used() -> None:
    only = RuntimeSpec(forge.OPSET, "1.20.0", "fp32", ("CUDAExecutionProvider",), 16)
    with pytest.raises(ConfigError):
        load(forge.manifest(runtime=only))


def test_model_proved_with_a_later_runtime_is_refused() -> None:
    later = RuntimeSpec(forge.OPSET, "99.0.0", "fp32", ("CPUExecutionProvider",), 16)
    with pytest.raises(RefusedGraph, match="later release"):
        load(forge.manifest(runtime=later))


def test_telemetry_that_is_not_off_stops_the_load(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORT_DISABLE_TELEMETRY", "0")
    with pytest.raises(ConfigError, match="telemetry"):
        load()


def graph_of(*nodes: onnx.NodeProto, tensors: tuple[TensorProto, ...] = ()) -> bytes:
    """A graph with the forged model's interface and other nodes."""
    model = forge.model()
    del model.graph.node[:], model.graph.initializer[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(tensors)
    return model.SerializeToString()


def test_graph_that_the_runtime_does_not_know_is_refused() -> None:
    with pytest.raises(RefusedGraph, match="does not take"):
        load(graph=graph_of(helper.make_node("NoSuchOperator", ["image"], ["logits"])))


def test_runtime_never_guesses_that_a_graph_is_of_its_own_format() -> None:
    """An unknown field in front puts the runtime's own mark where it looks for it; what was inspected is what runs."""
    disguise = b"\xc2\x3e\x10" + b"xORTM" + bytes(11)  # field 1000, 16 bytes
    graph = disguise + forge.model().SerializeToString()
    assert graph[4:8] == b"ORTM"
    with pytest.raises(Exception, match="ORT model"):
        ort.InferenceSession(graph, providers=["CPUExecutionProvider"])
    images = forge.image(3)[None]
    assert np.allclose(load(graph=graph).session.run((images,)).logits, forge.logits(images), atol=1e-4)


def test_graph_that_fails_when_it_runs_is_refused() -> None:
    """A Reshape that 64 pixels cannot fill, which nobody can know before running it."""
    data = graph_of(
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMax", ["image"], ["top"], keepdims=0),
        helper.make_node("Cast", ["top"], ["count"], to=TensorProto.INT64),
        helper.make_node("Unsqueeze", ["count", "zero"], ["row"]),
        helper.make_node("Concat", ["row", "three"], ["shape"], axis=0),
        helper.make_node("Reshape", ["float", "shape"], ["logits"]),
        tensors=tuple(onnx.numpy_helper.from_array(np.array([n]), name) for name, n in (("zero", 0), ("three", 3))),
    )
    with pytest.raises(RefusedGraph, match="cannot run"):
        load(graph=data)


def test_graph_that_answers_in_another_shape_than_it_declares_is_refused() -> None:
    """Declared ``[batch, 3]``; what comes is the number of non-zero pixels by two."""
    data = graph_of(
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["float"], ["flat"]),
        helper.make_node("NonZero", ["flat"], ["where"]),
        helper.make_node("Transpose", ["where"], ["pairs"]),
        helper.make_node("Cast", ["pairs"], ["logits"], to=TensorProto.FLOAT),
    )
    with pytest.raises(FailedGoldenCase, match="shape"):
        load(graph=data)


def embedding_model() -> bytes:
    """The forged model, with its product as an embedding of width 3."""
    model = forge.model()
    model.graph.output.append(helper.make_tensor_value_info("product", TensorProto.FLOAT, ["batch", 3]))
    return model.SerializeToString()


KNOWING = forge.manifest(
    outputs=OutputSpec("logits", "product"), decision=replace(forge.RULE, unknown=Unknown("mahalanobis", 5_000_000))
)


def reference(width: int) -> bytes:
    return unknown.encode(Mahalanobis(np.zeros((3, width), np.float32), np.eye(width, dtype=np.float32)))


def test_model_with_a_reference_tells_distances() -> None:
    model = load(KNOWING, graph=embedding_model(), reference=reference(3))
    assert model.outputs[-1] == "distance"
    found = model.session.run((forge.image(1)[None],))
    judged = model.judge.judge(found.logits, found.embedding)
    assert judged.distance is not None
    assert judged.distance[0] == pytest.approx(np.linalg.norm(found.logits[0] - forge.B), rel=1e-4)


def test_reference_of_another_width_than_the_embedding_never_serves() -> None:
    with pytest.raises(FailedGoldenCase, match="cannot be answered"):
        load(KNOWING, graph=embedding_model(), reference=reference(4))


def test_reference_of_other_classes_is_malformed() -> None:
    two = unknown.encode(Mahalanobis(np.zeros((2, 3), np.float32), np.eye(3, dtype=np.float32)))
    with pytest.raises(MalformedBundle):
        load(KNOWING, graph=embedding_model(), reference=two)


def test_model_brings_its_card() -> None:
    assert load().card == forge.CARD.decode()


@pytest.mark.parametrize("card", [b"\xff", b"#" * ((1 << 20) + 1)], ids=["not UTF-8", "over a mebibyte"])
def test_card_that_nobody_can_read_is_malformed(card: bytes) -> None:
    with pytest.raises(MalformedBundle, match="model card"):
        load(card=card)
