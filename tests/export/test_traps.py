"""What goes wrong where torch is called in the obvious way, and that ours does not.

``naive`` makes the obvious calls, in one process, and says what came of them; beside each stands what the factory does with
the same module. Where torch mends a thing, its naive half fails: then the care taken here can go.
"""

import json
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from export import checkpoint, parity, recipe
from export.convert import convert
from export.errors import ParityError
from export.graph import Graph
from export.session import GraphSession

MODULES = """
import torch
from torch import nn

class Transformer(nn.Module):
    '''A class token before the patches, as a vision transformer has.'''
    def __init__(self):
        super().__init__()
        self.patch, self.token = nn.Linear(16, 8), nn.Parameter(torch.zeros(1, 1, 8))
        self.layer, self.head = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True), nn.Linear(8, 3)

    def forward(self, x):
        rows = self.patch(x.reshape(x.shape[0], 4, 16))
        rows = torch.cat([self.token.expand(x.shape[0], -1, -1), rows], 1)
        return self.head(self.layer(rows)[:, 0])

class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.read, self.head = nn.GRU(8, 4, batch_first=True), nn.Linear(4, 3)

    def forward(self, x):
        return self.head(self.read(x.reshape(x.shape[0], -1, 8))[0][:, -1])

class Noisy(nn.Module):
    '''Answers differently each time.'''
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(64, 3)

    def forward(self, x):
        return self.head(x.flatten(1) + torch.rand_like(x.flatten(1)))

class Dropping(nn.Module):
    def __init__(self):
        super().__init__()
        self.drop, self.head = nn.Dropout(0.5), nn.Linear(64, 3)

    def forward(self, x):
        return self.head(self.drop(x.flatten(1)))
"""

NAIVE = """
import contextlib, io, json, logging, warnings
from modules import Dropping, Noisy, Recurrent, Transformer
import torch

warnings.simplefilter("ignore")
logging.disable(logging.CRITICAL)

def export(module, rows, shapes={0: "batch"}, **options):
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try:
            made = torch.onnx.export(module, (torch.zeros(rows, 1, 8, 8),), dynamo=True, opset_version=20,
                                     dynamic_shapes=(shapes,), **options)
        except Exception as error:
            return type(error).__name__
    graph = made.model_proto.graph
    sizes = [[d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in (*graph.input, *graph.output)]
    return {"sizes": sizes, "nodes": [node.op_type for node in graph.node], "text": str(made.model_proto)}

long = {0: "batch", 2: "length"}
said = {
    "one row": export(Transformer().eval(), 1),
    "verified noise": export(Noisy().eval(), 5, verify=True),
    "in training": export(Dropping().train(), 5),
    "first of two": export(Recurrent().eval(), 5, long),
    "second of two": export(Recurrent().eval(), 5, long),
}
print(json.dumps(said))
"""

RECIPE = """
from pathlib import Path
import safetensors.torch
from appliance.bundle.manifest import Label
from export.kinds import Tensor, TensorInput
from export.recipe import Recipe, Torch
import modules

def recipe(data):
    made, weights = modules.{name}, data / "{name}.safetensors"
    if not weights.exists():
        safetensors.torch.save_file(made().state_dict(), weights)
    (data / "validation.npz").touch()
    return Recipe(id="net", version=1, intended_use="a test", network=Torch(module=made, weights=weights),
                  input=TensorInput({{"x": Tensor("FP32", (1, 8, 8))}}), labels=tuple(Label(n, None) for n in "abc"),
                  validation=data / "validation.npz", error_among_accepted_max=0.1, unknown=False)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("traps")
    (made / "modules.py").write_text(MODULES)
    return made


@pytest.fixture(scope="module")
def naive(folder: Path) -> dict[str, Any]:
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(NAIVE)], cwd=folder, capture_output=True, check=True, text=True
    )
    return json.loads(ended.stdout.splitlines()[-1])


def ours(folder: Path, name: str) -> Graph:
    (folder / f"{name}.py").write_text(RECIPE.format(name=name))
    return convert(folder / f"{name}.py", folder)


def images(rows: int) -> tuple[np.ndarray]:
    return (np.random.default_rng(0).normal(size=(rows, 1, 8, 8)).astype(np.float32),)


def test_example_of_one_row_fixes_the_output_and_ours_does_not(naive: dict[str, Any], folder: Path) -> None:
    """Pitfall 1: the input says ``batch``, the output has one row, and nobody is told."""
    given, made = naive["one row"]["sizes"]
    assert isinstance(given[0], str)
    assert made[0] == 1
    session = GraphSession(ours(folder, "Transformer"))
    assert [len(session.run(images(rows), rows).logits) for rows in (1, 2, 3, 7, 32)] == [1, 2, 3, 7, 32]


def test_second_export_in_a_process_fails_and_ours_does_not(naive: dict[str, Any], folder: Path) -> None:
    """Pitfall 2: with a dynamic length a second GRU is refused, whatever is reset. Each of ours has a process of its own."""
    assert isinstance(naive["first of two"], dict)
    assert naive["second of two"] == "TorchExportError"
    assert ours(folder, "Recurrent") == ours(folder, "Recurrent")


def test_verification_by_torch_passes_noise_and_ours_does_not(naive: dict[str, Any], folder: Path) -> None:
    """Pitfall 3: ``verify=True`` only logs what differs."""
    assert isinstance(naive["verified noise"], dict)
    session = GraphSession(ours(folder, "Noisy"))
    asked = recipe.load(folder / "Noisy.py", folder)
    network = checkpoint.reference(checkpoint.load(asked), asked, images(64))
    with pytest.raises(ParityError, match="differs from the network in a logit"):
        parity.check(session, images(64), network, np.zeros(64, np.int64), 32)


def test_training_mode_is_exported_and_ours_is_not(naive: dict[str, Any], folder: Path) -> None:
    """Pitfall 4: torch warns, and exports a graph that drops half of what it sees."""
    assert "Dropout" in naive["in training"]["nodes"]
    model = onnx.load_model_from_string(ours(folder, "Dropping").graph)
    assert "Dropout" not in {node.op_type for node in model.graph.node}


def test_graph_of_torch_tells_where_it_was_written_and_ours_does_not(naive: dict[str, Any], folder: Path) -> None:
    """Pitfall 6: file names, lines of source and class names."""
    assert all(trace in naive["one row"]["text"] for trace in ("modules.py", "self.patch(x", "TransformerEncoderLayer"))
    made = ours(folder, "Transformer")
    assert not any(trace in made.graph for trace in (b"modules", b"self.", b"TransformerEncoder", str(folder).encode()))
