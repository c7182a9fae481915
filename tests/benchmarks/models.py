"""The networks that are served: seeded random weights, since only their speed is measured.

``resnet18`` is that of He et al. 2015, its batch normalisation folded into the convolutions; built alike are ``small``, a
millisecond a row, and ``tiny``, fifteen microseconds. ``free`` looks at one pixel of a large request, so what it costs is
the carrying. All obey the graph contract: rows in, float32 logits ``[N, classes]`` out.
"""

import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper
from PIL import Image

from appliance.bundle.manifest import Golden, ImageSpec, InputSpec, Label, Manifest, ModelId, RuntimeSpec
from appliance.model.golden import GoldenCases
from appliance.model.inputs import Content, Encoded, Raw
from tests import forge
from tests.forge import OPSET, Forge

Floats = NDArray[np.float32]
PROVIDER = "CPUExecutionProvider"
INPUT, OUTPUT, CLASSES_MIN = "image", "logits", 10
IMAGE = ImageSpec("stretch", "full", 1_000_000, 1 << 20)
SAMPLES = 4  # images whose answers are known; a request repeats them
_INLINE_BYTES_MAX = 1024  # the runtime reads a scalar while it optimises, and small tensors cost nothing inside the graph
# What a request holds, by the Open Inference Protocol's name of its type.
DTYPES: dict[str, Any] = {"UINT8": np.uint8, "FP32": np.float32}


class Drawing:
    """The graph while it is drawn. Each method adds nodes and returns the name of what they make."""

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)
        self.nodes: list[NodeProto] = []
        self.weights: list[tuple[str, NDArray[Any]]] = []

    def node(self, kind: str, *given: str, **attributes: Any) -> str:
        made = f"{kind.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(given), [made], **attributes))
        return made

    def constant(self, values: NDArray[Any]) -> str:
        name = f"w{len(self.weights)}"
        self.weights.append((name, values))
        return name

    def weight(self, *shape: int, spread: float) -> str:
        return self.constant((self._random.standard_normal(shape) * spread).astype(np.float32))

    def scaled(self, pixels: str) -> str:
        """From bytes to 0 … 1."""
        return self.node(
            "Mul", self.node("Cast", pixels, to=TensorProto.FLOAT), self.constant(np.array([1 / 255], np.float32))
        )

    def conv(self, given: str, channels: int, made: int, kernel: int, stride: int) -> str:
        kernels = self.weight(made, channels, kernel, kernel, spread=(2 / (channels * kernel**2)) ** 0.5)
        bias = self.weight(made, spread=0.1)
        return self.node(
            "Conv", given, kernels, bias, kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=[kernel // 2] * 4
        )

    def block(self, given: str, channels: int, made: int, stride: int) -> str:
        inner = self.node("Relu", self.conv(given, channels, made, 3, stride))
        inner = self.conv(inner, made, made, 3, 1)
        shortcut = given if channels == made and stride == 1 else self.conv(given, channels, made, 1, stride)
        return self.node("Relu", self.node("Add", inner, shortcut))


Body = Callable[[Drawing, str], tuple[str, int]]  # from an image ``[N, side, side, 3]`` to features ``[N, width]``


@dataclass(frozen=True, slots=True)
class Residual:
    """A stem of ``stem`` × ``stem`` pixels and stride 2, then ``depth`` blocks of each width."""

    stem: int
    widths: Sequence[int]
    depth: int

    def __call__(self, drawing: Drawing, image: str) -> tuple[str, int]:
        x = drawing.node("Transpose", drawing.scaled(image), perm=[0, 3, 1, 2])
        channels = self.widths[0]
        x = drawing.node("Relu", drawing.conv(x, 3, channels, self.stem, 2))
        x = drawing.node("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
        for stage, width in enumerate(self.widths):
            for i in range(self.depth):
                x = drawing.block(x, channels, width, 2 if stage and not i else 1)
                channels = width
        return drawing.node("Flatten", drawing.node("GlobalAveragePool", x)), channels


def corner(drawing: Drawing, image: str) -> tuple[str, int]:
    """One pixel, so that almost nothing is computed whatever the size."""
    start, end, axes = (drawing.constant(np.array(values, np.int64)) for values in ((0, 0), (1, 1), (1, 2)))
    return drawing.scaled(drawing.node("Flatten", drawing.node("Slice", image, start, end, axes))), 3


@dataclass(frozen=True, slots=True)
class Network:
    """``side`` × ``side`` × 3 of a ``datatype`` in, so many classes out."""

    name: str
    side: int
    body: Body
    classes: int = CLASSES_MIN
    rows_max: int = 32
    datatype: str = "UINT8"

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of a row."""
        return self.side, self.side, 3


TINY = Network("tiny", 16, Residual(3, (32,), 2))
SMALL = Network("small", 64, Residual(3, (64, 128), 4))
RESNET18 = Network("resnet18", 224, Residual(7, (64, 128, 256, 512), 2), classes=1000)
FREE = Network("free", 224, corner)
FREE_FLOATS = Network("free-fp32", 224, corner, datatype="FP32")
NETWORKS = {network.name: network for network in (TINY, SMALL, RESNET18, FREE, FREE_FLOATS)}


@dataclass(frozen=True, eq=False, slots=True)
class Made:
    """A network as every server gets it: the two parts of a graph, and images with their answers."""

    network: Network
    graph: bytes
    weights: bytes
    images: NDArray[Any]
    logits: Floats

    def rows(self, count: int) -> NDArray[Any]:
        """So many rows: the images, again and again."""
        return np.ascontiguousarray(np.resize(self.images, (count, *self.network.shape)))

    def answers(self, count: int) -> Floats:
        """The logits of ``rows``."""
        return np.resize(self.logits, (count, self.network.classes))

    def session(self, threads: int, spinning: bool) -> ort.InferenceSession:
        return _session(self.graph, self.weights, threads, spinning)

    def bundle(self, vendor: Forge) -> bytes:
        given: list[Content] = [
            Encoded((_png(image),))
            if self.network.datatype == "UINT8"
            else Raw(self.network.datatype, (1, *self.network.shape), image.tobytes())
            for image in self.images
        ]
        cases = GoldenCases(tuple((content,) for content in given), self.logits)
        return vendor.bundle(
            _manifest(self.network),
            {"graph": self.graph, "weights": self.weights, "selftest": cases.encode(), "card": forge.CARD},
        )

    def save(self, folder: Path) -> None:
        """For a peer: the same two files, the graph naming the other, and what a peer must be told."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "graph.onnx").write_bytes(self.graph)
        (folder / "weights").write_bytes(self.weights)
        network = self.network
        said = {
            "name": network.name,
            "input": {"name": INPUT, "datatype": network.datatype, "shape": network.shape},
            "output": {"name": OUTPUT, "datatype": "FP32", "shape": [network.classes]},
            "rows_max": network.rows_max,
        }
        (folder / "network.json").write_text(json.dumps(said))


def make(network: Network) -> Made:
    graph, weights = _draw(network)
    shape = (SAMPLES, *network.shape)
    images = np.random.default_rng(7).integers(0, 256, shape, np.uint8).astype(DTYPES[network.datatype])
    session = _session(graph, weights, 1, spinning=False)
    logits = np.concatenate([session.run([OUTPUT], {INPUT: image[None]})[0] for image in images])
    return Made(network, graph, weights, images, logits)


def _manifest(network: Network) -> Manifest:
    """The only place that knows what a manifest looks like."""
    return forge.manifest(
        model=ModelId(network.name, 1, 1),
        intended_use="For measuring speed alone: its weights are random.",
        inputs=(InputSpec(INPUT, network.datatype, network.shape, IMAGE if network.datatype == "UINT8" else None),),
        labels=tuple(Label(f"class {i}", None) for i in range(network.classes)),
        decision=forge.RULE,
        runtime=RuntimeSpec(OPSET, "1.20.0", "fp32", (PROVIDER,), network.rows_max),
        golden=Golden(SAMPLES, 10_000),
    )


def _draw(network: Network) -> tuple[bytes, bytes]:
    """The graph, and the weights that lie outside it, as the two parts of a bundle."""
    drawing = Drawing(seed=18)
    features, width = network.body(drawing, INPUT)
    head, bias = drawing.weight(width, network.classes, spread=width**-0.5), drawing.weight(network.classes, spread=0.1)
    drawing.nodes.append(helper.make_node("Gemm", [features, head, bias], [OUTPUT]))
    initial, weights = [], bytearray()
    for name, values in drawing.weights:
        if values.nbytes < _INLINE_BYTES_MAX:
            initial.append(numpy_helper.from_array(values, name))
            continue
        placed = forge.tensor(name, values)
        next(entry for entry in placed.external_data if entry.key == "offset").value = str(len(weights))
        initial.append(placed)
        weights += values.tobytes()
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(DTYPES[network.datatype]))
    graph = helper.make_graph(
        drawing.nodes,
        network.name,
        [helper.make_tensor_value_info(INPUT, kind, ["batch", *network.shape])],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["batch", network.classes])],
        initial,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
    return model.SerializeToString(), bytes(weights)


def _session(graph: bytes, weights: bytes, threads: int, spinning: bool) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spinning)))
    if weights:
        options.add_external_initializers_from_files_in_memory(["weights"], [weights], [len(weights)])
    return ort.InferenceSession(graph, sess_options=options, providers=[PROVIDER])


def _png(pixels: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()
