"""Cases that are there twice: byte for byte, or, of images, so alike that one must be made of the other.

Two images are near twins where what they do not share with all the others is the same. Each becomes 16 × 16 grey, from which
a constant and the mean image are projected out: brightness, contrast, and whatever stands in every image (a frame, the round
field of a microscope, two lungs) say nothing then. What is left is compared by its cosine; from ``COSINE_MIN`` on, two are
near twins; of images smaller than that, which have less to differ in, from ``COSINE_MIN_SMALL`` on.

The rule was measured. Among 3,882 chest X-rays of 28 × 28 pixels (7.5 million pairs), and between them and 524 others, it
finds no near twin besides the 25 that are there byte for byte; between 210 and 210 photographs of food, none; among 1,797
digits of 8 × 8, one "1" that looks like another, where 0.97 would find 39. It finds again 95 % or more of those X-rays after
JPEG of quality 50, a change of brightness or of contrast, or slight noise; of photographs after a change of size too. A
difference hash of 64 bits (distance ≤ 10) flags 520 of the 524, and taking it together with the rule changes no figure, so
there is none here. Plain correlation flags all of them once every image has the same round frame.

The weak spots: a crop, a shift or a turn of some per cent is not found, nor what JPEG leaves of images that differ little.
Texts and tensors are compared byte for byte alone.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from appliance.model.inputs import Images, Rows
from export.pictures import picture

SIDE = 16
COSINE_MIN, COSINE_MIN_SMALL = 0.97, 0.99
LEVELS_MIN = 1.0  # grey levels, root mean square: what is left of an image below that is noise of rounding
_BLOCK = 512  # rows compared at a time with all others: 20 MB for 10,000 of them

Array = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Set:
    """N cases: a digest of each one's bytes, its label, int64 ``[N]``, and ``looks``, float32 ``[N, 256]``, rows of length 1
    or 0, which are alike from ``alike`` on; None where the cases are no images.
    """

    digests: tuple[bytes, ...]
    labels: NDArray[np.int64]
    looks: Array | None
    alike: float = COSINE_MIN


@dataclass(frozen=True, eq=False)
class Twins:
    """For each of N cases: ``other`` int64, the place of its first twin or -1; whether that is ``exact``; whether any of its
    twins has another label. Bool, ``[N]``.
    """

    other: NDArray[np.int64]
    exact: NDArray[np.bool_]
    conflict: NDArray[np.bool_]


def sets(cases: Sequence[Rows], labels: Sequence[NDArray[np.int64]], *, images: bool) -> list[Set]:
    """One set for each of ``cases``, comparable with each other; images are one uint8 ``[N, height, width, channels]``."""
    thumbnails = [_thumbnails(rows[0]) for rows in cases] if images else []
    looks = _looks(thumbnails) if images else [None] * len(cases)
    small = images and min(cases[0][0].shape[1:3]) < SIDE
    return [
        Set(tuple(_digest(rows, i) for i in range(len(of))), of, look, COSINE_MIN_SMALL if small else COSINE_MIN)
        for rows, of, look in zip(cases, labels, looks, strict=True)
    ]


def within(cases: Set) -> Twins:
    """Twins in the same set. ``other`` is an earlier case: the first of two alike repeats nothing."""
    return _twins(cases, cases, same=True)


def across(cases: Set, others: Set) -> Twins:
    """Twins of ``cases`` among ``others``."""
    return _twins(cases, others, same=False)


def _twins(cases: Set, others: Set, *, same: bool) -> Twins:
    first: dict[bytes, int] = {}
    labels: dict[bytes, set[int]] = {}
    for i, (digest, label) in enumerate(zip(others.digests, others.labels.tolist(), strict=True)):
        first.setdefault(digest, i)
        labels.setdefault(digest, set()).add(label)
    count = len(cases.labels)
    other = np.array([first.get(digest, -1) for digest in cases.digests], np.int64)
    if same:
        other[other == np.arange(count)] = -1
    exact = other >= 0
    own = zip(cases.digests, cases.labels.tolist(), strict=True)
    conflict = np.array([bool(labels.get(digest, set()) - {label}) for digest, label in own], bool)
    if cases.looks is not None and others.looks is not None:
        for start in range(0, count, _BLOCK):
            rows = np.arange(start, min(count, start + _BLOCK))
            near = cases.looks[rows] @ others.looks.T >= cases.alike
            if same:
                near[np.arange(len(rows)), rows] = False
            conflict[rows] |= (near & (cases.labels[rows, None] != others.labels)).any(axis=1)
            if same:
                near &= np.arange(len(others.labels)) < rows[:, None]
            found = near.any(axis=1) & ~exact[rows]
            other[rows[found]] = near[found].argmax(axis=1)
    return Twins(other, exact, conflict)


def _digest(rows: Rows, i: int) -> bytes:
    found = hashlib.blake2b(digest_size=16)
    for array in rows:
        found.update(np.ascontiguousarray(array[i]).tobytes())
    return found.digest()


def _thumbnails(images: Images) -> Array:
    """Grey, float32 ``[N, 256]``, 0 to 255."""
    found = np.empty((len(images), SIDE * SIDE), np.float32)
    for i, pixels in enumerate(images):
        grey = picture(pixels).convert("L")
        # Averages where there are enough pixels; where there are fewer, a box would make steps of them.
        way = Image.Resampling.BOX if min(grey.size) >= SIDE else Image.Resampling.BILINEAR
        found[i] = np.asarray(grey.resize((SIDE, SIDE), way), np.float32).ravel()
    return found


def _looks(thumbnails: list[Array]) -> list[Array | None]:
    """What of each image is its own, scaled to length 1; zeros where nothing is."""
    mean = np.concatenate(thumbnails).mean(axis=0, dtype=np.float64)
    shared, _ = np.linalg.qr(np.stack([np.ones_like(mean), mean], axis=1))
    looks: list[Array | None] = []
    for each in thumbnails:
        own = each - (each @ shared) @ shared.T
        length = np.linalg.norm(own, axis=1, keepdims=True)
        says = length >= LEVELS_MIN * SIDE
        looks.append(np.asarray(np.where(says, own / np.maximum(length, 1e-12), 0), np.float32))
    return looks
