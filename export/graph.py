"""An export made fit to be served: nothing in it but the ONNX domain, no trace of source code, weights apart.

The result is the ``graph`` and the ``weights`` part of a bundle (bundle-format section 4.3). The product checks the
same things again, in code of its own, before it hands a graph to the runtime.

A protobuf message ends at 2 GiB, and so does what ONNX Runtime takes as bytes. Weights leave the message before anything is
made of it, so a model of any size has a small graph.
"""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnx.checker
import onnx.inliner
import onnx.numpy_helper
from onnx import ModelProto

from export.errors import ConversionError

OPSET = 20
WEIGHTS = "weights"
EXTERNAL_BYTES_MIN = 1024
ALIGNMENT_BYTES = 64
DOMAINS = ("", "ai.onnx")
GRAPH_BYTES_MAX = (2 << 30) - 1


@dataclass(frozen=True, slots=True)
class Graph:
    """An ONNX ModelProto and the bytes of its external tensors, which may be none."""

    graph: bytes
    weights: bytes

    def model(self) -> ModelProto:
        """The model with its weights inside again, for a tool that changes it."""
        made = onnx.load_model_from_string(self.graph)
        for part in _graphs(made.graph):
            for tensor in part.initializer:
                if tensor.data_location == onnx.TensorProto.EXTERNAL:
                    place = {entry.key: int(entry.value) for entry in tensor.external_data if entry.key != "location"}
                    tensor.raw_data = self.weights[place["offset"] : place["offset"] + place["length"]]
                    tensor.ClearField("external_data")
                    tensor.ClearField("data_location")
        return made

    def write(self, folder: Path) -> None:
        """As ``graph`` and ``weights``, which is the name that the graph looks for."""
        (folder / "graph").write_bytes(self.graph)
        (folder / WEIGHTS).write_bytes(self.weights)

    @classmethod
    def read(cls, folder: Path) -> "Graph":
        return cls((folder / "graph").read_bytes(), (folder / WEIGHTS).read_bytes())


def private(name: str) -> str:
    """What an input or output is called until ``publish`` gives it its name: no exporter makes such a one itself."""
    return f"served/{name}"


def portable(model: ModelProto, input_names: tuple[str, ...], output_names: tuple[str, ...]) -> Graph:
    """The two parts of a bundle that hold the model.

    Raises:
        ConversionError: another opset or domain, other inputs and outputs, a batch that is not dynamic, or a graph that is
            not valid or too large without its weights.
    """
    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
    _lift_constants(model)
    _strip(model)
    _check_domains(model)
    _check_batch(model, input_names, output_names)
    weights = _take_weights(model)
    if model.ByteSize() > GRAPH_BYTES_MAX:
        raise ConversionError(
            f"The graph without its weights has {model.ByteSize()} bytes, and {GRAPH_BYTES_MAX} is the most that ONNX takes."
        )
    made = Graph(model.SerializeToString(deterministic=True), weights)
    with tempfile.TemporaryDirectory(prefix="export-") as folder:
        made.write(Path(folder))
        try:
            onnx.checker.check_model(Path(folder) / "graph", full_check=True)
        except Exception as error:  # the checker raises three unrelated kinds
            raise ConversionError(f"The graph is not valid ONNX: {(str(error).splitlines() or [''])[0]}.") from error
    return made


def _lift_constants(model: ModelProto) -> None:
    """A constant that a node holds becomes a tensor of its graph, and a large one a weight."""
    for graph in _graphs(model.graph):
        given = {value.name for value in graph.output}
        for node in list(graph.node):
            tensor = next((one.t for one in node.attribute if one.name == "value" and one.HasField("t")), None)
            if node.op_type == "Constant" and tensor is not None and node.output[0] not in given:
                tensor.name = node.output[0]
                graph.initializer.append(tensor)
                graph.node.remove(node)


def _strip(model: ModelProto) -> None:
    """Remove what torch wrote for debugging: source paths and lines, class names, intermediate shapes."""
    graphs = list(_graphs(model.graph))
    nodes = [node for graph in graphs for node in graph.node]
    tensors = [tensor for graph in graphs for tensor in graph.initializer]
    values = [value for graph in graphs for value in (*graph.input, *graph.output)]
    attributes = [attribute for node in nodes for attribute in node.attribute]
    within = [one.t for one in attributes if one.HasField("t")] + [t for one in attributes for t in one.tensors]
    for thing in (model, *graphs, *nodes, *tensors, *values, *within):
        thing.ClearField("doc_string")
        thing.ClearField("metadata_props")
    for attribute in attributes:
        attribute.ClearField("doc_string")
    for tensor in within:
        tensor.ClearField("name")
    for graph in graphs:
        graph.ClearField("value_info")
        graph.name = "model"
    for i, node in enumerate(nodes):
        node.name = f"{node.op_type}_{i}"
    used = {node.domain for node in nodes} | {""}
    kept = [entry for entry in model.opset_import if entry.domain in used or entry.domain in DOMAINS]
    model.ClearField("opset_import")
    model.opset_import.extend(kept)


def publish(model: ModelProto, names: tuple[str, ...]) -> ModelProto:
    """Gives inputs and outputs their names, and values inside numbers: their names may say whose work it is, and may be
    taken. torch calls what an ``Embedding`` gives ``embedding``, and hands over a graph with two values of that name.
    """
    of = {private(name): name for name in names} | {"": ""}

    def renamed(name: str) -> str:
        return of.setdefault(name, f"inner/{len(of)}")

    for graph in _graphs(model.graph):
        for values in (graph.input, graph.output, graph.initializer):
            for value in values:
                value.name = renamed(value.name)
        for node in graph.node:
            for names_there in (node.input, node.output):
                names_there[:] = [renamed(name) for name in names_there]
    return model


def _check_domains(model: ModelProto) -> None:
    nodes = [node for graph in _graphs(model.graph) for node in graph.node]
    strange = sorted({f"{node.domain}::{node.op_type}" for node in nodes if node.domain not in DOMAINS})
    if strange:
        raise ConversionError(f"The graph has operators from outside ONNX: {', '.join(strange[:5])}.")
    # torch stays at opset 18, silently, where it cannot convert; so what we got is compared with what we asked.
    opsets = {entry.version for entry in model.opset_import if entry.domain in DOMAINS}
    if opsets != {OPSET}:
        raise ConversionError(f"The graph has opset {', '.join(map(str, sorted(opsets)))}, and {OPSET} was asked for.")


def _check_batch(model: ModelProto, input_names: tuple[str, ...], output_names: tuple[str, ...]) -> None:
    """Every input and output begins with the one dynamic dimension, and has no other."""
    inputs, outputs = list(model.graph.input), list(model.graph.output)
    names = [value.name for value in inputs], [value.name for value in outputs]
    if names != (list(input_names), list(output_names)):
        raise ConversionError(f"The graph has inputs {names[0]} and outputs {names[1]}, not those asked for.")
    batch = inputs[0].type.tensor_type.shape.dim[0].dim_param
    for value in (*inputs, *outputs):
        first, *others = value.type.tensor_type.shape.dim
        if not first.dim_param or first.dim_param != batch:
            fixed = first.dim_value or first.dim_param or "unknown"
            raise ConversionError(f"The graph's '{value.name}' is not dynamic in the batch: its first size is {fixed}.")
        if any(not dim.dim_value for dim in others):
            raise ConversionError(f"The graph's '{value.name}' has a size besides the batch that is not fixed.")


def _take_weights(model: ModelProto) -> bytes:
    """Move every tensor of at least 1 KiB into one blob, each aligned so that it can be used in place."""
    blob = bytearray()
    for graph in _graphs(model.graph):
        for tensor in graph.initializer:
            if not tensor.HasField("raw_data"):
                tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor), tensor.name))
            if len(tensor.raw_data) < EXTERNAL_BYTES_MIN:
                continue
            blob.extend(bytes(-len(blob) % ALIGNMENT_BYTES))
            place = {"location": WEIGHTS, "offset": str(len(blob)), "length": str(len(tensor.raw_data))}
            blob.extend(tensor.raw_data)
            tensor.ClearField("raw_data")
            tensor.data_location = onnx.TensorProto.EXTERNAL
            for key, value in place.items():
                tensor.external_data.add(key=key, value=value)
    return bytes(blob)


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """A graph and every graph inside it."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _graphs(attribute.g)
            for inner in attribute.graphs:
                yield from _graphs(inner)
