"""The networks that are served: residual networks with seeded random weights, since only their speed is measured.

They are built as ``resnet18`` of He et al. 2015 is, its batch normalisation already folded into the convolutions, and obey
the graph contract: uint8 ``[N, height, width, 3]`` in, float32 logits ``[N, classes]`` out.
"""

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper
from PIL import Image

from appliance.bundle.manifest import DecisionRule, Golden, ImageSpec, InputSpec, Label, Manifest, ModelId, RuntimeSpec
from appliance.engine.session import Hardware, Session, open_session
from appliance.model.golden import GoldenCases
from tests import forge
from tests.forge import OPSET, Forge

Floats = NDArray[np.float32]
PROVIDER = "CPUExecutionProvider"
SAMPLES = 4  # images whose answers are known; a request holds one of them


@dataclass(frozen=True, slots=True)
class Network:
    """A residual network: a stem of ``stem`` × ``stem`` pixels and stride 2, then ``depth`` blocks of each width."""

    name: str
    side: int
    stem: int
    widths: Sequence[int]
    depth: int
    classes: int
    rows_max: int


SMALL = Network("small", 96, 5, (32, 64, 128), 2, 10, 32)
RESNET18 = Network("resnet18", 224, 7, (64, 128, 256, 512), 2, 1000, 8)
NETWORKS = (SMALL, RESNET18)


class _Drawing:
    """The graph while it is drawn. Each method adds nodes and returns the name of what they make."""

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)
        self.nodes: list[NodeProto] = []
        self.weights: list[tuple[str, Floats]] = []

    def node(self, kind: str, *given: str, **attributes: Any) -> str:
        made = f"{kind.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(given), [made], **attributes))
        return made

    def weight(self, *shape: int, spread: float) -> str:
        name = f"w{len(self.weights)}"
        self.weights.append((name, (self._random.standard_normal(shape) * spread).astype(np.float32)))
        return name

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


def draw(network: Network) -> tuple[bytes, bytes]:
    """The graph, and the weights that lie outside it, as the two parts of a bundle."""
    drawing = _Drawing(seed=18)
    pixels = drawing.node("Cast", "image", to=TensorProto.FLOAT)
    drawing.weights.append(("scale", np.array([1 / 255], np.float32)))
    scaled = drawing.node("Mul", pixels, "scale")
    x = drawing.node("Transpose", scaled, perm=[0, 3, 1, 2])
    channels = network.widths[0]
    x = drawing.node("Relu", drawing.conv(x, 3, channels, network.stem, 2))
    x = drawing.node("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    for stage, width in enumerate(network.widths):
        for i in range(network.depth):
            x = drawing.block(x, channels, width, 2 if stage and not i else 1)
            channels = width
    pooled = drawing.node("Flatten", drawing.node("GlobalAveragePool", x))
    head, bias = (
        drawing.weight(channels, network.classes, spread=channels**-0.5),
        drawing.weight(network.classes, spread=0.1),
    )
    drawing.nodes.append(helper.make_node("Gemm", [pooled, head, bias], ["logits"]))
    initial, weights = [], bytearray()
    for name, values in drawing.weights:
        placed = forge.tensor(name, values)
        next(entry for entry in placed.external_data if entry.key == "offset").value = str(len(weights))
        # The runtime reads a scalar while it optimises, and small tensors cost nothing inside the graph.
        initial.append(numpy_helper.from_array(values, name) if values.nbytes < 1024 else placed)
        weights += b"" if values.nbytes < 1024 else values.tobytes()
    graph = helper.make_graph(
        drawing.nodes,
        network.name,
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", network.side, network.side, 3])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", network.classes])],
        initial,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
    return model.SerializeToString(), bytes(weights)


@dataclass(frozen=True, eq=False, slots=True)
class Made:
    """A network as both sides get it: the parts, the manifest they are sealed with, and images with their answers."""

    network: Network
    graph: bytes
    weights: bytes
    manifest: Manifest
    images: NDArray[np.uint8]
    logits: Floats

    def session(self) -> Session:
        """As the appliance opens it: all cores, no spinning, every other option the same."""
        return _open(self.manifest, self.graph, self.weights)

    def bundle(self, forge: Forge) -> bytes:
        cases = GoldenCases.of_images([*map(_png, self.images)], self.logits)
        return forge.bundle(self.manifest, {"graph": self.graph, "weights": self.weights, "selftest": cases.encode()})


def make(network: Network) -> Made:
    graph, weights = draw(network)
    manifest = forge.manifest(
        model=ModelId(network.name, 1, 1),
        intended_use="For measuring speed alone: its weights are random.",
        inputs=(
            InputSpec("image", "UINT8", (network.side, network.side, 3), ImageSpec("stretch", "full", 1_000_000, 1 << 20)),
        ),
        labels=tuple(Label(f"class {i}", None) for i in range(network.classes)),
        decision=DecisionRule(1_000_000, 500_000, None),
        runtime=RuntimeSpec(OPSET, "1.20.0", (PROVIDER,), network.rows_max),
        golden=Golden(SAMPLES, 10_000),
    )
    shape = (SAMPLES, network.side, network.side, 3)
    images = np.random.default_rng(7).integers(0, 256, shape, np.uint8)
    session = _open(manifest, graph, weights)
    logits = np.concatenate([session.run((image[None],)).logits for image in images])
    return Made(network, graph, weights, manifest, images, logits)


def _open(manifest: Manifest, graph: bytes, weights: bytes) -> Session:
    session = open_session(manifest, bytearray(graph), bytearray(weights), Hardware((PROVIDER,), os.cpu_count() or 1))
    session.warm()
    return session


def _png(pixels: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()
