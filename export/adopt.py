"""A graph that somebody exported already, taken in as it is: its tensors chosen, its preprocessing put before it.

The file's input of floating point numbers ``[rows, channels, height, width]`` becomes uint8 ``[batch, height, width,
channels]``, and what the recipe says of order, mean and deviation is done inside. Nothing else changes, so parity can be
checked against the file itself: run as it came, with preprocessing done by numpy.
"""

from typing import Any

import numpy as np
import onnx
import onnx.shape_inference
import onnx.version_converter
import onnxruntime
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from appliance.model.inputs import Images
from export import kinds
from export.errors import ConversionError, told
from export.graph import DOMAINS, OPSET, private
from export.kinds import IMAGE, ImageInput
from export.recipe import OnnxFile, Recipe
from export.session import Outputs

IR_VERSION = 10  # from 4 on an initializer need not be an input as well, and this runtime knows 13 at most
_FLOATS: dict[int, type] = {TensorProto.FLOAT: np.float32, TensorProto.FLOAT16: np.float16}


def outputs(network: OnnxFile) -> tuple[str, ...]:
    """The names of what the made graph gives."""
    return kinds.outputs(bool(network.embedding))


def precision(network: OnnxFile) -> str:
    """What the file computes in: ``fp32`` or ``fp16``. Raises ConversionError."""
    return "fp16" if _input(_load(network)).type.tensor_type.elem_type == TensorProto.FLOAT16 else "fp32"


def with_preprocessing(recipe: Recipe) -> ModelProto:
    """The file's graph, from uint8 images to logits ``[batch, classes]``, and an embedding ``[batch, width]``.

    Raises:
        ConversionError: the file is no such graph, or cannot be brought to the opset that bundles have.
    """
    network, kind = _parts(recipe)
    model = _load(network)
    if _opset(model) != OPSET:
        try:
            model = onnx.version_converter.convert_version(model, OPSET)
        except Exception as error:  # the converter raises what its C++ throws
            raise ConversionError(f"The ONNX file cannot be brought to opset {OPSET}: {told(error)}") from error
    graph, given = model.graph, _input(model)
    before = _before(kind, given.name, given.type.tensor_type.elem_type)
    after = [node for name, made in zip(_wanted(network), outputs(network), strict=True) for node in _pooled(name, made)]
    nodes = _needed([*before, *graph.node, *after], tuple(map(private, outputs(network))))
    used = {name for node in nodes for name in node.input}
    initial = [tensor for tensor in graph.initializer if tensor.name in used]
    made = helper.make_graph(
        nodes,
        "model",
        [helper.make_tensor_value_info(private(IMAGE), TensorProto.UINT8, ["batch", *recipe.input.specs[0].shape])],
        [helper.make_tensor_value_info(private(name), TensorProto.FLOAT, ["batch", "width"]) for name in outputs(network)],
        [*initial, *_constants(kind)],
    )
    joined = helper.make_model(made, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    return _with_sizes(joined)


def reference(recipe: Recipe, images: Images) -> Outputs:
    """What the file itself answers, one image at a time, with preprocessing by numpy."""
    network, kind = _parts(recipe)
    model = _load(network)
    given, wanted = _input(model), _wanted(network)
    there = {value.name for value in model.graph.output}
    made = {name for node in model.graph.node for name in node.output}
    if not set(wanted) <= made:
        raise ConversionError(f"The ONNX file has no tensor {sorted(set(wanted) - made)[0]}.")
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in wanted if name not in there)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime's exceptions have no common base
        raise ConversionError(f"ONNX Runtime cannot run the ONNX file: {told(error)}") from error
    dtype = _FLOATS[given.type.tensor_type.elem_type]
    try:
        found = [_answer(session, image, kind, given.name, wanted, dtype) for image in images]
    except Exception as error:  # the runtime's exceptions have no common base
        raise ConversionError(f"The ONNX file cannot answer the validation images: {told(error)}") from error
    logits, *embedding = (np.concatenate(arrays) for arrays in zip(*found, strict=True))
    if logits.shape[1] != len(recipe.labels):
        raise ConversionError(
            f"The tensor {network.logits} has {logits.shape[1]} logits, and there are {len(recipe.labels)} labels."
        )
    return Outputs(logits, embedding[0] if embedding else None)


def _answer(
    session: onnxruntime.InferenceSession, image: Images, kind: ImageInput, name: str, wanted: tuple[str, ...], dtype: type
) -> list[NDArray[np.float32]]:
    """Float32 ``[1, width]`` for each wanted tensor. Raises ValueError for one of fewer than two dimensions."""
    mean, std = (np.array(values, np.float32).reshape(-1, 1, 1) for values in (kind.mean, kind.std))
    pixels = image.transpose(2, 0, 1).astype(np.float32) / 255
    pixels = pixels[::-1] if kind.order == "BGR" else pixels
    row: NDArray[Any] = np.ascontiguousarray(((pixels - mean) / std)[None], dtype)
    answers = session.run(list(wanted), {name: row})
    if any(answer.ndim < 2 for answer in answers):
        raise ValueError("a tensor of logits or of an embedding has at least two dimensions")
    return [answer.astype(np.float32).reshape(*answer.shape[:2], -1).mean(axis=2) for answer in answers]


def _parts(recipe: Recipe) -> tuple[OnnxFile, ImageInput]:
    if not isinstance(recipe.network, OnnxFile) or not isinstance(recipe.input, ImageInput):
        raise TypeError("the recipe's network is not an ONNX file that takes images")
    return recipe.network, recipe.input


def _wanted(network: OnnxFile) -> tuple[str, ...]:
    return (network.logits, network.embedding) if network.embedding else (network.logits,)


def _load(network: OnnxFile) -> ModelProto:
    try:
        model = onnx.load(network.file, load_external_data=False)
    except Exception as error:  # protobuf's DecodeError has no public base to name
        raise ConversionError("The file is not an ONNX model.") from error
    if any(tensor.data_location == TensorProto.EXTERNAL for tensor in model.graph.initializer):
        # Its digest would be that of the file alone, whatever the weights are.
        raise ConversionError("The ONNX file keeps its weights in other files; save it as one file.")
    return model


def _opset(model: ModelProto) -> int:
    return max((entry.version for entry in model.opset_import if entry.domain in DOMAINS), default=0)


def _input(model: ModelProto) -> onnx.ValueInfoProto:
    initial = {tensor.name for tensor in model.graph.initializer}
    given = [value for value in model.graph.input if value.name not in initial]
    if len(given) != 1 or given[0].type.tensor_type.elem_type not in _FLOATS:
        raise ConversionError("The ONNX file must have one input, of FP32 or FP16.")
    return given[0]


def _before(kind: ImageInput, name: str, element: int) -> list[NodeProto]:
    """Uint8 NHWC to what the file takes. The names begin with one that no file of ours has."""
    nodes = [
        helper.make_node("Transpose", [private(IMAGE)], ["served/nchw"], perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["served/nchw"], ["served/float"], to=TensorProto.FLOAT),
    ]
    last = "served/float"
    if kind.order == "BGR":
        nodes.append(helper.make_node("Gather", [last, "served/order"], ["served/ordered"], axis=1))
        last = "served/ordered"
    nodes += [
        helper.make_node("Div", [last, "served/scale"], ["served/scaled"]),
        helper.make_node("Sub", ["served/scaled", "served/mean"], ["served/centred"]),
        helper.make_node("Div", ["served/centred", "served/std"], ["served/normal"]),
        helper.make_node("Cast", ["served/normal"], [name], to=element),
    ]
    return nodes


def _constants(kind: ImageInput) -> list[TensorProto]:
    shape = (1, kind.channels, 1, 1)
    made = {
        "served/scale": np.float32(255),
        "served/mean": np.array(kind.mean, np.float32).reshape(shape),
        "served/std": np.array(kind.std, np.float32).reshape(shape),
        "served/axes": np.array([2], np.int64),
        "served/shape": np.array([0, 0, -1], np.int64),
    }
    if kind.order == "BGR":
        made["served/order"] = np.arange(kind.channels, dtype=np.int64)[::-1].copy()
    return [numpy_helper.from_array(np.asarray(value), name) for name, value in made.items()]


def _pooled(name: str, made: str) -> list[NodeProto]:
    """Float32 ``[batch, width]``: the mean over whatever other dimensions there are, of which there may be none."""
    return [
        helper.make_node("Cast", [name], [f"served/{made}/float"], to=TensorProto.FLOAT),
        helper.make_node("Reshape", [f"served/{made}/float", "served/shape"], [f"served/{made}/flat"]),
        helper.make_node("ReduceMean", [f"served/{made}/flat", "served/axes"], [private(made)], keepdims=0),
    ]


def _needed(nodes: list[NodeProto], wanted: tuple[str, ...]) -> list[NodeProto]:
    """The nodes that the wanted tensors come from, in their order: what a file ends in beside them is left out."""
    missing, kept = set(wanted), []
    for node in reversed(nodes):
        if missing.intersection(node.output):
            kept.append(node)
            missing |= set(node.input)
    return kept[::-1]


def _with_sizes(model: ModelProto) -> ModelProto:
    """The same with the sizes of its outputs, which follow from the rest. Raises ConversionError."""
    try:
        sized = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    except Exception as error:  # as the converter
        raise ConversionError(f"The ONNX file's sizes do not follow: {told(error)}") from error
    return sized
