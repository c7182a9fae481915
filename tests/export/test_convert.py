"""From a module to a graph, and what goes wrong on the way."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from appliance.bundle.manifest import Label
from export import checkpoint
from export.convert import condense, convert
from export.errors import ConversionError, RecipeError
from export.kinds import ImageInput
from export.recipe import Recipe, Torch

HOSTILE = """
from pathlib import Path
import safetensors.torch
from torch import nn
from appliance.bundle.manifest import Label
from export.kinds import ImageInput
from export.recipe import Recipe, Torch

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.line = nn.Linear(4, 3)

    def forward(self, x):
        {body}

def recipe(data):
    weights = data / "net.safetensors"
    safetensors.torch.save_file(Net().state_dict(), weights)
    return Recipe(id="net", version=1, intended_use="a test", network=Torch(module=Net, weights=weights),
                  input=ImageInput(height=2, width=2, channels=1, mean=(0.5,), std=(0.5,)),
                  labels=tuple(Label(n, None) for n in "abc"), validation=data, error_among_accepted_max=0.1, unknown=False)
"""


class Tiny(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.line = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.line(x.flatten(1))


class Stubborn(Tiny):
    """Stays in training mode, whatever it is told."""

    def train(self, mode: bool = True) -> "Stubborn":
        return super().train(True)


class Wide(Tiny):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)[:, :2]


def tiny(folder: Path, module: Any = Tiny, weights: str = "tiny.safetensors", prefix: str = "") -> Recipe:
    if not (folder / weights).exists():
        safetensors.torch.save_file(Tiny().state_dict(), folder / weights)
    return Recipe(
        id="tiny",
        version=1,
        intended_use="a test",
        network=Torch(module=module, weights=folder / weights, prefix=prefix),
        input=ImageInput(height=2, width=2, channels=1, mean=(0.5,), std=(0.25,)),
        labels=tuple(Label(name, None) for name in "abc"),
        validation=folder,
        error_among_accepted_max=0.1,
    )


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("return self.line(x.flatten(1) if x.sum() > 0 else -x.flatten(1))", "GuardOnDataDependentSymNode"),
        ("return self.line(x.flatten(1)).reshape(5, 3)", "inferred a static shape of 5"),
    ],
    ids=["branch on the data", "batch fixed by the module"],
)
def test_failed_export_gives_one_sentence(tmp_path: Path, body: str, said: str) -> None:
    """Pitfalls 1 and 8: torch writes pages of graph; the author reads a line."""
    (tmp_path / "hostile.py").write_text(HOSTILE.format(body=body))
    with pytest.raises(ConversionError, match=said) as refusal:
        convert(tmp_path / "hostile.py", None)
    assert len(str(refusal.value)) <= 300
    assert "\n" not in str(refusal.value)


def test_condense_takes_the_last_line_that_says_anything() -> None:
    noise = "graph():\n" * 50_000
    assert condense(f"{noise}\nValueError:   no\tgood\n}}\n\n") == "ValueError: no good"
    assert len(condense("x" * 10_000)) == 300
    assert condense("\n---\n", -11) == "The export ended with code -11 and no message."


def test_module_left_in_training_mode_is_refused(tmp_path: Path) -> None:
    """Pitfall 4: torch only warns, and dropout would be served."""
    with pytest.raises(ConversionError, match="training mode"):
        checkpoint.load(tiny(tmp_path, Stubborn))


def test_module_of_the_author_is_left_alone(tmp_path: Path) -> None:
    """The factory works on a copy: the author's module stays in training mode, with its own weights."""
    shared = Tiny().train()
    before = shared.line.weight.detach().clone()
    served = checkpoint.load(tiny(tmp_path, lambda: shared))
    assert shared.training
    assert torch.equal(shared.line.weight, before)
    assert not any(part.training for part in served.modules())


def test_preprocessing_is_inside(tmp_path: Path) -> None:
    """uint8 ``[N, H, W, C]``, divided by 255, less the mean, by the deviation."""
    served = checkpoint.load(tiny(tmp_path))
    images = np.arange(8, dtype=np.uint8).reshape(2, 2, 2, 1) * 30
    expected = served.module(torch.from_numpy((images.transpose(0, 3, 1, 2) / 255 - 0.5) / 0.25).float())
    assert torch.allclose(checkpoint.outputs(served, (torch.from_numpy(images),))[0], expected, atol=1e-6)


def test_logits_for_other_labels_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match=r"logits \[N, 3\].* returns \(5, 2\)"):
        checkpoint.load(tiny(tmp_path, Wide))


def test_state_dict_inside_a_checkpoint_loses_its_prefix(tmp_path: Path) -> None:
    state = {f"module.{key}": value for key, value in Tiny().state_dict().items()}
    torch.save({"state_dict": state, "best": 0.9}, tmp_path / "net.th")
    checkpoint.load(tiny(tmp_path, weights="net.th", prefix="module."))
    with pytest.raises(RecipeError, match=r"keys begin with 'net\.'"):
        checkpoint.load(tiny(tmp_path, weights="net.th", prefix="net."))
    with pytest.raises(RecipeError, match="do not fit the module"):
        checkpoint.load(tiny(tmp_path, weights="net.th"))


class Exploit:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("code ran",)


def test_checkpoint_with_code_in_it_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Weights are tensors; a pickle that would run code does not."""
    torch.save({"line.weight": Exploit()}, tmp_path / "net.pt")
    with pytest.raises(RecipeError, match="cannot be read"):
        checkpoint.load(tiny(tmp_path, weights="net.pt"))
    assert "code ran" not in capsys.readouterr().out
