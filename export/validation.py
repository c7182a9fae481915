"""The cases a recipe names (validation, training, none of these), read and decoded as the product decodes a caller's.

=======  ==========================================================================================================
images   a folder for each label, PNG and JPEG files in it; of ``none_of_these``, such files anywhere below it
tensors  an ``.npz`` file: an array for each input, first dimension the cases; ``labels``, the number of each case's label;
         ``groups``, texts, if wanted
texts    a tab-separated file whose first line is ``label<tab>text``, or ``label<tab>text<tab>group``
=======  ==========================================================================================================

A group is whatever must not stand on both sides of a split: a patient, a study, a device.
"""

import csv
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from appliance.errors import InvalidInput
from appliance.model import inputs
from appliance.model.inputs import DTYPES, Content, Encoded, Raw, Rows
from export.bare import bare
from export.errors import RecipeError, told
from export.kinds import ImageInput, TensorInput, TextInput
from export.recipe import Recipe

SUFFIXES = (".png", ".jpg", ".jpeg")
FIELD_CHARACTERS_MAX = 1 << 20  # as many as a text may have bytes


@dataclass(frozen=True, eq=False)
class Validation:
    """N cases in a fixed order. ``rows`` is an array ``[N, ...]`` for each input; ``labels``, int64 ``[N]``, -1 for none.

    ``content`` gives what a caller would send for the case at a place, an image without its metadata. All are held in
    memory: 10,000 images of 224 × 224 RGB are 1.5 GB.
    """

    names: tuple[str, ...]
    rows: Rows
    labels: NDArray[np.int64]
    groups: tuple[str, ...] | None
    content: Callable[[int], tuple[Content, ...]]

    def __len__(self) -> int:
        return len(self.labels)


def load(recipe: Recipe) -> Validation:
    """The validation cases. Raises RecipeError where they cannot be used."""
    return _read(recipe, recipe.validation, "validation")


def training(recipe: Recipe) -> Validation | None:
    """The training cases, where the recipe names them."""
    return None if recipe.training is None else _read(recipe, recipe.training, "training")


def strange(recipe: Recipe) -> Validation | None:
    """The cases that are none of the labels', where the recipe names them."""
    return None if recipe.none_of_these is None else _read(recipe, recipe.none_of_these, "none_of_these", labelled=False)


def _read(recipe: Recipe, place: Path, which: str, *, labelled: bool = True) -> Validation:
    match recipe.input:
        case ImageInput():
            return _images(recipe, place, which, labelled)
        case TensorInput():
            return _tensors(recipe, place, which, labelled)
        case TextInput():
            return _texts(recipe, place, which, labelled)


def _images(recipe: Recipe, folder: Path, which: str, labelled: bool) -> Validation:
    index = {label.name: i for i, label in enumerate(recipe.labels)}
    strange = sorted(f.name for f in folder.iterdir() if f.is_dir() and f.name not in index) if labelled else []
    if strange:
        raise RecipeError(f"{which} has folders that are no label's: {', '.join(strange[:5])}")
    found = folder.glob("*/*" if labelled else "**/*")
    paths = sorted(path for path in found if path.suffix.lower() in SUFFIXES)
    if not paths:
        where = " in folders named for the labels" if labelled else ""
        raise RecipeError(f"{which} has no PNG or JPEG files{where}")
    (spec,) = recipe.input.specs
    rows = np.empty((len(paths), *spec.shape), np.uint8)
    names = tuple(path.relative_to(folder).as_posix() for path in paths)
    for i, path in enumerate(paths):
        try:
            rows[i] = inputs.decode(spec, [path.read_bytes()])[0]
        except InvalidInput as error:
            raise RecipeError(f"{which} image {names[i]}: {error}") from error
    labels = [index[path.parent.name] if labelled else -1 for path in paths]
    return Validation(
        names,
        (rows,),
        np.array(labels, np.int64),
        _groups(recipe, names) if labelled else None,
        lambda i: (Encoded((bare(paths[i].read_bytes()),)),),
    )


def _tensors(recipe: Recipe, file: Path, which: str, labelled: bool) -> Validation:
    specs = recipe.input.specs
    try:
        with np.load(file, allow_pickle=False) as archive:
            arrays: dict[str, NDArray[Any]] = dict(archive)
    except Exception as error:  # zipfile, zlib and numpy raise errors that have no common base
        raise RecipeError(f"{which}: {file.name} is not an .npz file of arrays without pickles") from error
    wanted = [*(spec.name for spec in specs), *(["labels"] if labelled else [])]
    missing = [name for name in wanted if name not in arrays]
    if missing:
        raise RecipeError(f"{which}: {file.name} lacks the arrays {', '.join(missing)}")
    flat = [name for name, array in arrays.items() if array.ndim == 0]
    if flat:
        raise RecipeError(f"{which}: the array {flat[0]} has no dimension of cases")
    cases = len(arrays[wanted[0]])
    for spec in specs:
        array = arrays[spec.name]
        if array.dtype != DTYPES[spec.datatype] or array.shape != (cases, *spec.shape) or not cases:
            raise RecipeError(
                f"{which}: the array {spec.name} is {array.dtype} {list(array.shape)}, and must be "
                f"{DTYPES[spec.datatype]} [cases, {', '.join(map(str, spec.shape))}]"
            )
    names = tuple(f"row {i}" for i in range(cases))
    groups = tuple(map(str, arrays["groups"])) if "groups" in arrays else _groups(recipe, names) if labelled else None
    labels = arrays["labels"] if labelled else np.full(cases, -1)
    if labels.shape != (cases,) or labels.dtype.kind not in "iu" or (groups is not None and len(groups) != cases):
        raise RecipeError(f"{which}: labels must be whole numbers and groups texts, one for each of the {cases} cases")
    rows = tuple(arrays[spec.name] for spec in specs)

    def content(i: int) -> tuple[Content, ...]:
        return tuple(
            Raw(spec.datatype, (1, *spec.shape), array[i].tobytes()) for spec, array in zip(specs, rows, strict=True)
        )

    return Validation(names, rows, _in_range(labels, recipe, which, labelled), groups, content)


def _texts(recipe: Recipe, file: Path, which: str, labelled: bool) -> Validation:
    index = {label.name: i for i, label in enumerate(recipe.labels)}
    csv.field_size_limit(FIELD_CHARACTERS_MAX)
    try:
        with file.open(encoding="utf-8", newline="") as stream:
            reader = csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE, strict=True)
            table = [(reader.line_num, line) for line in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise RecipeError(f"{which}: {file.name} is not a tab-separated file in UTF-8") from error
    columns = {"text", "label"} if labelled else {"text"}
    if not table or not columns <= set(reader.fieldnames or ()):
        raise RecipeError(f"{which}: {file.name} has no line below a first one that names {' and '.join(sorted(columns))}")
    for number, line in table:
        if None in line or None in line.values() or (labelled and line["label"] not in index):
            raise RecipeError(f"{which}: line {number} of {file.name} has another number of columns, or a label of no name")
    encoded = [line["text"].encode() for _, line in table]
    names = tuple(f"line {number}" for number, _ in table)
    try:
        rows = inputs.read(recipe.input.specs[0], Encoded(encoded))
    except InvalidInput as error:
        raise RecipeError(f"{which}, counting from 0 below the first line: {error}") from error
    labels = np.array([index[line["label"]] if labelled else -1 for _, line in table], np.int64)
    if not labelled:
        groups = None
    elif "group" in table[0][1]:
        groups = tuple(line["group"] for _, line in table)
    else:
        groups = _groups(recipe, names)
    return Validation(names, (rows,), labels, groups, partial(_encoded, encoded))


def _encoded(elements: Sequence[bytes], i: int) -> tuple[Content, ...]:
    return (Encoded((elements[i],)),)


def _groups(recipe: Recipe, names: Iterable[str]) -> tuple[str, ...] | None:
    """Raises RecipeError where the recipe's function cannot tell the group of a name."""
    if recipe.group is None:
        return None
    made = []
    for name in names:
        try:
            made.append(str(recipe.group(name)))
        except Exception as error:  # it is anyone's code
            raise RecipeError(f"group cannot be told of '{name}': {told(error)}") from error
    return tuple(made)


def _in_range(labels: NDArray[Any], recipe: Recipe, which: str, labelled: bool) -> NDArray[np.int64]:
    if labelled and not (labels.min() >= 0 and labels.max() < len(recipe.labels)):
        raise RecipeError(f"{which}: labels must be from 0 to {len(recipe.labels) - 1}")
    return np.asarray(labels, np.int64)
