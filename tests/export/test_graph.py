"""What may go into a bundle as a graph; small graphs made by hand show what torch may hand over."""

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from export import graph as graphs
from export.errors import ConversionError
from export.graph import ALIGNMENT_BYTES, Graph, portable, private, publish
from export.session import GraphSession
from tests.export.desk import Opened

SECRETS = (b"secret_folder", b"VerySecretNet")


def forge(*, rows: object = "batch", opset: int = 20, domain: str = "", width: int = 300) -> ModelProto:
    """uint8 ``[batch, 2, 2, 1]`` to logits ``[rows, width]``, with traces of its author everywhere."""
    weight = np.arange(4 * width, dtype=np.float32).reshape(4, width) / 1000
    nodes = [
        helper.make_node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["pixels"], ["flat"], axis=1),
        helper.make_node("MatMul", ["flat", "weight"], ["product"]),
        helper.make_node("Relu", ["product"], ["logits"], domain=domain, name="VerySecretNet.relu"),
    ]
    graph = helper.make_graph(
        nodes,
        "VerySecretNet",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", 2, 2, 1])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [rows, width])],
        [numpy_helper.from_array(weight, "weight")],
    )
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("pkg.unused", 1)]
    if domain:
        imports.append(helper.make_opsetid(domain, 1))
    model = helper.make_model(graph, opset_imports=imports)
    model.ir_version = 10
    held = numpy_helper.from_array(np.zeros(width, np.float32), "secret_folder/zeros")
    held.doc_string = "/secret_folder/net.py:13"
    model.graph.node.insert(0, helper.make_node("Constant", [], ["zeros"], value=held))
    model.graph.node.insert(4, helper.make_node("Add", ["product", "zeros"], ["sum"]))
    model.graph.node[5].input[0] = "sum"
    for attribute in (one for node in model.graph.node for one in node.attribute):
        attribute.doc_string = "class VerySecretNet"
    for thing in (model, model.graph, *model.graph.node, *model.graph.initializer, *model.graph.input):
        thing.doc_string = "/secret_folder/net.py:12"
        thing.metadata_props.add(key="pkg.torch.onnx.stack_trace", value="File /secret_folder/net.py in VerySecretNet")
    return model


def take(model: ModelProto) -> Graph:
    return portable(model, ("image",), ("logits",))


def test_no_trace_of_the_source_is_left() -> None:
    """Pitfall 6: torch writes paths, lines and class names into the graph."""
    model = forge()
    assert all(secret in model.SerializeToString() for secret in SECRETS)
    made = take(model)
    assert not any(secret in made.graph + made.weights for secret in SECRETS)


def test_no_trace_of_the_example_is_left(opened: Opened) -> None:
    """The same, for a real export."""
    for trace in (b"Digits", b"recipe", b"examples", b"site-packages", b".py", b"stack_trace", b"namespace"):
        assert trace not in opened.parts["graph"]


def test_weights_stand_apart_and_aligned(opened: Opened) -> None:
    """Pitfall 7: every large tensor lies in the one blob, aligned, inside it; every small one in the graph."""
    model = onnx.load_from_string(opened.parts["graph"])
    external = [tensor for tensor in model.graph.initializer if tensor.data_location == TensorProto.EXTERNAL]
    assert external
    for tensor in external:
        place = {entry.key: entry.value for entry in tensor.external_data}
        assert place["location"] == "weights"
        assert int(place["offset"]) % ALIGNMENT_BYTES == 0
        assert int(place["length"]) >= 1024
        assert int(place["offset"]) + int(place["length"]) <= len(opened.parts["weights"])
        assert not tensor.raw_data
    inside = [tensor for tensor in model.graph.initializer if tensor.data_location != TensorProto.EXTERNAL]
    assert all(len(tensor.raw_data) < 1024 for tensor in inside)


def test_graph_and_weights_compute_what_the_model_did() -> None:
    made = take(forge())
    assert len(made.weights) >= 4 * 300 * 4 + 300 * 4, "a constant that a node held, too"
    images = np.arange(8, dtype=np.uint8).reshape(2, 2, 2, 1)
    expected = images.reshape(2, 4).astype(np.float32) @ (np.arange(1200, dtype=np.float32).reshape(4, 300) / 1000)
    assert GraphSession(made).run((images,), 2).logits == pytest.approx(expected, rel=1e-5)


def test_small_model_has_an_empty_weights_part() -> None:
    made = take(forge(width=3))
    assert made.weights == b""
    assert GraphSession(made).run((np.ones((3, 2, 2, 1), np.uint8),), 2).logits.shape == (3, 3)


@pytest.mark.parametrize("rows", [1, 5, "other"])
def test_output_that_is_not_dynamic_in_the_batch_is_refused(rows: object) -> None:
    """Pitfall 1: an export can say ``batch`` at the input and fix the output, silently."""
    with pytest.raises(ConversionError, match=f"'logits' is not dynamic in the batch: its first size is {rows}"):
        take(forge(rows=rows))


def test_older_opset_is_refused() -> None:
    """Pitfall 5: torch stays at 18 without a word."""
    with pytest.raises(ConversionError, match="has opset 18, and 20 was asked for"):
        take(forge(opset=18))


def test_operator_from_outside_onnx_is_refused() -> None:
    with pytest.raises(ConversionError, match=r"outside ONNX: com\.microsoft::Relu"):
        take(forge(domain="com.microsoft"))


def test_functions_are_inlined() -> None:
    """What torch leaves as a function of a domain of its own becomes plain operators."""
    model = forge(domain="pkg.local")
    body = [helper.make_node("Relu", ["x"], ["y"])]
    opsets = [helper.make_opsetid("", 20)]
    model.functions.append(helper.make_function("pkg.local", "Relu", ["x"], ["y"], body, opsets))
    made = onnx.load_from_string(take(model).graph)
    assert not made.functions
    assert {node.domain for node in made.graph.node} == {""}
    assert [entry.domain for entry in made.opset_import] == [""]


def test_other_inputs_and_outputs_are_refused() -> None:
    with pytest.raises(ConversionError, match="not those asked for"):
        portable(forge(), ("image",), ("logits", "embedding"))


def test_model_of_any_size_has_a_small_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    """A message ends at 2 GiB, and weights leave it first: with the limit at 2 KiB, 4.8 KB of weights still pass. What
    cannot leave, a graph that is too large itself, is refused in a sentence.
    """
    monkeypatch.setattr(graphs, "GRAPH_BYTES_MAX", 2048)
    made = take(forge())
    assert len(made.graph) < 2048 < len(made.weights)
    large = forge()
    large.graph.node.extend(helper.make_node("Relu", ["flat"], [f"unused{i}"]) for i in range(100))
    with pytest.raises(ConversionError, match=r"without its weights has \d+ bytes, and 2048 is the most"):
        take(large)


def test_weights_come_back_into_the_model() -> None:
    """For a tool that makes a variant of it: the same answers."""
    made = take(forge())
    again = portable(made.model(), ("image",), ("logits",))
    assert again == made


def test_value_inside_may_have_the_name_of_an_output() -> None:
    """torch calls what an ``Embedding`` gives ``embedding``, and renames nothing when an output is to be called so."""
    model = forge()
    for node in model.graph.node:
        for names in (node.input, node.output):
            names[:] = [
                {"logits": private("logits"), "product": "logits", "image": private("image")}.get(n, n) for n in names
            ]
    model.graph.input[0].name, model.graph.output[0].name = private("image"), private("logits")
    made = take(publish(model, ("image", "logits")))
    images = (np.arange(8, dtype=np.uint8).reshape(2, 2, 2, 1),)
    assert (GraphSession(made).run(images, 2).logits == GraphSession(take(forge())).run(images, 2).logits).all()
