"""A recipe that ``export new`` writes works as it stands, on data laid out as it says at its top."""

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import pytest
import safetensors.torch
import torch
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from appliance.bundle.manifest import TextSpec
from appliance.model import text
from tests.export.desk import Desk, run_command

NAMES, CASES = ("normal", "abnormal"), 120
RNG = np.random.default_rng(5)
LABELS = np.arange(CASES) % 2


def fit(network: nn.Module, *given: Tensor) -> dict[str, Tensor]:
    """The weights of the template's own network, fitted to the cases themselves."""
    torch.manual_seed(0)
    optimiser = torch.optim.Adam(network.parameters(), lr=0.05)
    for _ in range(60):
        loss = functional.cross_entropy(network(*given)[0], torch.from_numpy(LABELS))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return network.state_dict()


def images(data: Path) -> np.ndarray:
    """Darker and brighter noise."""
    pixels = RNG.integers(0, 90, (CASES, 28, 28, 3), np.uint8) + np.uint8(130) * LABELS[:, None, None, None].astype(np.uint8)
    for i, image in enumerate(pixels):
        folder = data / "validation" / NAMES[LABELS[i]]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{i}.png")
    return pixels


def image(data: Path, recipe: ModuleType) -> None:
    pixels = torch.from_numpy(images(data)).permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(v).reshape(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    large = functional.interpolate((pixels - mean) / std, size=(224, 224), mode="bilinear")
    safetensors.torch.save_file(fit(recipe.Network(), large), data / "weights.safetensors")


def tensor(data: Path, recipe: ModuleType) -> None:
    laboratory = RNG.normal(size=(CASES, 4)).astype(np.float32)
    laboratory[:, 0] += 8 * LABELS
    age = RNG.uniform(20, 90, CASES).astype(np.float32)
    np.savez(data / "validation.npz", age=age, laboratory=laboratory, labels=LABELS)
    state = fit(recipe.Network(), torch.from_numpy(age), torch.from_numpy(laboratory))
    safetensors.torch.save_file(state, data / "weights.safetensors")


def words(data: Path, recipe: ModuleType) -> None:
    known = ["fever", "cough", "well", "sleeps"]
    told = [" ".join(RNG.choice(known[2:] if label == 0 else known[:2], 1 + i % 9)) for i, label in enumerate(LABELS)]
    (data / "words.txt").write_text("\n".join(known))
    rows = [f"{NAMES[label]}\t{said}" for label, said in zip(LABELS, told, strict=True)]
    (data / "validation.tsv").write_text("\n".join(["label\ttext", *rows]))
    given = text.tokens(TextSpec("folded", 1000, tuple(known)), 16, [said.encode() for said in told])
    state = fit(recipe.Network(len(known)), torch.from_numpy(given[:, 1:]), torch.from_numpy(given[:, 0]))
    safetensors.torch.save_file(state, data / "weights.safetensors")


def graph(data: Path, recipe: ModuleType) -> None:
    images(data)
    weight, bias = np.zeros((2, 3, 1, 1), np.float32), np.array([0, 2], np.float32)
    weight[1] = 1
    nodes = [
        helper.make_node("Conv", ["given", "weight", "bias"], ["FEATURES"]),
        helper.make_node("GlobalAveragePool", ["FEATURES"], ["LOGITS"]),
        helper.make_node("Softmax", ["LOGITS"], ["answer"], axis=1),
    ]
    made = helper.make_graph(
        nodes,
        "theirs",
        [helper.make_tensor_value_info("given", TensorProto.FLOAT, [1, 3, 224, 224])],
        [helper.make_tensor_value_info("answer", TensorProto.FLOAT, [1, 2, 1, 1])],
        [numpy_helper.from_array(weight, "weight"), numpy_helper.from_array(bias, "bias")],
    )
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), data / "network.onnx")


@pytest.mark.parametrize(("kind", "lay_out"), [("image", image), ("tensor", tensor), ("text", words), ("onnx", graph)])
def test_new_recipe_is_built_as_it_stands(
    kind: str, lay_out: Callable[[Path, ModuleType], None], desk: Desk, tmp_path: Path
) -> None:
    recipe = tmp_path / "recipe.py"
    code, out, _ = run_command("new", kind, "--out", recipe)
    assert (code, out.split(":")[0]) == (0, "recipe.py")
    assert run_command("new", kind, "--out", recipe)[0] == 2, "nothing is written over"
    spec = importlib.util.spec_from_file_location(f"new_{kind}", recipe)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    lay_out(tmp_path, module)
    code, _, err = run_command("build", recipe, "--out", tmp_path / "new.bundle", *desk.build_options)
    assert (code, err) == (0, "")
    report = json.loads((tmp_path / "new.report.json").read_text())
    assert report["validation"]["accuracy"] > 0.9
    assert report["parity"]["cases"] == CASES
