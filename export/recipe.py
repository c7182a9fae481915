"""The recipe: everything the factory has to know about one version of one model.

A recipe is a small Python file that defines ``def recipe(data: Path) -> Recipe``; ``data`` is the folder given with
``--data``, or else the recipe's own. It is the vendor's code and runs with the vendor's rights. ``docs/recipes.md``
explains it field by field. Nothing here imports torch: a recipe can be read and checked without it.
"""

import importlib.util
import math
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from appliance.bundle.manifest import CHANGE_CLASSES, DECODES, RESIZES, ROWS_MAX, VERSION_MAX, ImageSpec, InputSpec, Label
from export.errors import RecipeError

if TYPE_CHECKING:
    from torch import nn

INPUT_NAME = "image"


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What the model's author fills in. Construction raises RecipeError with every problem at once.

    ``module`` builds the architecture. In evaluation mode it maps float32 ``[N, channels, height, width]``, normalised,
    to logits ``[N, classes]``, or to a pair of those and an embedding ``[N, width]``. ``mean`` and ``std`` are for each
    channel, of pixels scaled to 0..1.
    """

    id: str
    version: int
    intended_use: str
    module: "Callable[[], nn.Module]"
    weights: Path
    height: int
    width: int
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    labels: tuple[Label, ...]
    validation: Path
    error_among_accepted_max: float
    resize: str = "stretch"
    decode: str = "full"
    weights_prefix: str = ""
    min_supported_version: int = 1
    change_class: str = "initial"
    unknown: bool = True
    label_set_coverage: float = 0.9
    pixels_max: int = 40_000_000
    bytes_max: int = 20 << 20
    rows_max: int = 32
    providers: tuple[str, ...] = ("CUDAExecutionProvider", "CPUExecutionProvider")
    golden_cases: int = 12
    logit_tolerance: float = 1e-3

    def __post_init__(self) -> None:
        problems = [sentence for good, sentence in self._rules() if not good]
        if problems:
            raise RecipeError(*problems)

    @property
    def input(self) -> InputSpec:
        image = ImageSpec(self.resize, self.decode, self.pixels_max, self.bytes_max)
        return InputSpec(INPUT_NAME, "UINT8", (self.height, self.width, self.channels), image)

    def _rules(self) -> list[tuple[bool, str]]:
        """Each rule, and what to say where it is broken. The limits are those of bundle-format section 4."""
        numbers = [*self.mean, *self.std]
        names = [label.name for label in self.labels]
        return [
            (bool(re.fullmatch(r"[a-z0-9-]{1,64}", self.id)), "id must be 1 to 64 of a-z, 0-9 and -"),
            (_whole(self.version, 1, VERSION_MAX), "version must be a whole number from 1"),
            (_whole(self.min_supported_version, 1, self.version), "min_supported_version must be from 1 to version"),
            (self.change_class in CHANGE_CLASSES, f"change_class must be one of {', '.join(CHANGE_CLASSES)}"),
            (1 <= len(self.intended_use) <= 2000, "intended_use must have 1 to 2000 characters"),
            (callable(self.module), "module must be callable without arguments"),
            (self.weights.is_file(), f"weights: there is no file {self.weights}"),
            (_whole(self.height, 1, 4096) and _whole(self.width, 1, 4096), "height and width must be from 1 to 4096"),
            (self.channels in (1, 3), "channels must be 1 or 3"),
            (self.resize in RESIZES, f"resize must be one of {', '.join(RESIZES)}"),
            (self.decode in DECODES, f"decode must be one of {', '.join(DECODES)}"),
            (0.5 <= self.label_set_coverage < 1, "label_set_coverage must be from 0.5 to below 1"),
            (
                len(self.mean) == len(self.std) == self.channels and all(map(math.isfinite, numbers)),
                "mean and std must have one finite number for each channel",
            ),
            (all(value > 0 for value in self.std), "std must be over 0"),
            (len(self.labels) >= 2, "labels must be at least two"),
            (len(set(names)) == len(names), "labels must have different names"),
            (all(1 <= len(name) <= 200 for name in names), "a label's name must have 1 to 200 characters"),
            (self.validation.is_dir(), f"validation: there is no folder {self.validation}"),
            (0 < self.error_among_accepted_max < 1, "error_among_accepted_max must be between 0 and 1"),
            (_whole(self.pixels_max, 1, 1 << 30), "pixels_max must be from 1 to 2**30"),
            (_whole(self.bytes_max, 1, 1 << 30), "bytes_max must be from 1 to 2**30"),
            (_whole(self.rows_max, 1, ROWS_MAX), f"rows_max must be from 1 to {ROWS_MAX}"),
            (1 <= len(self.providers) <= 8, "providers must be 1 to 8 names"),
            (_whole(self.golden_cases, 1, 256), "golden_cases must be from 1 to 256"),
            (1e-6 <= self.logit_tolerance <= 1, "logit_tolerance must be from 0.000001 to 1"),
        ]


def load(path: Path, data: Path | None = None) -> Recipe:
    """The recipe of a file. The file's folder joins the end of the import path, so that it may import its neighbours.

    Raises:
        RecipeError: there is no such file, it does not run, it defines no recipe, or the recipe has problems.
    """
    path = path.resolve()
    spec = importlib.util.spec_from_file_location(f"recipe_{path.stem}", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise RecipeError(f"there is no recipe file {path.name}")
    module = importlib.util.module_from_spec(spec)
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    try:
        spec.loader.exec_module(module)
        made: Any = module.recipe((data or path.parent).resolve())
    except RecipeError:
        raise
    except Exception as error:  # the file is anyone's code and may raise anything; every case is the recipe's
        raise RecipeError(f"{path.name} does not give a recipe: {type(error).__name__}: {error}") from error
    if not isinstance(made, Recipe):
        raise RecipeError(f"{path.name} gives a {type(made).__name__}, not a Recipe")
    return made


def _whole(value: object, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
