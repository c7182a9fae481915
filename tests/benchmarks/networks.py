"""Two networks of known cost, with random weights: only their speed is looked at.

``small`` takes about 1 ms for a row here, ``resnet18`` (He et al. 2015, table 1, without batch normalisation, which a
runtime folds away) about 30 ms.
"""

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from appliance.bundle.manifest import Golden, InputSpec, Label, Manifest, ModelId, RuntimeSpec
from appliance.model.golden import GoldenCases
from export.graph import OPSET, Graph, portable
from export.seal import seal
from export.session import GraphSession
from tests import forge

ROWS_MAX = 32


class _Network:
    """Collects nodes and weights. Every method takes and returns the name of a value."""

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.weights: list[TensorProto] = []
        self._random = np.random.default_rng(18)

    def node(self, kind: str, *inputs: str, **attributes: object) -> str:
        output = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [output], **attributes))
        return output

    def weight(self, *shape: int) -> str:
        name = f"w{len(self.weights)}"
        scale = np.sqrt(2 / np.prod(shape[1:]))
        values = (self._random.standard_normal(shape) * scale).astype(np.float32)
        self.weights.append(numpy_helper.from_array(values, name))
        return name

    def convolution(self, x: str, given: int, made: int, size: int, stride: int = 1) -> str:
        pads = [size // 2] * 4
        return self.node("Conv", x, self.weight(made, given, size, size), strides=[stride, stride], pads=pads)

    def block(self, x: str, given: int, made: int) -> str:
        stride = 1 if given == made else 2
        inner = self.node("Relu", self.convolution(x, given, made, 3, stride))
        inner = self.convolution(inner, made, made, 3)
        shortcut = x if given == made else self.convolution(x, given, made, 1, stride)
        return self.node("Relu", self.node("Add", inner, shortcut))

    def head(self, x: str, width: int, classes: int) -> str:
        pooled = self.node("Flatten", self.node("GlobalAveragePool", x))
        return self.node("Gemm", pooled, self.weight(width, classes))


def _model(name: str, side: int, classes: int) -> ModelProto:
    network = _Network()
    pixels = network.node("Cast", network.node("Transpose", "image", perm=[0, 3, 1, 2]), to=TensorProto.FLOAT)
    scale = numpy_helper.from_array(np.float32(1 / 255), "scale")
    x = network.node("Mul", pixels, "scale")
    if name == "small":
        x = network.node("Relu", network.convolution(x, 3, 32, 3, 2))
        for given, made in ((32, 32), (32, 64)):
            x = network.block(x, given, made)
        logits = network.head(x, 64, classes)
    else:
        x = network.node("Relu", network.convolution(x, 3, 64, 7, 2))
        x = network.node("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
        for given, made in ((64, 64), (64, 64), (64, 128), (128, 128), (128, 256), (256, 256), (256, 512), (512, 512)):
            x = network.block(x, given, made)
        logits = network.head(x, 512, classes)
    network.nodes[-1].output[0] = "logits"
    assert logits
    graph = helper.make_graph(
        network.nodes,
        name,
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", side, side, 3])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", classes])],
        [scale, *network.weights],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)


SIDES = {"small": 96, "resnet18": 224}
CLASSES = {"small": 10, "resnet18": 1000}


def manifest(name: str) -> Manifest:
    side, classes = SIDES[name], CLASSES[name]
    return forge.manifest(
        bundle_id=name.encode().ljust(16, b"\0").hex(),
        model=ModelId(name, 1, 1),
        input=InputSpec("image", side, side, 3, "stretch", side * side, 1 << 20),
        labels=tuple(Label(str(k), None) for k in range(classes)),
        runtime=RuntimeSpec(OPSET, "1.20.0", ("CPUExecutionProvider",), ROWS_MAX),
        golden=Golden(2, 10_000),
    )


def graph(name: str) -> Graph:
    """The graph and weights parts, the same at every call."""
    return portable(_model(name, SIDES[name], CLASSES[name]), "image", ("logits",))


def rows(name: str, count: int, seed: int = 0) -> np.ndarray:
    """Random images, uint8 ``[count, side, side, 3]``."""
    return np.random.default_rng(seed).integers(0, 256, (count, SIDES[name], SIDES[name], 3), np.uint8)


def bundle(name: str, content_key: bytes, signer: Ed25519PrivateKey) -> bytes:
    made = graph(name)
    images = rows(name, 2)
    logits = GraphSession(made.graph, made.weights).run(images, 1).logits
    golden = GoldenCases(tuple(forge.png(image) for image in images), logits)
    parts = {"graph": made.graph, "weights": made.weights, "selftest": golden.encode()}
    return seal(manifest(name), parts, content_key, [signer])
