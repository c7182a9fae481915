"""The graph's inspection: nothing but the bundle's weights is read, whatever the graph says and whoever signed it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import AttributeProto, ModelProto, TensorProto, helper

from appliance.bundle.manifest import Manifest, OutputSpec
from appliance.engine import graph
from appliance.errors import RefusedGraph
from tests import forge

SIZE = forge.W.nbytes


def inspect(model: ModelProto, manifest: Manifest | None = None, size: int = SIZE) -> None:
    graph.inspect(model.SerializeToString(), manifest or forge.manifest(), size)


def refused(model: ModelProto, sentence: str, manifest: Manifest | None = None) -> None:
    with pytest.raises(RefusedGraph, match=sentence):
        inspect(model, manifest)


def external(*entries: tuple[str, str]) -> TensorProto:
    """A float tensor of four that says where it lies."""
    made = TensorProto(name="extra", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    for key, value in entries:
        made.external_data.add(key=key, value=value)
    return made


def at(location: str) -> TensorProto:
    return external(("location", location), ("offset", "0"), ("length", "16"))


def branch(*nodes: onnx.NodeProto, tensors: tuple[TensorProto, ...] = ()) -> onnx.GraphProto:
    return helper.make_graph(
        list(nodes), "branch", [], [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4])], list(tensors)
    )


def hide_in_initializer(tensor: TensorProto) -> ModelProto:
    model = forge.model()
    model.graph.initializer.append(tensor)
    return model


def hide_in_attribute(tensor: TensorProto) -> ModelProto:
    model = forge.model()
    model.graph.node.append(helper.make_node("Constant", [], ["extra"], value=tensor))
    return model


def hide_in_attribute_list(tensor: TensorProto) -> ModelProto:
    model = forge.model()
    node = helper.make_node("Constant", [], ["extra"])
    node.attribute.append(AttributeProto(name="values", type=AttributeProto.TENSORS, tensors=[tensor]))
    model.graph.node.append(node)
    return model


def hide_in_untyped_attribute(tensor: TensorProto) -> ModelProto:
    """An attribute whose type says that it is a number, and which has a tensor all the same."""
    model = forge.model()
    model.graph.node[0].attribute.append(AttributeProto(name="odd", type=AttributeProto.INT, i=1, t=tensor))
    return model


def hide_in_branch(tensor: TensorProto) -> ModelProto:
    model = forge.model()
    made = branch(helper.make_node("Identity", ["extra"], ["x"]), tensors=(tensor,))
    model.graph.node.append(helper.make_node("If", ["condition"], ["x"], then_branch=made, else_branch=branch()))
    return model


def hide_in_branch_of_branch(tensor: TensorProto) -> ModelProto:
    """A Constant's attribute in the branch of an If in the branch of an If."""
    model = forge.model()
    inner = branch(helper.make_node("Constant", [], ["x"], value=tensor))
    outer = branch(helper.make_node("If", ["condition"], ["x"], then_branch=branch(), else_branch=inner))
    model.graph.node.append(helper.make_node("If", ["condition"], ["x"], then_branch=outer, else_branch=branch()))
    return model


def hide_in_graph_list(tensor: TensorProto) -> ModelProto:
    model = forge.model()
    model.graph.node[0].attribute.append(
        AttributeProto(name="graphs", type=AttributeProto.GRAPHS, graphs=[branch(), branch(tensors=(tensor,))])
    )
    return model


Hide = Callable[[TensorProto], ModelProto]
PLACES: list[Hide] = [
    hide_in_initializer, hide_in_attribute, hide_in_attribute_list, hide_in_untyped_attribute, hide_in_branch,
    hide_in_branch_of_branch, hide_in_graph_list,
]  # fmt: skip


def test_graph_that_the_manifest_describes_passes() -> None:
    inspect(forge.model())


@pytest.mark.parametrize("hide", PLACES)
def test_tensor_inside_the_weights_passes_wherever_it_stands(hide: Hide) -> None:
    """The control of the tests below: the place is no reason to refuse."""
    inspect(hide(at("weights")))


@pytest.mark.parametrize("hide", PLACES)
def test_tensor_outside_the_bundle_is_found_wherever_it_hides(hide: Hide) -> None:
    refused(hide(at("/etc/hostname")), "lies outside the bundle")


@pytest.mark.parametrize("location", [
    "../x", "/etc/hostname", "x", "", "./weights", "weights/../x", "/weights", "weights ", "Weights", "weights\0",
    "file:weights", "*/_ORT_MEM_ADDR_/*", "sub/weights",
])  # fmt: skip
def test_no_other_location_is_read(location: str) -> None:
    """The last but one is how ONNX Runtime spells an address in memory."""
    refused(hide_in_initializer(at(location)), "lies outside the bundle")


@pytest.mark.parametrize(("offset", "length"), [
    (str(SIZE - 15), "16"), ("0", str(SIZE + 1)), (str(SIZE + 1), "0"), ("-1", "16"), ("0", "-16"), ("", "16"), ("0", ""),
    ("+0", "16"), (" 0", "16"), ("0x0", "16"), ("1e1", "16"), ("0", "٣"), ("²", "16"), ("9" * 20, "16"), ("9" * 5000, "16"),
    ("18446744073709551615", "17"),
])  # fmt: skip
def test_tensor_that_does_not_lie_inside_the_weights_is_refused(offset: str, length: str) -> None:
    refused(hide_in_initializer(external(("location", "weights"), ("offset", offset), ("length", length))), "outside")


def test_tensor_at_the_very_end_of_the_weights_passes() -> None:
    inspect(hide_in_initializer(external(("location", "weights"), ("offset", str(SIZE - 16)), ("length", "16"))))


@pytest.mark.parametrize("entries", [
    (("location", "weights"), ("length", "16")),
    (("location", "weights"), ("offset", "0")),
    (("offset", "0"), ("length", "16")),
    (),
    (("location", "weights"), ("offset", "0"), ("length", "16"), ("checksum", "x")),
    (("location", "../x"), ("location", "weights"), ("offset", "0"), ("length", "16")),
    (("location", "weights"), ("offset", "9999"), ("offset", "0"), ("length", "16")),
])  # fmt: skip
def test_tensor_must_say_exactly_where_it_lies(entries: tuple[tuple[str, str], ...]) -> None:
    """Once each: two readers could take different ones of two."""
    refused(hide_in_initializer(external(*entries)), "outside")


def test_tensor_that_names_a_file_and_denies_it_is_refused() -> None:
    """``external_data`` without ``data_location = EXTERNAL``: nobody should have to know which of the two counts."""
    tensor = at("weights")
    tensor.data_location = TensorProto.DEFAULT
    refused(hide_in_initializer(tensor), "outside")


def test_operator_of_another_domain_is_refused() -> None:
    model = forge.model()
    model.graph.node.append(helper.make_node("EPContext", ["x"], ["y"], domain="com.microsoft"))
    refused(model, "another domain")


def test_operator_of_another_domain_in_a_branch_is_refused() -> None:
    model = forge.model()
    made = branch(helper.make_node("Odd", [], ["x"], domain="example"))
    model.graph.node.append(helper.make_node("If", ["condition"], ["x"], then_branch=branch(), else_branch=made))
    refused(model, "another domain")


def test_import_of_another_domain_is_refused() -> None:
    model = forge.model()
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    refused(model, "another opset or domain")


def test_another_opset_than_the_manifests_is_refused() -> None:
    model = forge.model()
    model.opset_import[0].version = forge.OPSET - 1
    refused(model, "another opset")
    del model.opset_import[:]
    refused(model, "another opset")


def test_functions_are_refused() -> None:
    model = forge.model()
    node = helper.make_node("Identity", ["a"], ["b"])
    model.functions.append(helper.make_function("", "Mine", ["a"], ["b"], [node], [helper.make_opsetid("", forge.OPSET)]))
    refused(model, "functions or training")


def test_training_steps_are_refused() -> None:
    model = forge.model()
    model.training_info.add().algorithm.CopyFrom(branch(tensors=(at("/etc/hostname"),)))
    refused(model, "functions or training")


def sparse() -> onnx.SparseTensorProto:
    values = helper.make_tensor("sparse", TensorProto.FLOAT, [1], [1.0])
    return helper.make_sparse_tensor(values, helper.make_tensor("at", TensorProto.INT64, [1], [0]), [4])


def test_sparse_tensors_are_refused() -> None:
    model = forge.model()
    model.graph.sparse_initializer.append(sparse())
    refused(model, "sparse")


@pytest.mark.parametrize("attribute", [
    AttributeProto(name="sparse_value", type=AttributeProto.SPARSE_TENSOR, sparse_tensor=sparse()),
    AttributeProto(name="sparse_values", type=AttributeProto.SPARSE_TENSORS, sparse_tensors=[sparse()]),
])  # fmt: skip
def test_sparse_tensors_of_an_operator_are_refused(attribute: AttributeProto) -> None:
    model = forge.model()
    node = helper.make_node("Constant", [], ["extra"])
    node.attribute.append(attribute)
    model.graph.node.append(node)
    refused(model, "sparse")


def test_too_many_operators_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted over all branches."""
    monkeypatch.setattr(graph, "NODES_MAX", 5)
    inspect(forge.model())
    refused(hide_in_branch(at("weights")), "too many operators")


def interface(
    kind: int = TensorProto.UINT8, shape: tuple[object, ...] = ("batch", 8, 8, 1), name: str = "image"
) -> ModelProto:
    model = forge.model()
    model.graph.input[0].CopyFrom(helper.make_tensor_value_info(name, kind, shape))
    return model


@pytest.mark.parametrize("model", [
    interface(TensorProto.FLOAT), interface(shape=(1, 8, 8, 1)), interface(shape=("batch", 8, 8, 3)),
    interface(shape=("batch", 1, 8, 8)), interface(shape=("batch", 8, "side", 1)), interface(shape=("batch", 8, 8)),
    interface(shape=("batch", 8, 8, 1, 1)), interface(name="picture"), interface(shape=()),
])  # fmt: skip
def test_input_other_than_the_manifests_is_refused(model: ModelProto) -> None:
    refused(model, "inputs are not what")


def test_second_input_is_refused() -> None:
    model = forge.model()
    model.graph.input.append(helper.make_tensor_value_info("more", TensorProto.FLOAT, ["batch"]))
    refused(model, "inputs are not what")


def outputs(*values: tuple[str, int, tuple[object, ...]]) -> ModelProto:
    model = forge.model()
    del model.graph.output[:]
    model.graph.output.extend(helper.make_tensor_value_info(*value) for value in values)
    return model


F = TensorProto.FLOAT


@pytest.mark.parametrize("model", [
    outputs(), outputs(("logits", TensorProto.DOUBLE, ("batch", 3))), outputs(("logits", F, ("batch", 4))),
    outputs(("logits", F, (1, 3))), outputs(("logits", F, ("batch", "classes"))), outputs(("logits", F, ("batch",))),
    outputs(("scores", F, ("batch", 3))), outputs(("logits", F, ("batch", 3)), ("more", F, ("batch", 3))),
])  # fmt: skip
def test_outputs_other_than_the_manifests_are_refused(model: ModelProto) -> None:
    refused(model, "outputs are not what")


EMBEDDING = forge.manifest(outputs=OutputSpec("logits", "embedding"))


def test_embedding_of_any_fixed_width_passes() -> None:
    inspect(outputs(("logits", F, ("batch", 3)), ("embedding", F, ("batch", 5))), EMBEDDING)


@pytest.mark.parametrize("model", [
    outputs(("logits", F, ("batch", 3))),
    outputs(("logits", F, ("batch", 3)), ("embedding", F, ("batch", "width"))),
    outputs(("logits", F, ("batch", 3)), ("embedding", F, ("batch", 0))),
    outputs(("logits", F, ("batch", 3)), ("embedding", F, (1, 5))),
    outputs(("logits", F, ("batch", 3)), ("embedding", F, ("batch", 5, 1))),
    outputs(("logits", F, ("batch", 3)), ("embedding", TensorProto.FLOAT16, ("batch", 5))),
])  # fmt: skip
def test_embedding_other_than_the_manifests_is_refused(model: ModelProto) -> None:
    refused(model, "embedding is not what", EMBEDDING)


@pytest.mark.parametrize("data", [b"", b"\xff" * 40, b"not a protobuf", b"\x08", bytes(100)])
def test_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(RefusedGraph):
        graph.inspect(data, forge.manifest(), SIZE)


def test_no_truncated_graph_passes() -> None:
    data = forge.model().SerializeToString()
    for length in range(len(data) - 4):  # the last four bytes are the opset's entry and its number
        with pytest.raises(RefusedGraph):
            graph.inspect(data[:length], forge.manifest(), SIZE)


def reader(location: str) -> bytes:
    """A graph that adds 16 bytes of a file to its input."""
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4]) for name in ("image", "x")]
    node = helper.make_node("Add", ["image", "extra"], ["x"])
    made = helper.make_graph([node], "reader", values[:1], values[1:], [at(location)])
    made = helper.make_model(made, opset_imports=[helper.make_opsetid("", forge.OPSET)], ir_version=10)
    return bytes(made.SerializeToString())


def test_without_the_inspection_the_runtime_would_read_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Why all this is needed: a model given as bytes, with no path of its own, reads a file of the working folder."""
    secret = np.array([1, 2, 3, 4], np.float32)
    (tmp_path / "patients.bin").write_bytes(secret.tobytes())
    monkeypatch.chdir(tmp_path)
    model = reader("patients.bin")
    options = onnxruntime.SessionOptions()  # in 1.31.1 the optimiser, left on, trips over this tiny graph first
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    assert np.array_equal(session.run(None, {"image": np.zeros(4, np.float32)})[0], secret)
    with pytest.raises(RefusedGraph):
        graph.inspect(model, forge.manifest(), SIZE)
