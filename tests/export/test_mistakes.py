"""What a vendor gets wrong on an ordinary day is one sentence, and never a traceback."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import safetensors.torch
import torch
from onnx import TensorProto, helper
from torch import nn

from appliance.bundle.manifest import Code, Label
from appliance.model.golden import GoldenCases
from export import adopt, checkpoint, recipe, select, validation
from export.errors import ExportError
from export.graph import Graph
from export.kinds import ImageInput, InputKind, Tensor, TensorInput, TextInput
from export.recipe import OnnxFile, Recipe, Torch
from export.session import GraphSession
from tests.export.desk import DIGITS, Desk, run_command

PIXELS = ImageInput(height=2, width=2, channels=1, mean=(0.5,), std=(0.5,))
NUMBERS = TensorInput({"x": Tensor("FP32", (4,))})


def asked(folder: Path, module: Callable[[], Any], kind: InputKind = NUMBERS, **changes: Any) -> Recipe:
    for name in ("weights.safetensors", "cases.npz", "cases.tsv"):
        (folder / name).touch()
    safetensors.torch.save_file(nn.Linear(4, 2).state_dict(), folder / "weights.safetensors")
    given: dict[str, Any] = {
        "id": "net", "version": 1, "intended_use": "a test", "input": kind, "labels": (Label("a", None), Label("b", None)),
        "network": Torch(module=module, weights=folder / "weights.safetensors"), "error_among_accepted_max": 0.1,
        "validation": folder if isinstance(kind, ImageInput) else folder / "cases.npz",
    }  # fmt: skip
    return Recipe(**given | changes)


def of(forward: Callable[..., Any]) -> Callable[[], nn.Module]:
    """A linear module of another behaviour."""

    class Net(nn.Linear):
        def __init__(self) -> None:
            super().__init__(4, 2)

        def forward(self, *given: Any) -> Any:
            return forward(*given)

    return Net


def broken() -> nn.Module:
    raise KeyError("colour")


@pytest.mark.parametrize(
    ("module", "said"),
    [
        (broken, "the module cannot be built: KeyError: 'colour'"),
        (lambda: None, "module gives a NoneType, and not a torch module"),
        (of(lambda x, y: x), "does not take what its input's kind gives it: TypeError"),
        (of(lambda x: x @ torch.zeros(5, 2)), "does not take what its input's kind gives it: RuntimeError"),
        (of(lambda x: nn.Embedding(3, 2)(x.long() + 7)), "does not take what its input's kind gives it: IndexError"),
    ],
)
def test_module_that_does_not_fit_is_one_sentence(tmp_path: Path, module: Callable[[], Any], said: str) -> None:
    with pytest.raises(ExportError, match=said) as refusal:
        checkpoint.load(asked(tmp_path, module))
    assert "\n" not in str(refusal.value)


def test_module_that_fails_on_a_real_case_is_one_sentence(tmp_path: Path) -> None:
    """The example is of zeros; a case may hold a category that the table does not have."""
    made = asked(tmp_path, of(lambda x: nn.Embedding(1, 2)(x.long()[:, 0])))
    with pytest.raises(ExportError, match="cannot answer the validation cases: IndexError"):
        checkpoint.reference(checkpoint.load(made), made, (np.ones((3, 4), np.float32),))


def test_state_dict_of_numbers_is_one_sentence(tmp_path: Path) -> None:
    torch.save({0: torch.zeros(1)}, tmp_path / "net.pt")
    made = asked(tmp_path, lambda: nn.Linear(4, 2))
    with pytest.raises(ExportError, match="keys begin with ''"):
        checkpoint.load(replace(made, network=Torch(module=nn.Identity, weights=tmp_path / "net.pt")))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"labels": (Label("a", "17621005"), Label("b", None))}, "code must be a Code"),
        ({"labels": (Label("a", Code("s", "\ud800")), Label("b", None))}, "a character that UTF-8 has no code for"),
        ({"intended_use": "\ud800"}, "a character that UTF-8 has no code for"),
        ({"providers": ("CUDA",)}, "names such as CPUExecutionProvider"),
        ({"kind": TensorInput({"logits": Tensor("FP32", ())})}, "an input cannot be called logits"),
    ],
)
def test_recipe_that_would_fail_at_the_end_is_refused_at_the_beginning(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(ExportError, match=said):
        asked(tmp_path, nn.Identity, **changes)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("r.txt", "", "r.txt is not a .py file"),
        ("r.py", "import sys; sys.exit('no')", "does not give a recipe: SystemExit: no"),
    ],
)
def test_file_that_is_no_recipe_is_one_sentence(tmp_path: Path, name: str, text: str, said: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ExportError, match=said):
        recipe.load(tmp_path / name)


def test_group_that_cannot_be_told_is_one_sentence(tmp_path: Path) -> None:
    """What is none of the labels' has no folder of a label in its name, and needs no group."""
    np.savez(tmp_path / "none.npz", x=np.zeros((2, 4), np.float32))
    made = asked(tmp_path, nn.Identity, group=lambda name: name.split("/")[1], none_of_these=tmp_path / "none.npz")
    np.savez(tmp_path / "cases.npz", x=np.zeros((2, 4), np.float32), labels=np.zeros(2, int))
    with pytest.raises(ExportError, match="group cannot be told of 'row 0': IndexError"):
        validation.load(made)
    strange = validation.strange(made)
    assert strange is not None
    assert strange.groups is None


def test_array_of_no_cases_is_one_sentence(tmp_path: Path) -> None:
    made = asked(tmp_path, nn.Identity)
    np.savez(tmp_path / "cases.npz", x=np.zeros((2, 4), np.float32), labels=np.zeros(2, int), groups=np.array("p1"))
    with pytest.raises(ExportError, match="the array groups has no dimension of cases"):
        validation.load(made)


def test_lines_of_a_table_have_the_numbers_that_an_editor_shows(tmp_path: Path) -> None:
    kind = TextInput(words=("a",), tokens_max=1 << 14, bytes_max=1 << 20)
    made = asked(tmp_path, nn.Identity, kind, validation=tmp_path / "cases.tsv")
    long = "a " * 9000
    (tmp_path / "cases.tsv").write_text(f"label\ttext\tgroup\n\na\t{long}\tp1\n\nb\ta\tp2\n")
    assert validation.load(made).names == ("line 3", "line 5")
    (tmp_path / "cases.tsv").write_text("label\ttext\tgroup\na\ta\tp1\nb\ta\n")
    with pytest.raises(ExportError, match=r"line 3 of cases\.tsv has another number of columns"):
        validation.load(made)


def graph_file(folder: Path, sides: int = 2, classes: int = 2) -> Path:
    nodes = [
        helper.make_node("Conv", ["given", "w"], ["maps"]),
        helper.make_node("GlobalAveragePool", ["maps"], ["top"]),
        helper.make_node("ReduceMean", ["top"], ["flat"], keepdims=0),
    ]
    made = helper.make_graph(
        nodes,
        "theirs",
        [helper.make_tensor_value_info("given", TensorProto.FLOAT, [1, 1, sides, sides])],
        [helper.make_tensor_value_info("flat", TensorProto.FLOAT, [])],
        [onnx.numpy_helper.from_array(np.ones((classes, 1, 1, 1), np.float32), "w")],
    )
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), folder / "net.onnx")
    return folder / "net.onnx"


@pytest.mark.parametrize(
    ("shape", "logits", "said"),
    [
        ({"sides": 5}, "top", "cannot answer the validation images: InvalidArgument"),
        ({"classes": 3}, "top", "The tensor top has 3 logits, and there are 2 labels"),
        ({}, "flat", "has at least two dimensions"),
    ],
)
def test_graph_of_another_shape_is_one_sentence(tmp_path: Path, shape: dict[str, int], logits: str, said: str) -> None:
    network = OnnxFile(file=graph_file(tmp_path, **shape), logits=logits)
    with pytest.raises(ExportError, match=said):
        adopt.reference(asked(tmp_path, nn.Identity, PIXELS, network=network), np.zeros((3, 2, 2, 1), np.uint8))


def test_graph_whose_weights_lie_elsewhere_is_refused(tmp_path: Path) -> None:
    """The digest that the manifest has would be that of a file without them."""
    model = onnx.load(graph_file(tmp_path))
    onnx.save(model, tmp_path / "net.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    with pytest.raises(ExportError, match="keeps its weights in other files"):
        adopt.precision(OnnxFile(file=tmp_path / "net.onnx", logits="top"))


def test_graph_that_the_runtime_cannot_run_is_one_sentence() -> None:
    with pytest.raises(ExportError, match=r"^ONNX Runtime cannot run the graph: [^\n]*$"):
        GraphSession(Graph(b"junk", b""))


@pytest.mark.parametrize("other", ["b.html", "a.bundle", "a.content-key"])
def test_two_files_never_have_one_name(desk: Desk, tmp_path: Path, other: str) -> None:
    """A content key that is written over cannot be made again."""
    command = ["build", DIGITS / "recipe.py", "--data", desk.data, "--out", tmp_path / "a.bundle", *desk.build_options]
    code, _, err = run_command(*command, "--report", tmp_path / other)
    assert (code, list(tmp_path.iterdir())) == (2, [])
    assert "need four names" in err


@pytest.mark.parametrize(
    ("logits", "precision", "at_most"),
    [
        ([[100.0, 0.0]], "fp32", 0.1),
        ([[0.2, -0.2]], "int8", 0.2),
        ([[5.0, 0.0]], "fp16", 0.25),
        ([[1.0, 1.0]], "fp32", 1e-6),
    ],
)
def test_replay_notices_an_answer_that_is_turned_round(
    tmp_path: Path, logits: list[list[float]], precision: str, at_most: float
) -> None:
    """And allows what the gate allows, which grows with the logits."""
    golden = GoldenCases.of_encoded([b"x"] * len(logits), np.float32(logits))
    made = asked(tmp_path, nn.Identity, precision=precision)
    found = select.limit(made, golden).logit_tolerance_e6 / 1e6
    assert found == pytest.approx(at_most, rel=0.03)
    assert select.limit(replace(made, logit_tolerance=0.5), golden).logit_tolerance_e6 == 500_000
