"""From a recipe's network to a graph, in a process of its own.

    python -m export.convert RECIPE DATA OUTDIR

A fresh process for each export, since a second export in one process can fail on what the first left behind, and since
torch may write hundreds of kilobytes to stderr: here they are captured and only the reason is shown.
"""

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from appliance.errors import ApplianceError
from export import kinds
from export.errors import ConversionError
from export.graph import OPSET, Graph, portable, private, publish
from export.recipe import OnnxFile, Recipe

if TYPE_CHECKING:
    from onnx import ModelProto

SECONDS_MAX = 3600
_SENTENCE_CHARACTERS_MAX = 300


def convert(recipe_path: Path, data: Path | None) -> Graph:
    """The ``graph`` and ``weights`` parts of the recipe's network.

    Raises:
        ConversionError: with the reason in one sentence.
    """
    with tempfile.TemporaryDirectory(prefix="export-") as folder:
        arguments = [str(recipe_path.resolve()), str((data or recipe_path.parent).resolve()), folder]
        try:
            finished = subprocess.run(
                [sys.executable, "-m", "export.convert", *arguments],
                cwd=Path(__file__).resolve().parents[1],  # so that this very package is the one that runs
                capture_output=True,
                timeout=SECONDS_MAX,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise ConversionError(f"The export did not end within {SECONDS_MAX} seconds.") from None
        if finished.returncode != 0:
            raise ConversionError(condense(finished.stderr.decode(errors="replace"), finished.returncode))
        return Graph.read(Path(folder))


def condense(stderr: str, returncode: int = 1) -> str:
    """The reason in what a failed export wrote: its last line that says anything, shortened."""
    lines = [" ".join(line.split()) for line in stderr.splitlines()]
    said = [line for line in lines if any(character.isalpha() for character in line)]
    if not said:
        return f"The export ended with code {returncode} and no message."
    return said[-1] if len(said[-1]) <= _SENTENCE_CHARACTERS_MAX else said[-1][: _SENTENCE_CHARACTERS_MAX - 1] + "…"


def _main(recipe_path: str, data: str, folder: str) -> None:
    """The child process: writes ``graph`` and ``weights`` into the folder."""
    from export import adopt, recipe

    asked = recipe.load(Path(recipe_path), Path(data))
    if isinstance(asked.network, OnnxFile):
        made, names = adopt.with_preprocessing(asked), adopt.outputs(asked.network)
    else:
        made, names = _exported(asked)
    given = tuple(spec.name for spec in asked.input.specs)
    portable(publish(made, (*given, *names)), given, names).write(Path(folder))


def _exported(asked: Recipe) -> "tuple[ModelProto, tuple[str, ...]]":
    import torch

    from export import checkpoint

    served = checkpoint.load(asked)
    names = kinds.outputs(checkpoint.has_embedding(served, asked))
    example = checkpoint.example(asked)
    batch = tuple({0: "batch"} for _ in example)
    program = torch.onnx.export(
        served,
        example,
        dynamo=True,
        opset_version=OPSET,
        optimize=True,
        verify=False,  # it tries only the example and never raises; parity.py is the gate
        input_names=[private(spec.name) for spec in asked.input.specs],
        output_names=list(map(private, names)),
        dynamic_shapes=(batch,) if isinstance(served, checkpoint.ServedTensors) else batch,
    )
    if program is None:
        raise ConversionError("torch gave no graph.")
    return program.model_proto, names


def _reason(error: BaseException) -> str:
    """How the root cause begins: torch wraps it in its own report, of hundreds of kilobytes."""
    if isinstance(error, ApplianceError):
        return str(error)
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or ["no reason given"]
    told = 2 if lines[0].endswith(":") else 1
    return f"The network cannot be exported: {type(error).__name__}: {' '.join(lines[:told])}"


if __name__ == "__main__":
    try:
        _main(*sys.argv[1:4])
    except Exception as error:
        sys.stderr.write(f"\n{_reason(error)}\n")
        raise SystemExit(1) from None
