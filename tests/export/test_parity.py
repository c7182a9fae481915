"""The gate: a graph that differs from the author's network, or that mixes its rows, does not pass."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

from appliance.model import inputs
from appliance.model.inputs import Rows
from export import parity
from export.errors import ParityError
from export.graph import Graph
from export.parity import LIMITS
from export.session import GraphSession, Outputs
from tests.export.desk import Opened

ANY = np.zeros(400, np.int64)


@pytest.fixture(scope="module")
def images(trained: Path, opened: Opened) -> Rows:
    files = [path.read_bytes() for path in sorted((trained / "test").glob("*/*.png"))]
    return (inputs.decode(opened.manifest.inputs[0], files),)


def test_graph_answers_as_torch_did(trained: Path, opened: Opened, images: Rows) -> None:
    """On images that the build has never seen, against what torch wrote down when it was trained."""
    reference = np.load(trained / "test-reference.npz")
    found = opened.session().run(images, 7)
    assert np.abs(found.logits - reference["logits"]).max() <= 1e-4
    network = Outputs(reference["logits"], found.embedding)
    report = parity.check(opened.session(), images, network, reference["labels"], 32)
    assert (report.cases, report.agreement_e6, report.accuracy_drop_e6) == (400, 1_000_000, 0)
    assert report.logit_difference_e9 <= 100_000


def disturbed(opened: Opened, factor: float) -> GraphSession:
    weights = np.frombuffer(opened.parts["weights"], np.float32) * np.float32(factor)
    return GraphSession(Graph(opened.parts["graph"], weights.tobytes()))


def test_perturbed_weights_do_not_pass(opened: Opened, images: Rows) -> None:
    """One part in a thousand on every weight is seen, and the sentence has the figures."""
    truth = opened.session().run(images, 32)
    with pytest.raises(ParityError, match=r"by \d\.\d\de-\d\d on validation cases; \d\.\d\de-\d\d is allowed"):
        parity.check(disturbed(opened, 1.001), images, truth, ANY, 32)


def test_each_precision_has_limits_of_its_own(opened: Opened, images: Rows) -> None:
    """What is too much for float32 may pass for half precision, and what is too much for that, for integers."""
    truth = opened.session().run(images, 32)
    labels = truth.logits.argmax(axis=1)
    small, large = disturbed(opened, 1.001), disturbed(opened, 1.02)
    assert parity.check(small, images, truth, labels, 32, precision="fp16").logit_difference_e9 > 1_000_000
    with pytest.raises(ParityError, match="in a logit"):
        parity.check(large, images, truth, labels, 32, precision="fp16")
    assert parity.check(large, images, truth, labels, 32, precision="int8").agreement_e6 >= 980_000
    with pytest.raises(ParityError, match=r"another top class .* 2\.0% is allowed|less often"):
        parity.check(disturbed(opened, -1), images, truth, labels, 32, precision="int8")


def test_class_that_pays_for_the_others_is_seen() -> None:
    """Integers may lose half a point over all and one in a class; here they lose a tenth of one, and gain elsewhere."""
    labels = np.repeat([0, 1], 200)
    wanted = np.eye(2)[labels]
    wanted[200:220] = [1, 0]  # twenty of the other class were wrong
    found = np.eye(2)[labels]
    found[:20] = [0, 1]
    with pytest.raises(ParityError, match="20 times less often than the network among those of label 0, 200"):
        parity._check_accuracy(found, wanted, labels, LIMITS["int8"])
    found[2:20] = [1, 0]
    drop, worst = parity._check_accuracy(found, wanted, labels, LIMITS["int8"])
    assert drop < 0 < worst <= 0.01


def test_value_that_is_not_a_number_does_not_pass(opened: Opened, images: Rows) -> None:
    truth = opened.session().run(images, 32)
    with pytest.raises(ParityError, match=r"graph gives .* not finite"):
        parity.check(disturbed(opened, float("nan")), images, truth, ANY, 32)


def test_too_few_cases_prove_nothing(opened: Opened, images: Rows) -> None:
    few = (images[0][:63],)
    truth = opened.session().run(few, 32)
    with pytest.raises(ParityError, match="at least 64 real cases, and there are 63"):
        parity.check(opened.session(), few, truth, ANY[:63], 32)


def session_of(
    *nodes: onnx.NodeProto, given: tuple[int, list[object]], made: int, **values: NDArray[np.int64]
) -> GraphSession:
    """A graph by hand, whose one input is ``given`` by its type and shape, and whose logits are so many."""
    datatype, shape = given
    graph = helper.make_graph(
        nodes,
        "by hand",
        [helper.make_tensor_value_info("given", datatype, ["batch", *shape])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", made])],
        [onnx.numpy_helper.from_array(value, name) for name, value in values.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    return GraphSession(Graph(model.SerializeToString(), b""))


def test_graph_that_mixes_its_rows_does_not_pass() -> None:
    """Subtracting the mean over the batch agrees with the network in the batches that were compared, and in no other."""
    session = session_of(
        helper.make_node("Cast", ["given"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["pixels"], ["flat"], axis=1),
        helper.make_node("ReduceMean", ["flat", "axes"], ["mean"], keepdims=1),
        helper.make_node("Sub", ["flat", "mean"], ["logits"]),
        given=(TensorProto.UINT8, [2, 2, 1]),
        made=4,
        axes=np.array([0]),
    )
    images = (np.random.default_rng(0).integers(0, 256, (96, 2, 2, 1), dtype=np.uint8),)
    with pytest.raises(ParityError, match="in batches of 1,"):
        parity.check(session, images, session.run(images, 32), ANY[:96], 32)


def test_graph_that_reads_past_a_text_does_not_pass() -> None:
    """It agrees with the network on every text as it stands, padded with zeros, and in every batch: only words past a text's
    end, where another graph or a later release may leave some, show that it reads there.
    """
    session = session_of(
        helper.make_node("Cast", ["given"], ["logits"], to=TensorProto.FLOAT),
        given=(TensorProto.INT64, [9]),
        made=9,
    )
    rng = np.random.default_rng(0)
    texts = rng.integers(2, 9, (80, 9))
    texts[:, 0] = rng.integers(1, 7, 80)
    texts[:, 1:] *= np.arange(8) < texts[:, :1]
    network = session.run((texts,), 32)
    parity.check(session, (texts,), network, ANY[:80], 32)
    with pytest.raises(ParityError, match="depends on what stands past its end"):
        parity.check(session, (texts,), network, ANY[:80], 32, text=True)


def test_close_call_is_no_difference_and_a_clear_one_is() -> None:
    """Where the network's own two best logits are nearer than 0.0002 either may win."""
    near, found = np.array([[1.0, 1.0001, 0.0]]), np.array([[1.0001, 1.0, 0.0]])
    assert parity._check_top(found, near, LIMITS["fp32"]) == (1, 1.0)
    with pytest.raises(ParityError, match="another top class than the network for 1 of 1"):
        parity._check_top(found, np.array([[1.0, 1.1, 0.0]]), LIMITS["fp32"])
    allowed = replace(LIMITS["fp32"], agreement=0.5)
    assert parity._check_top(np.repeat(found, 2, 0), np.array([[1.0, 1.1, 0.0], [1.1, 1.0, 0.0]]), allowed) == (0, 0.5)


def test_embedding_that_depends_on_its_neighbours_does_not_pass() -> None:
    """Logits keep still, and an input would be taken for one of another kind by the company it keeps."""
    nodes = [
        helper.make_node("Identity", ["given"], ["logits"]),
        helper.make_node("ReduceMean", ["given", "axes"], ["mean"], keepdims=1),
        helper.make_node("Sub", ["given", "mean"], ["embedding"]),
    ]
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 3]) for name in ("given", "logits", "embedding")
    ]
    graph = helper.make_graph(nodes, "mixing", values[:1], values[1:], [onnx.numpy_helper.from_array(np.array([0]), "axes")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    session = GraphSession(Graph(model.SerializeToString(), b""))
    rows = (np.random.default_rng(1).normal(size=(96, 3)).astype(np.float32),)
    with pytest.raises(ParityError, match="A row's embedding differs between the row alone and in a batch of"):
        parity.check(session, rows, session.run(rows, 32), ANY[:96], 32)
