"""A torch export made fit to be served: nothing in it but the ONNX domain, no trace of source code, weights apart.

The result is the ``graph`` and the ``weights`` part of a bundle (bundle-format section 4.3). The product checks the
same things again, in code of its own, before it hands a graph to the runtime.
"""

from collections.abc import Iterator
from dataclasses import dataclass

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


@dataclass(frozen=True, slots=True)
class Graph:
    """An ONNX ModelProto and the bytes of its external tensors, which may be none."""

    graph: bytes
    weights: bytes


def portable(model: ModelProto, input_name: str, output_names: tuple[str, ...]) -> Graph:
    """The two parts of a bundle that hold the model.

    Raises:
        ConversionError: another opset or domain, other inputs and outputs, or a batch that is not dynamic.
    """
    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
    _strip(model)
    _check_domains(model)
    _check_batch(model, input_name, output_names)
    try:
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:  # the checker raises three unrelated kinds
        raise ConversionError(f"The graph is not valid ONNX: {(str(error).splitlines() or [''])[0]}.") from error
    weights = _take_weights(model)
    return Graph(model.SerializeToString(deterministic=True), weights)


def _strip(model: ModelProto) -> None:
    """Remove what torch wrote for debugging: source paths and lines, class names, intermediate shapes."""
    graphs = list(_graphs(model.graph))
    nodes = [node for graph in graphs for node in graph.node]
    tensors = [tensor for graph in graphs for tensor in graph.initializer]
    values = [value for graph in graphs for value in (*graph.input, *graph.output)]
    for thing in (model, *graphs, *nodes, *tensors, *values):
        thing.ClearField("doc_string")
        thing.ClearField("metadata_props")
    for graph in graphs:
        graph.ClearField("value_info")
        graph.name = "model"
    for i, node in enumerate(nodes):
        node.name = f"{node.op_type}_{i}"
    used = {node.domain for node in nodes} | {""}
    kept = [entry for entry in model.opset_import if entry.domain in used or entry.domain in DOMAINS]
    model.ClearField("opset_import")
    model.opset_import.extend(kept)


def _check_domains(model: ModelProto) -> None:
    nodes = [node for graph in _graphs(model.graph) for node in graph.node]
    strange = sorted({f"{node.domain}::{node.op_type}" for node in nodes if node.domain not in DOMAINS})
    if strange:
        raise ConversionError(f"The graph has operators from outside ONNX: {', '.join(strange[:5])}.")
    # torch stays at opset 18, silently, where it cannot convert; so what we got is compared with what we asked.
    opsets = {entry.version for entry in model.opset_import if entry.domain in DOMAINS}
    if opsets != {OPSET}:
        raise ConversionError(f"The graph has opset {', '.join(map(str, sorted(opsets)))}, and {OPSET} was asked for.")


def _check_batch(model: ModelProto, input_name: str, output_names: tuple[str, ...]) -> None:
    """Every input and output begins with the one dynamic dimension, and has no other."""
    inputs, outputs = list(model.graph.input), list(model.graph.output)
    names = [value.name for value in inputs], [value.name for value in outputs]
    if names != ([input_name], list(output_names)):
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
