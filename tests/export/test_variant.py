"""Half precision and integers: the same interface, other arithmetic, nothing that may not be served."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from appliance.model import inputs
from appliance.model.inputs import Rows
from export import variant
from export.errors import ConversionError
from export.graph import Graph
from export.kinds import EMBEDDING, LOGITS
from export.session import GraphSession
from tests.export.desk import Opened


@pytest.fixture(scope="module")
def images(trained: Path, opened: Opened) -> Rows:
    files = [path.read_bytes() for path in sorted((trained / "test").glob("*/*.png"))]
    return (inputs.decode(opened.manifest.inputs[0], files),)


def made(opened: Opened, precision: str, images: Rows) -> Graph:
    return variant.make(precision, opened.graph, ("image",), (LOGITS, EMBEDDING), images)


@pytest.mark.parametrize(("precision", "smaller", "agreement"), [("fp16", 0.6, 1.0), ("int8", 0.4, 0.98)])
def test_variant_is_smaller_and_answers_alike(
    opened: Opened, images: Rows, precision: str, smaller: float, agreement: float
) -> None:
    """Weights shrink to a half and a quarter; inputs and outputs keep their types; operators are ONNX's own."""
    graph = made(opened, precision, images)
    assert len(graph.weights) < smaller * len(opened.parts["weights"])
    whole, found = opened.session().run(images, 32), GraphSession(graph).run(images, 32)
    assert found.embedding is not None
    assert (found.logits.dtype, found.embedding.dtype) == (np.float32, np.float32)
    assert (found.logits.argmax(1) == whole.logits.argmax(1)).mean() >= agreement
    model = onnx.load_model_from_string(graph.graph)
    assert {node.domain for node in model.graph.node} == {""}


def test_half_precision_takes_tensors_that_callers_send_as_floats() -> None:
    """The tool puts the cast of such an input behind what it goes into; an input of pixels never showed it."""
    rng = np.random.default_rng(0)
    weight, rows = rng.normal(size=(6, 3)).astype(np.float32), (rng.normal(size=(40, 6)).astype(np.float32),)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "weight"], ["product"]), helper.make_node("Relu", ["product"], [LOGITS])],
        "by hand",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 6])],
        [helper.make_tensor_value_info(LOGITS, TensorProto.FLOAT, ["batch", 3])],
        [onnx.numpy_helper.from_array(weight, "weight")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    half = variant.make("fp16", Graph(model.SerializeToString(), b""), ("x",), (LOGITS,), rows)
    assert GraphSession(half).run(rows, 8).logits == pytest.approx(np.maximum(rows[0] @ weight, 0), abs=0.02)


def test_graph_that_cannot_be_quantised_is_one_sentence(opened: Opened, images: Rows) -> None:
    with pytest.raises(ConversionError, match=r"^The graph cannot be made int8: [^\n]*\.?$"):
        variant.make("int8", Graph(b"not a graph", b""), ("image",), (LOGITS,), images)


def test_speeds_are_of_each_session(opened: Opened, images: Rows) -> None:
    sessions = {"fp32": opened.session(), "int8": GraphSession(made(opened, "int8", images))}
    told = variant.speeds(sessions, images, 16)
    assert list(told) == ["fp32", "int8"]
    assert all(0 < took < 1000 for each in told.values() for took in each.values())
