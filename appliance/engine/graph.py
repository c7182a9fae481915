"""Looks at a decrypted graph before the runtime sees it (bundle-format section 7, step 6). The only importer of onnx.

ONNX Runtime, given a model as bytes, still reads files that the model names as external data. A signature does not make
that harmless: a vendor's mistake, or a stolen vendor key, must not read this machine's disk.
"""

import re
from collections.abc import Iterator

import onnx

from appliance.bundle.manifest import DATATYPES, Manifest
from appliance.bundle.opening import Buffer
from appliance.errors import RefusedGraph

WEIGHTS = "weights"
_ONNX = {"FP16": "FLOAT16", "FP32": "FLOAT", "FP64": "DOUBLE"}
NODES_MAX = 100_000
# ONNX's number for each datatype of the manifest.
_ELEMENTS = {name: onnx.TensorProto.DataType.Value(_ONNX.get(name, name)) for name in DATATYPES}
_DOMAINS = ("", "ai.onnx")
_EXTERNAL_KEYS = {"location", "offset", "length"}


def inspect(graph: bytes | Buffer, manifest: Manifest, weights_bytes: int) -> None:
    """Raises RefusedGraph unless the graph is what the manifest says and reads nothing but this bundle's weights."""
    try:
        model = onnx.load_model_from_string(bytes(graph))
    except Exception as error:  # protobuf's DecodeError has no public base to name
        raise RefusedGraph("The graph is not an ONNX model.") from error
    opsets = [(entry.domain in _DOMAINS, entry.version) for entry in model.opset_import]
    if opsets != [(True, manifest.runtime.opset)]:
        raise RefusedGraph("The graph wants operators of another opset or domain than the manifest says.")
    if model.functions or model.training_info:
        raise RefusedGraph("The graph defines functions or training steps.")
    nodes = 0
    for part in _graphs(model.graph):
        nodes += len(part.node)
        if nodes > NODES_MAX or any(node.domain not in _DOMAINS for node in part.node):
            raise RefusedGraph("The graph has an operator of another domain, or too many operators.")
        if part.sparse_initializer:
            raise RefusedGraph("The graph has sparse tensors.")
        for tensor in _tensors(part):
            _check_tensor(tensor, weights_bytes)
    _check_interface(model.graph, manifest)


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """The graph and every graph inside its nodes."""
    waiting = [graph]
    while waiting:
        part = waiting.pop()
        yield part
        for node in part.node:
            for attribute in node.attribute:
                if attribute.HasField("g"):
                    waiting.append(attribute.g)
                waiting.extend(attribute.graphs)


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            if attribute.HasField("sparse_tensor") or attribute.sparse_tensors:
                raise RefusedGraph("The graph has sparse tensors.")


def _check_tensor(tensor: onnx.TensorProto, weights_bytes: int) -> None:
    if tensor.data_location != onnx.TensorProto.EXTERNAL and not tensor.external_data:
        return
    said = {entry.key: entry.value for entry in tensor.external_data}
    if said.get("location") != WEIGHTS or not set(said) <= _EXTERNAL_KEYS or len(said) != len(tensor.external_data):
        raise RefusedGraph("The graph has a tensor that lies outside the bundle.")
    numbers = [said.get(key, "") for key in ("offset", "length")]
    inside = all(re.fullmatch("[0-9]{1,20}", n) for n in numbers) and sum(map(int, numbers)) <= weights_bytes
    if not inside or tensor.data_location != onnx.TensorProto.EXTERNAL:
        raise RefusedGraph("The graph has a tensor that lies outside the bundle's weights.")


def _check_interface(graph: onnx.GraphProto, manifest: Manifest) -> None:
    initial = {tensor.name for tensor in graph.initializer}
    inputs = {value.name: _signature(value) for value in graph.input if value.name not in initial}
    outputs = {value.name: _signature(value) for value in graph.output}
    if inputs != {spec.name: (_ELEMENTS[spec.datatype], (None, *spec.shape)) for spec in manifest.inputs}:
        raise RefusedGraph("The graph's inputs are not what the manifest says.")
    wanted: dict[str, tuple[int, tuple[int | None, ...]]] = {
        manifest.outputs.logits: (onnx.TensorProto.FLOAT, (None, len(manifest.labels)))
    }
    if (name := manifest.outputs.embedding) is not None:
        kind, shape = outputs.get(name, (0, ()))
        if kind != onnx.TensorProto.FLOAT or len(shape) != 2 or shape[0] is not None or not shape[1]:
            raise RefusedGraph("The graph's embedding is not what the manifest says.")
        wanted[name] = (kind, (None, shape[1]))
    if outputs != wanted:
        raise RefusedGraph("The graph's outputs are not what the manifest says.")


def _signature(value: onnx.ValueInfoProto) -> tuple[int, tuple[int | None, ...]]:
    """Element type and shape; None stands for a dimension that is not fixed."""
    tensor = value.type.tensor_type
    return tensor.elem_type, tuple(d.dim_value if d.HasField("dim_value") else None for d in tensor.shape.dim)
