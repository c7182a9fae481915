"""From logits to probabilities, and from an embedding to a distance."""

import io
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from appliance.bundle.opening import Buffer
from appliance.errors import MalformedBundle

Floats: TypeAlias = NDArray[np.float32] | NDArray[np.float64]


def probabilities(logits: Floats, temperature: float) -> NDArray[np.float64]:
    """softmax(logits / temperature), float64 ``[N, classes]`` (temperature scaling: Guo et al. 2017, section 4.2)."""
    scaled = np.asarray(logits, np.float64) / temperature
    exponentials = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    return np.asarray(exponentials / exponentials.sum(axis=1, keepdims=True))


@dataclass(frozen=True, eq=False)
class Reference:
    """What the model's embeddings look like on the images it was made for: aggregates only, no patient's vector.

    ``means`` is float32 ``[classes, width]``, ``precision`` float32 ``[width, width]``, symmetric and positive definite.
    """

    means: NDArray[np.float32]
    precision: NDArray[np.float32]

    def distance(self, embedding: Floats) -> NDArray[np.float64]:
        """The Mahalanobis distance to the nearest class mean, float64 ``[N]`` (Lee et al. 2018, section 2.1)."""
        points = np.asarray(embedding, np.float64) @ self._factor
        squares = (points**2).sum(axis=1)[:, None] + (self._centres**2).sum(axis=1) - 2 * points @ self._centres.T
        return np.asarray(np.sqrt(np.maximum(squares.min(axis=1), 0)))

    @cached_property
    def _factor(self) -> NDArray[np.float64]:
        """Multiplying by this whitens: distances become Euclidean."""
        return np.asarray(np.linalg.cholesky(self.precision.astype(np.float64)))

    @cached_property
    def _centres(self) -> NDArray[np.float64]:
        return np.asarray(self.means.astype(np.float64) @ self._factor)

    def encode(self) -> bytes:
        """The content of a ``reference`` part (bundle-format section 4.3)."""
        buffer = io.BytesIO()
        np.savez(buffer, means=self.means, precision=self.precision)
        return buffer.getvalue()

    @classmethod
    def decode(cls, data: bytes | Buffer, classes: int) -> "Reference":
        """Raises MalformedBundle where the arrays are not what section 4.3 says."""
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
                if len(arrays.files) != 2:
                    raise ValueError("arrays")
                reference = cls(arrays["means"], arrays["precision"])
            width = reference.means.shape[1]
            fits = reference.means.shape == (classes, width) and reference.precision.shape == (width, width)
            if not fits or reference.means.dtype != np.float32 or reference.precision.dtype != np.float32:
                raise ValueError("shapes")
            reference._factor  # noqa: B018  a matrix that is not positive definite is refused here
        except Exception as error:  # zipfile, zlib and numpy raise errors that have no common base
            raise MalformedBundle("The reference part is not valid.") from error
        return reference
