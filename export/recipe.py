"""The recipe: everything the factory has to know about one version of one model.

A recipe is a small Python file that defines ``def recipe(data: Path) -> Recipe``; ``data`` is the folder given with
``--data``, or else the recipe's own. It is the vendor's code and runs with the vendor's rights. ``docs/recipes.md``
explains it field by field, and ``python -m export new`` writes one to start from. Nothing here imports torch: a recipe can
be read and checked without it.
"""

import importlib.util
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from appliance.bundle.manifest import (
    CHANGE_CLASSES,
    LABEL_SETS,
    PRECISIONS,
    ROWS_MAX,
    SCORES,
    UNKNOWN_METHODS,
    VERSION_MAX,
    Code,
    Label,
)
from export.errors import RecipeError, told
from export.kinds import ImageInput, InputKind, Rules, TensorInput, TextInput, whole

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class Torch:
    """A torch module. ``module`` builds the architecture; in evaluation mode it maps what the input's kind gives it to
    logits float32 ``[N, classes]``, or to a pair of those and an embedding float32 ``[N, width]``.

    ``weights`` is a safetensors file or a state dict, whose keys lose ``prefix``.
    """

    module: "Callable[[], nn.Module]"
    weights: Path
    prefix: str = ""

    @property
    def file(self) -> Path:
        return self.weights

    def rules(self) -> Rules:
        yield callable(self.module), "module must be callable without arguments"
        yield self.weights.is_file(), f"weights: there is no file {self.weights}"


@dataclass(frozen=True, kw_only=True)
class OnnxFile:
    """A graph that somebody exported already, with one input of floating point numbers ``[rows, channels, height, width]``.

    ``logits`` and ``embedding`` name any of its tensors: of what a classifier ends in, logits are what goes into the
    softmax. Where they have more than two dimensions, the mean over the others is taken.
    """

    file: Path
    logits: str
    embedding: str | None = None

    def rules(self) -> Rules:
        yield self.file.is_file(), f"file: there is no file {self.file}"
        yield self.logits != self.embedding, "logits and embedding must be two tensors"


# Of the largest |logit| of the golden cases, or of 1: as the parity gate allows, and more where numbers are coarser.
LOGIT_TOLERANCES = {"fp32": 1e-3, "fp16": 0.05, "int8": 0.5}

Network: TypeAlias = Torch | OnnxFile


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What the model's author fills in. Construction raises RecipeError with every problem at once."""

    id: str
    version: int
    intended_use: str
    network: Network
    input: InputKind
    labels: tuple[Label, ...]
    validation: Path
    error_among_accepted_max: float
    training: Path | None = None
    none_of_these: Path | None = None
    group: Callable[[str], str] | None = None
    precision: str = "fp32"
    unknown: bool = True
    unknown_method: str | None = None
    score: str | None = None
    label_set_coverage: float = 0.9
    label_set_method: str | None = None
    min_supported_version: int = 1
    change_class: str = "initial"
    rows_max: int = 32
    providers: tuple[str, ...] = ("CUDAExecutionProvider", "CPUExecutionProvider")
    golden_cases: int = 12
    logit_tolerance: float | None = None

    def __post_init__(self) -> None:
        problems = [sentence for good, sentence in self._rules() if not good]
        if problems:
            raise RecipeError(*problems)

    def _rules(self) -> Rules:
        """Each rule, and what to say where it is broken. The limits are those of bundle-format section 4."""
        network: object = self.network  # a recipe is not type checked
        kind: object = self.input
        names = [label.name for label in self.labels]
        yield bool(re.fullmatch(r"[a-z0-9-]{1,64}", self.id)), "id must be 1 to 64 of a-z, 0-9 and -"
        yield whole(self.version, 1, VERSION_MAX), "version must be a whole number from 1"
        yield whole(self.min_supported_version, 1, self.version), "min_supported_version must be from 1 to version"
        yield self.change_class in CHANGE_CLASSES, f"change_class must be one of {', '.join(CHANGE_CLASSES)}"
        yield 1 <= len(self.intended_use) <= 2000, "intended_use must have 1 to 2000 characters"
        if isinstance(network, Torch | OnnxFile):
            yield from network.rules()
        else:
            yield False, "network must be a Torch or an OnnxFile"
        if isinstance(kind, ImageInput | TensorInput | TextInput):
            yield from kind.rules()
        else:
            yield False, "input must be an ImageInput, a TensorInput or a TextInput"
        images = isinstance(self.input, ImageInput)
        yield images or not isinstance(self.network, OnnxFile), "an OnnxFile takes an ImageInput"
        yield len(self.labels) >= 2, "labels must be at least two"
        yield len(set(names)) == len(names), "labels must have different names"
        yield all(1 <= len(name) <= 200 for name in names), "a label's name must have 1 to 200 characters"
        codes = [code for code in (label.code for label in self.labels) if code is not None]
        yield all(isinstance(code, Code) for code in codes), "a label's code must be a Code(system, value), or None"
        said = [
            self.intended_use,
            *names,
            *(text for code in codes if isinstance(code, Code) for text in (code.system, code.value)),
        ]
        yield all(_encodes(text) for text in said), "a text has a character that UTF-8 has no code for"
        for name in ("validation", "training", "none_of_these"):
            place: Path | None = getattr(self, name)
            what = "folder" if images else "file"
            there = place is None or (place.is_dir() if images else place.is_file())
            yield there, f"{name}: there is no {what} {place}"
        yield self.group is None or callable(self.group), "group must be callable with a name"
        yield self.precision in PRECISIONS, f"precision must be one of {', '.join(PRECISIONS)}"
        for name, allowed in (("unknown_method", UNKNOWN_METHODS), ("score", SCORES), ("label_set_method", LABEL_SETS)):
            yield getattr(self, name) in (None, *allowed), f"{name} must be one of {', '.join(allowed)}, or left out"
        yield 0 < self.error_among_accepted_max < 1, "error_among_accepted_max must be between 0 and 1"
        yield 0.5 <= self.label_set_coverage < 1, "label_set_coverage must be from 0.5 to below 1"
        yield whole(self.rows_max, 1, ROWS_MAX), f"rows_max must be from 1 to {ROWS_MAX}"
        named = all(isinstance(one, str) and one.endswith("ExecutionProvider") for one in self.providers)
        yield named and 1 <= len(self.providers) <= 8, "providers must be 1 to 8 names such as CPUExecutionProvider"
        yield whole(self.golden_cases, 1, 256), "golden_cases must be from 1 to 256"
        yield self.logit_tolerance is None or 1e-6 <= self.logit_tolerance <= 1, "logit_tolerance must be from 0.000001 to 1"


def load(path: Path, data: Path | None = None) -> Recipe:
    """The recipe of a file. The file's folder joins the end of the import path, so that it may import its neighbours.

    Raises:
        RecipeError: there is no such file, it does not run, it defines no recipe, or the recipe has problems.
    """
    path = path.resolve()
    spec = importlib.util.spec_from_file_location(f"recipe_{path.stem}", path)
    if not path.is_file():
        raise RecipeError(f"there is no recipe file {path.name}")
    if spec is None or spec.loader is None:
        raise RecipeError(f"{path.name} is not a .py file")
    module = importlib.util.module_from_spec(spec)
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    try:
        spec.loader.exec_module(module)
        made: Any = module.recipe((data or path.parent).resolve())
    except RecipeError:
        raise
    except (Exception, SystemExit) as error:  # the file is anyone's code; every case is the recipe's
        raise RecipeError(f"{path.name} does not give a recipe: {told(error)}") from error
    if not isinstance(made, Recipe):
        raise RecipeError(f"{path.name} gives a {type(made).__name__}, not a Recipe")
    return made


def _encodes(text: object) -> bool:
    try:
        return isinstance(text, str) and text.encode() is not None
    except UnicodeEncodeError:  # half of a surrogate pair
        return False
