"""The validation images: a folder for each label, PNG and JPEG files in it, decoded as the product decodes them."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from appliance.errors import InvalidInput
from appliance.model import inputs
from appliance.model.inputs import Images
from export.errors import RecipeError
from export.recipe import Recipe

SUFFIXES = (".png", ".jpg", ".jpeg")


@dataclass(frozen=True, eq=False)
class Validation:
    """N images in path order: ``paths``, uint8 ``images`` ``[N, height, width, channels]``, int64 ``labels`` ``[N]``.

    All are held in memory: 10,000 images of 224 × 224 RGB are 1.5 GB.
    """

    paths: tuple[Path, ...]
    images: Images
    labels: NDArray[np.int64]


def load(recipe: Recipe) -> Validation:
    """Reads and decodes every validation image.

    Raises:
        RecipeError: a folder that is no label's, no image at all, or an image that the product would not accept.
    """
    index = {label.name: i for i, label in enumerate(recipe.labels)}
    strange = sorted(f.name for f in recipe.validation.iterdir() if f.is_dir() and f.name not in index)
    if strange:
        raise RecipeError(f"validation has folders that are no label's: {', '.join(strange[:5])}")
    paths = sorted(path for path in recipe.validation.glob("*/*") if path.suffix.lower() in SUFFIXES)
    if not paths:
        raise RecipeError("validation has no PNG or JPEG files in folders named for the labels")
    rows = np.empty((len(paths), recipe.height, recipe.width, recipe.channels), np.uint8)
    for i, path in enumerate(paths):
        try:
            rows[i] = inputs.decode(recipe.input, [path.read_bytes()])[0]
        except InvalidInput as error:
            raise RecipeError(f"validation image {path.parent.name}/{path.name}: {error}") from error
    return Validation(tuple(paths), rows, np.array([index[path.parent.name] for path in paths], np.int64))
