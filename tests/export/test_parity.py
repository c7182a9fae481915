"""The gate: a graph that differs from torch, or that mixes its rows, does not pass."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from appliance.model import inputs
from export import parity
from export.errors import ParityError
from export.session import GraphSession, Outputs
from tests.export.desk import Opened


@pytest.fixture(scope="module")
def images(trained: Path, opened: Opened) -> inputs.Images:
    files = [path.read_bytes() for path in sorted((trained / "test").glob("*/*.png"))]
    return inputs.decode(opened.manifest.inputs[0], files)


def test_graph_answers_as_torch_did(trained: Path, opened: Opened, images: inputs.Images) -> None:
    """On images that the build has never seen, against what torch wrote down when it was trained."""
    reference = np.load(trained / "test-reference.npz")
    found = opened.session().run(images, 7)
    assert np.abs(found.logits - reference["logits"]).max() <= 1e-4
    report = parity.check(opened.session(), images, Outputs(reference["logits"], found.embedding), rows_max=32)
    assert report.images == 400
    assert report.logit_difference_e9 <= 100_000


def test_perturbed_weights_do_not_pass(opened: Opened, images: inputs.Images) -> None:
    """One part in a thousand on every weight is seen, and the sentence has the figures."""
    truth = opened.session().run(images, 32)
    weights = np.frombuffer(opened.parts["weights"], np.float32) * np.float32(1.001)
    with pytest.raises(ParityError, match=r"by \d\.\d\de-\d\d on validation images; \d\.\d\de-\d\d is allowed"):
        parity.check(GraphSession(opened.parts["graph"], weights.tobytes()), images, truth, 32)


def test_value_that_is_not_a_number_does_not_pass(opened: Opened, images: inputs.Images) -> None:
    truth = opened.session().run(images, 32)
    weights = np.full_like(np.frombuffer(opened.parts["weights"], np.float32), np.nan)
    with pytest.raises(ParityError, match=r"graph gives .* not finite"):
        parity.check(GraphSession(opened.parts["graph"], weights.tobytes()), images, truth, 32)


def test_too_few_images_prove_nothing(opened: Opened, images: inputs.Images) -> None:
    truth = opened.session().run(images[:63], 32)
    with pytest.raises(ParityError, match="at least 64 real images, and there are 63"):
        parity.check(opened.session(), images[:63], truth, 32)


def test_graph_that_mixes_its_rows_does_not_pass() -> None:
    """Subtracting the mean over the batch agrees with torch in the batches that were compared, and in no other."""
    nodes = [
        helper.make_node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["pixels"], ["flat"], axis=1),
        helper.make_node("ReduceMean", ["flat", "axes"], ["mean"], keepdims=1),
        helper.make_node("Sub", ["flat", "mean"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "mixing",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", 2, 2, 1])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor("axes", TensorProto.INT64, [1], [0])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    session = GraphSession(model.SerializeToString(), b"")
    images = np.random.default_rng(0).integers(0, 256, (96, 2, 2, 1), dtype=np.uint8)
    with pytest.raises(ParityError, match="in batches of 1,"):
        parity.check(session, images, session.run(images, 32), 32)


def test_close_call_is_no_difference_and_a_clear_one_is() -> None:
    """Where torch's own two best logits are nearer than 0.0002 either may win."""
    near, found = np.array([[1.0, 1.0001, 0.0]]), np.array([[1.0001, 1.0, 0.0]])
    assert parity._check_top(found, near) == 1
    with pytest.raises(ParityError, match="another top class than torch for 1 of 1"):
        parity._check_top(found, np.array([[1.0, 1.1, 0.0]]))
