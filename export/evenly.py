"""An even choice of places, so that what was sorted before is seen from end to end."""

import numpy as np
from numpy.typing import NDArray


def evenly(count: int, most: int) -> NDArray[np.int64]:
    """Of the places 0 … count − 1 the first, the last and those between, as far apart as they can be; all of them where
    there are not more than ``most``.
    """
    return np.unique(np.linspace(0, count - 1, most).astype(np.int64))
