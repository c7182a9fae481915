"""A recipe says everything that is wrong with it, at once."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from appliance.bundle.manifest import Label
from export import recipe, validation
from export.errors import RecipeError
from export.select import spread
from tests.export.desk import DIGITS, ROOT


def test_every_problem_is_told_at_once(trained: Path) -> None:
    good = recipe.load(DIGITS / "recipe.py", trained)
    with pytest.raises(RecipeError) as refusal:
        recipe.Recipe(
            **{field: getattr(good, field) for field in good.__dataclass_fields__}
            | {
                "id": "No!",
                "version": True,
                "input": replace(good.input, std=(0.0,)),
                "labels": (Label("a", None), Label("a", None)),
                "rows_max": 0,
            }
        )
    words = ("id must", "version must", "std must", "different names", "rows_max must")
    assert [any(word in problem for problem in refusal.value.problems) for word in words] == [True] * 5


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def recipe(data): return 3", "gives a int, not a Recipe"),
        ("import nothing_of_that_name", "ModuleNotFoundError"),
        ("x = 1", "has no attribute 'recipe'"),
        ("def recipe(:", "SyntaxError"),
    ],
)
def test_file_that_gives_no_recipe_is_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "bad.py").write_text(text)
    with pytest.raises(RecipeError, match=said):
        recipe.load(tmp_path / "bad.py")
    with pytest.raises(RecipeError, match=r"no recipe file none\.py"):
        recipe.load(tmp_path / "none.py")


@pytest.mark.parametrize("module", ["export.seal", "export.recipe", "export.calibrate", "export.cli"])
def test_importing_does_nothing_heavy(module: str) -> None:
    """No torch and no runtime, except for the modules that run them; and ONNX Runtime's telemetry is off first."""
    heavy = "{'torch', 'onnx', 'onnxruntime'}"
    bad = f"{heavy} & set(sys.modules) or os.environ['ORT_DISABLE_TELEMETRY'] != '1'"
    code = f"import os, sys, {module}; sys.exit(bool({bad}))"
    environment = {key: value for key, value in os.environ.items() if key != "ORT_DISABLE_TELEMETRY"}
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, check=True)


def test_folder_that_is_no_labels_is_refused(trained: Path, tmp_path: Path) -> None:
    """A misspelt folder would quietly leave its images out."""
    (tmp_path / "validation" / "eleven").mkdir(parents=True)
    (tmp_path / "training").mkdir()
    (tmp_path / "weights.safetensors").write_bytes((trained / "weights.safetensors").read_bytes())
    asked = recipe.load(DIGITS / "recipe.py", tmp_path)
    with pytest.raises(RecipeError, match="no label's: eleven"):
        validation.load(asked)
    (tmp_path / "validation" / "eleven").rename(tmp_path / "validation" / "1")
    with pytest.raises(RecipeError, match="no PNG or JPEG"):
        validation.load(asked)
    (tmp_path / "validation" / "1" / "a.png").write_bytes(b"not an image")
    with pytest.raises(RecipeError, match=r"1/a\.png: .*not a whole PNG or JPEG"):
        validation.load(asked)


def test_golden_cases_are_spread_over_labels_and_files() -> None:
    """Twelve cases of three labels: four of each, the first and the last among them; fewer where there are fewer."""
    labels = [0] * 50 + [1] * 50 + [2] * 50
    chosen = spread(labels, 12)
    assert sorted(labels[i] for i in chosen) == [0] * 4 + [1] * 4 + [2] * 4
    assert {0, 49, 50, 99, 100, 149} <= set(chosen)
    assert len(set(spread([0, 1], 12))) == 2
    assert spread([0, 0, 1, 1], 1) == [0]
