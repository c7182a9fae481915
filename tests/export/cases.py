"""Small sets of cases in memory, as ``export.evidence`` and the report take them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits

from appliance.model.inputs import Images, Rows


@dataclass(frozen=True)
class Kept:
    names: tuple[str, ...]
    rows: Rows
    labels: NDArray[np.int64]
    groups: tuple[str, ...] | None = None

    def where(self, places: NDArray[np.int64] | slice) -> "Kept":
        of = np.arange(len(self.names))[places]
        groups = None if self.groups is None else tuple(self.groups[i] for i in of)
        return Kept(tuple(self.names[i] for i in of), tuple(array[of] for array in self.rows), self.labels[of], groups)


def of_images(images: Images, labels: NDArray[np.int64], groups: tuple[str, ...] | None = None) -> Kept:
    """Named as files in folders are: uint8 ``[N, height, width, channels]``."""
    return Kept(tuple(f"{label}/{i:04}.png" for i, label in enumerate(labels.tolist())), (images,), labels, groups)


def digits() -> Kept:
    """The 1,797 digits of scikit-learn, uint8 ``[N, 8, 8, 1]``."""
    found = load_digits()
    images = (found.images * 15.9375).astype(np.uint8)[..., None]
    return of_images(images, found.target.astype(np.int64))
