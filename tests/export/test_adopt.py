"""A graph that somebody exported already: taken in as it is, held to its own answers."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from appliance.bundle.manifest import Label
from export import adopt, parity
from export.errors import ConversionError
from export.graph import portable, publish
from export.kinds import ImageInput
from export.recipe import OnnxFile, Recipe
from export.session import GraphSession

COLOURS = ImageInput(height=4, width=4, channels=3, order="BGR", mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
IMAGES = np.random.default_rng(3).integers(0, 256, (70, 4, 4, 3), np.uint8)


def file(folder: Path, *, element: int = TensorProto.FLOAT, rows: object = 1, opset: int = 9) -> Path:
    """A convolution, pooled, and a softmax at the end; its tensors have the names that ours are to have."""
    weight = np.random.default_rng(1).normal(size=(5, 3, 3, 3)).astype(helper.tensor_dtype_to_np_dtype(element))
    nodes = [
        helper.make_node("Conv", ["image", "weight"], ["embedding"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["embedding"], ["features"]),
        helper.make_node("GlobalAveragePool", ["features"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["answer"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "theirs",
        [
            helper.make_tensor_value_info("image", element, [rows, 3, 4, 4]),
            helper.make_tensor_value_info("weight", element, [5, 3, 3, 3]),  # as files of old times have it
        ],
        [helper.make_tensor_value_info("answer", element, [rows, 5, 1, 1])],
        [numpy_helper.from_array(weight, "weight")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=3)
    onnx.save(model, folder / "theirs.onnx")
    return folder / "theirs.onnx"


def recipe(file: Path, logits: str = "logits", embedding: str | None = "features", **changes: Any) -> Recipe:
    return Recipe(
        id="theirs",
        version=1,
        intended_use="a test",
        network=OnnxFile(file=file, logits=logits, embedding=embedding),
        input=COLOURS,
        labels=tuple(Label(name, None) for name in "abcde"),
        validation=file.parent,
        error_among_accepted_max=0.1,
        **changes,
    )


@pytest.mark.parametrize(("element", "precision"), [(TensorProto.FLOAT, "fp32"), (TensorProto.FLOAT16, "fp16")])
@pytest.mark.parametrize("rows", [1, "N"], ids=["one row", "any rows"])
def test_file_answers_in_any_batch_what_it_answered_alone(
    tmp_path: Path, element: int, precision: str, rows: object
) -> None:
    """Its preprocessing inside, in whatever order its channels are; its own names do not get in the way of ours."""
    asked = recipe(file(tmp_path, element=element, rows=rows))
    assert isinstance(asked.network, OnnxFile)
    assert adopt.precision(asked.network) == precision
    names = adopt.outputs(asked.network)
    graph = portable(publish(adopt.with_preprocessing(asked), ("image", *names)), ("image",), names)
    network = adopt.reference(asked, IMAGES)
    assert network.logits.shape == network.embedding.shape == (70, 5)  # type: ignore[union-attr]
    parity.check(GraphSession(graph), (IMAGES,), network, network.logits.argmax(1), 8, precision=precision)


def test_channels_in_another_order_are_another_answer(tmp_path: Path) -> None:
    """The gate would see a recipe that says RGB of a file that wants BGR only as worse accuracy; here is that it matters."""
    asked = recipe(file(tmp_path))
    other = Recipe(**{name: getattr(asked, name) for name in asked.__dataclass_fields__} | {"input": ImageInput(
        height=4, width=4, channels=3, mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))})  # fmt: skip
    assert np.abs(adopt.reference(asked, IMAGES).logits - adopt.reference(other, IMAGES).logits).max() > 0.01


def test_tensor_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match="has no tensor fc7"):
        adopt.reference(recipe(file(tmp_path), logits="fc7"), IMAGES)


def test_what_is_no_graph_of_images_is_refused(tmp_path: Path) -> None:
    (tmp_path / "junk.onnx").write_bytes(b"junk")
    with pytest.raises(ConversionError, match="not an ONNX model"):
        adopt.with_preprocessing(recipe(tmp_path / "junk.onnx"))
    whole = file(tmp_path, element=TensorProto.DOUBLE)
    with pytest.raises(ConversionError, match="one input, of FP32 or FP16"):
        adopt.with_preprocessing(recipe(whole))
