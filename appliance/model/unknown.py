"""How far an input is from the kind that the model was made for: a distance in the space of its embeddings.

Three methods hold aggregates only. ``nearest`` holds an embedding for each case of its bank, which may be a patient's, so a
recipe has to ask for it. What each computes stands in bundle-format section 4.2, and a ``reference`` part (section 4.3) is
the arrays of one of them.
"""

import io
from dataclasses import dataclass, fields
from functools import cached_property
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from appliance.bundle.opening import Buffer
from appliance.errors import MalformedBundle
from appliance.model.confidence import Floats, log_sum_exp

Array = NDArray[np.float32]


class Detector(Protocol):
    """``method`` is its name in the manifest."""

    method: ClassVar[str]

    def distance(self, embedding: Floats, logits: Floats) -> NDArray[np.float64]:
        """Float64 ``[N]`` for an embedding ``[N, width]`` and logits ``[N, classes]``; larger is stranger."""

    def require(self, classes: int, width: int) -> None:
        """Raises ValueError where the arrays do not fit each other, or cannot be used."""


@dataclass(frozen=True, eq=False)
class Mahalanobis:
    """The distance to the nearest class mean (Lee et al. 2018, section 2.1).

    ``means`` is float32 ``[classes, width]``, ``precision`` float32 ``[width, width]``, symmetric and positive definite.
    """

    method: ClassVar[str] = "mahalanobis"
    means: Array
    precision: Array

    def distance(self, embedding: Floats, logits: Floats) -> NDArray[np.float64]:
        return np.asarray(np.sqrt(self.squares(embedding)))

    def squares(self, embedding: Floats) -> NDArray[np.float64]:
        """The square of that, float64 ``[N]``."""
        points = np.asarray(embedding, np.float64) @ self._factor
        squares = (points**2).sum(axis=1)[:, None] + (self._centres**2).sum(axis=1) - 2 * points @ self._centres.T
        return np.asarray(np.maximum(squares.min(axis=1), 0))

    def require(self, classes: int, width: int) -> None:
        _require(self.means.shape == (classes, width) and self.precision.shape == (width, width))
        self._factor  # noqa: B018  a matrix that is not positive definite is refused here

    @cached_property
    def _factor(self) -> NDArray[np.float64]:
        """Multiplying by this whitens: distances become Euclidean."""
        return np.asarray(np.linalg.cholesky(self.precision.astype(np.float64)))

    @cached_property
    def _centres(self) -> NDArray[np.float64]:
        return np.asarray(self.means.astype(np.float64) @ self._factor)


@dataclass(frozen=True, eq=False)
class RelativeMahalanobis:
    """The square of that distance less the square of the one to all classes taken as one (Ren et al. 2021, section 3).

    ``centre`` is float32 ``[width]``, and ``spread`` the precision around it.
    """

    method: ClassVar[str] = "relative_mahalanobis"
    means: Array
    precision: Array
    centre: Array
    spread: Array

    def distance(self, embedding: Floats, logits: Floats) -> NDArray[np.float64]:
        return np.asarray(self._near.squares(embedding) - self._whole.squares(embedding))

    def require(self, classes: int, width: int) -> None:
        _require(self.centre.shape == (width,))
        self._near.require(classes, width)
        self._whole.require(1, width)

    @cached_property
    def _near(self) -> Mahalanobis:
        return Mahalanobis(self.means, self.precision)

    @cached_property
    def _whole(self) -> Mahalanobis:
        return Mahalanobis(self.centre[None], self.spread)


@dataclass(frozen=True, eq=False)
class Vim:
    """Virtual-logit matching (Wang et al. 2022, section 4): what of an embedding lies outside the space that known ones
    span, against the energy of its logits.

    ``origin`` is float32 ``[width]``, ``residual`` float32 ``[width, rest]`` with orthonormal columns, ``scale`` float32
    ``[]``.
    The paper takes its origin from the last layer's weights, which a graph does not show; here it is the mean of the known.
    """

    method: ClassVar[str] = "vim"
    origin: Array
    residual: Array
    scale: Array

    def distance(self, embedding: Floats, logits: Floats) -> NDArray[np.float64]:
        outside = self.outside(embedding) * float(self.scale)
        return np.asarray(outside - log_sum_exp(np.asarray(logits, np.float64)))

    def outside(self, embedding: Floats) -> NDArray[np.float64]:
        """The length of an embedding's part in the residual space, float64 ``[N]``."""
        shifted = np.asarray(embedding, np.float64) - self.origin
        return np.asarray(np.linalg.norm(shifted @ self.residual.astype(np.float64), axis=1))

    def require(self, classes: int, width: int) -> None:
        _require(self.origin.shape == (width,) and self.scale.shape == ())
        _require(self.residual.ndim == 2 and self.residual.shape[0] == width >= self.residual.shape[1] >= 1)


@dataclass(frozen=True, eq=False)
class Nearest:
    """The distance to the k-th nearest of known embeddings, all scaled to length 1 (Sun et al. 2022, section 3).

    ``bank`` is float32 ``[cases, width]``, its rows of length 1; ``k`` is float32 ``[]``, a whole number.
    """

    method: ClassVar[str] = "nearest"
    bank: Array
    k: Array

    def distance(self, embedding: Floats, logits: Floats) -> NDArray[np.float64]:
        points = np.asarray(embedding, np.float64)
        points = points / np.maximum(np.linalg.norm(points, axis=1, keepdims=True), 1e-12)
        squares = np.maximum(2 - 2 * points @ self._rows, 0)
        return np.asarray(np.sqrt(np.partition(squares, int(self.k) - 1, axis=1)[:, int(self.k) - 1]))

    def require(self, classes: int, width: int) -> None:
        _require(self.bank.ndim == 2 and self.bank.shape[1] == width and self.k.shape == ())
        _require(float(self.k).is_integer() and 1 <= int(self.k) <= len(self.bank))

    @cached_property
    def _rows(self) -> NDArray[np.float64]:
        return self.bank.astype(np.float64).T


DETECTORS: dict[str, type[Mahalanobis] | type[RelativeMahalanobis] | type[Vim] | type[Nearest]] = {
    kind.method: kind for kind in (Mahalanobis, RelativeMahalanobis, Vim, Nearest)
}


def encode(detector: Detector) -> bytes:
    """The content of a ``reference`` part (bundle-format section 4.3)."""
    buffer = io.BytesIO()
    np.savez(buffer, **{field.name: getattr(detector, field.name) for field in fields(DETECTORS[detector.method])})
    return buffer.getvalue()


def decode(method: str, data: bytes | Buffer, classes: int) -> Detector:
    """Raises MalformedBundle where the arrays are not what section 4.3 says."""
    kind = DETECTORS[method]
    names = [field.name for field in fields(kind)]
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            _require(sorted(arrays.files) == sorted(names))
            given = {name: arrays[name] for name in names}
        _require(all(array.dtype == np.float32 and np.isfinite(array).all() for array in given.values()))
        detector: Detector = kind(**given)
        detector.require(classes, given[names[0]].shape[-1])
    except Exception as error:  # zipfile, zlib and numpy raise errors that have no common base
        raise MalformedBundle("The reference part is not valid.") from error
    return detector


def _require(holds: bool) -> None:
    if not holds:
        raise ValueError("the arrays do not fit")
