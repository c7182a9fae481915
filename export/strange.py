"""Inputs that no one would send, made from those that one would: on them each way to tell the unknown is tried.

They are cheap, always at hand, and easier than a real stranger: a folder of real inputs that are "none of these" says more.

Of images: noise; flat pictures in black, white and greys; known ones cut into blocks and laid anew, which keeps their
brightness and their texture and loses their shape; known ones inverted, as a radiograph is with the wrong photometric
interpretation. Of tensors: known rows with each feature taken from another row, which keeps every feature's distribution
and loses what they have to do with each other; noise three times as far out as known ones are. Of texts: words drawn at
random, and one word repeated, both as long as known texts are.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from appliance.bundle.manifest import InputSpec, TextSpec
from appliance.model.text import STRANGE

Array = NDArray[Any]

BLOCKS = 4  # a side
NOISE_SCALE = 3.0


def synthetic(spec: InputSpec, known: Array, n: int, seed: int) -> dict[str, Array]:
    """Sets of ``n`` rows by name, each ``[n, *spec.shape]`` and of the datatype of ``known``, which is ``[N, *spec.shape]``.

    The same seed gives the same rows.
    """
    random = np.random.default_rng(seed)
    rows = known[random.integers(0, len(known), n)]
    if spec.image is not None:
        return _images(rows, random)
    if spec.text is not None:
        return _texts(spec.text, rows, random)
    return _tensors(rows, known, random)


def _images(rows: Array, random: np.random.Generator) -> dict[str, Array]:
    levels = np.stack([np.zeros(len(rows)), np.full(len(rows), 255), random.integers(1, 255, len(rows))])
    flat = levels[np.arange(len(rows)) % 3, np.arange(len(rows))].astype(np.uint8)
    return {
        "noise": random.integers(0, 256, rows.shape, dtype=np.uint8),
        "flat": np.broadcast_to(flat[:, None, None, None], rows.shape).copy(),
        "shuffled blocks": _shuffled(rows, random),
        "inverted": 255 - rows,
    }


def _shuffled(rows: Array, random: np.random.Generator) -> Array:
    """Four by four blocks of each image in another order; what is left over at the right and the bottom stays."""
    n, height, width, channels = rows.shape
    blocks = min(BLOCKS, height, width)
    high, wide = height // blocks, width // blocks
    made = rows.copy()
    grid = made[:, : blocks * high, : blocks * wide].reshape(n, blocks, high, blocks, wide, channels)
    flat = grid.transpose(0, 1, 3, 2, 4, 5).reshape(n, blocks**2, high, wide, channels)
    order = np.argsort(random.random((n, blocks**2)), axis=1)
    mixed = flat[np.arange(n)[:, None], order].reshape(n, blocks, blocks, high, wide, channels)
    made[:, : blocks * high, : blocks * wide] = mixed.transpose(0, 1, 3, 2, 4, 5).reshape(n, blocks * high, -1, channels)
    return made


def _tensors(rows: Array, known: Array, random: np.random.Generator) -> dict[str, Array]:
    flat = known.reshape(len(known), -1)
    picks = random.integers(0, len(known), (len(rows), flat.shape[1]))
    permuted = flat[picks, np.arange(flat.shape[1])].reshape(rows.shape)
    values = flat.astype(np.float64)
    # A feature that never varies among the known ones does vary in noise.
    spread = np.maximum(values.std(axis=0), values.std() * 0.1 or 1.0)
    noise = values.mean(axis=0) + NOISE_SCALE * spread * random.standard_normal((len(rows), flat.shape[1]))
    return {"permuted features": permuted, "noise": _as(noise.reshape(rows.shape), known.dtype)}


def _as(values: NDArray[np.float64], dtype: np.dtype[Any]) -> Array:
    """The nearest values that a datatype has."""
    if dtype.kind == "b":
        return np.asarray(values > 0.5)
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        # The largest float64 that is not over the limit: 2⁶³ − 1 itself would be rounded to 2⁶³, and wrap.
        top = np.nextafter(np.float64(limits.max), 0) if dtype.itemsize == 8 else limits.max
        return np.clip(np.round(values), limits.min, top).astype(dtype)
    return np.clip(values, np.finfo(dtype).min, np.finfo(dtype).max).astype(dtype)


def _texts(spec: TextSpec, rows: Array, random: np.random.Generator) -> dict[str, Array]:
    lengths, words = rows[:, :1], len(spec.words)
    inside = np.arange(rows.shape[1] - 1) < lengths
    first = STRANGE + 1
    return {
        "random words": np.hstack([lengths, random.integers(first, first + words, inside.shape) * inside]),
        "one word repeated": np.hstack([lengths, random.integers(first, first + words, (len(rows), 1)) * inside]),
    }
