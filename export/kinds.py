"""The three kinds of input that a recipe can declare: images, tensors, texts.

Each says what the graph takes (``specs``, as the manifest holds them), what the module is given, and gives rows to convert
with. The product's own code (``appliance.model``) turns a caller's bytes into the same rows.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from appliance.bundle.manifest import (
    CASES,
    DATATYPES,
    DECODES,
    DIMENSIONS_MAX,
    INPUTS_MAX,
    PIXELS_MAX,
    RESIZES,
    ROW_BYTES_MAX,
    SIDE_MAX,
    TOKENS_MAX,
    WORDS_MAX,
    ImageSpec,
    InputSpec,
    TextSpec,
)
from appliance.model import text
from appliance.model.inputs import DTYPES, Rows

IMAGE, TEXT = "image", "text"
LOGITS, EMBEDDING = "logits", "embedding"  # what a graph gives
CHANNEL_ORDERS = ("RGB", "BGR")
# What torch has no type for, or none that it can export.
_NOT_IN_TORCH = ("UINT16", "UINT32", "UINT64")
EXAMPLE_ROWS = 5  # an example of one row would let torch export an output fixed at one row, silently

Rules: TypeAlias = Iterator[tuple[bool, str]]


@dataclass(frozen=True, kw_only=True)
class ImageInput:
    """PNG and JPEG files. The module is given float32 ``[N, channels, height, width]``, scaled to 0..1, less ``mean``, by
    ``std``, its channels in the order ``RGB`` or ``BGR``; all of that becomes part of the graph.
    """

    height: int
    width: int
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    order: str = "RGB"
    resize: str = "stretch"
    decode: str = "full"
    pixels_max: int = 40_000_000
    bytes_max: int = 20 << 20

    @property
    def specs(self) -> tuple[InputSpec, ...]:
        image = ImageSpec(self.resize, self.decode, self.pixels_max, self.bytes_max)
        return (InputSpec(IMAGE, "UINT8", (self.height, self.width, self.channels), image),)

    def example(self) -> Rows:
        """Grey images, uint8."""
        return (np.full((EXAMPLE_ROWS, *self.specs[0].shape), 128, np.uint8),)

    def rules(self) -> Rules:
        for name in ("height", "width"):
            yield whole(getattr(self, name), 1, SIDE_MAX), f"{name} must be from 1 to {SIDE_MAX}"
        yield self.channels in (1, 3), "channels must be 1 or 3"
        yield self.order in CHANNEL_ORDERS, f"order must be one of {', '.join(CHANNEL_ORDERS)}"
        yield self.resize in RESIZES, f"resize must be one of {', '.join(RESIZES)}"
        yield self.decode in DECODES, f"decode must be one of {', '.join(DECODES)}"
        finite = all(map(math.isfinite, (*self.mean, *self.std)))
        enough = len(self.mean) == len(self.std) == self.channels
        yield enough and finite, "mean and std must have one finite number for each channel"
        yield all(value > 0 for value in self.std), "std must be over 0"
        yield whole(self.pixels_max, 1, PIXELS_MAX), f"pixels_max must be from 1 to {PIXELS_MAX}"
        yield whole(self.bytes_max, 1, 1 << 30), "bytes_max must be from 1 to 2**30"


@dataclass(frozen=True)
class Tensor:
    """One input of a module that takes tensors: a datatype of the Open Inference Protocol, and the shape of a row."""

    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class TensorInput:
    """Tensors by name. The module is given them in this order, each ``[N, *shape]``, as the caller sends them."""

    tensors: Mapping[str, Tensor]

    @property
    def specs(self) -> tuple[InputSpec, ...]:
        return tuple(InputSpec(name, tensor.datatype, tensor.shape) for name, tensor in self.tensors.items())

    def example(self) -> Rows:
        return tuple(np.zeros((EXAMPLE_ROWS, *spec.shape), DTYPES[spec.datatype]) for spec in self.specs)

    def rules(self) -> Rules:
        yield 1 <= len(self.tensors) <= INPUTS_MAX, f"a model has 1 to {INPUTS_MAX} inputs"
        for name, tensor in self.tensors.items():
            yield bool(re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,127}", name)), f"the input name '{name}' is not a Python name"
            yield name not in (LOGITS, EMBEDDING), f"an input cannot be called {name}: an output is"
            known = tensor.datatype in DATATYPES and tensor.datatype not in _NOT_IN_TORCH
            yield known, f"{name}: {tensor.datatype} is not a datatype that a module can take"
            sizes = len(tensor.shape) <= DIMENSIONS_MAX and all(whole(size, 1, ROW_BYTES_MAX) for size in tensor.shape)
            yield sizes, f"{name}: a shape has at most {DIMENSIONS_MAX} sizes of at least 1"
            if known and sizes:
                row_bytes = math.prod(tensor.shape) * DATATYPES[tensor.datatype]
                yield row_bytes <= ROW_BYTES_MAX, f"{name}: a row has more than {ROW_BYTES_MAX} bytes"


@dataclass(frozen=True, kw_only=True)
class TextInput:
    """Texts in UTF-8. The module is given int64 tokens ``[N, tokens]``, zero past a text's end, and int64 lengths ``[N]``.

    It has to mask by the lengths: the parity gate refuses a module whose answer depends on what stands past a text's end.
    ``words`` is public: it stands in the part of a bundle that is signed and not encrypted.
    """

    words: tuple[str, ...]
    tokens_max: int
    case: str = "folded"
    bytes_max: int = 65_536

    @property
    def specs(self) -> tuple[InputSpec, ...]:
        return (InputSpec(TEXT, "INT64", (1 + self.tokens_max,), text=TextSpec(self.case, self.bytes_max, self.words)),)

    def example(self) -> Rows:
        """Texts of different lengths, the longest among them."""
        rows = np.zeros((EXAMPLE_ROWS, 1 + self.tokens_max), np.int64)
        rows[:, 0] = np.linspace(1, self.tokens_max, EXAMPLE_ROWS).astype(np.int64)
        rows[:, 1:] = np.arange(self.tokens_max) < rows[:, :1]
        return (rows,)

    def rules(self) -> Rules:
        yield 1 <= len(self.words) <= WORDS_MAX, f"words must be 1 to {WORDS_MAX}"
        yield len(set(self.words)) == len(self.words), "words has a word twice"
        yield all(1 <= len(word) <= 200 for word in self.words), "a word must have 1 to 200 characters"
        yield self.case in CASES, f"case must be one of {', '.join(CASES)}"
        if self.case in CASES:
            strange = next((word for word in self.words if text.split(word, self.case) != [word]), None)
            yield strange is None, f"'{strange}' is never one token of a text; make the vocabulary with kinds.vocabulary"
        yield whole(self.tokens_max, 1, TOKENS_MAX), f"tokens_max must be from 1 to {TOKENS_MAX}"
        yield whole(self.bytes_max, 1, 1 << 20), "bytes_max must be from 1 to 2**20"


def outputs(has_embedding: bool) -> tuple[str, ...]:
    """What a graph gives, in order."""
    return (LOGITS, EMBEDDING) if has_embedding else (LOGITS,)


InputKind: TypeAlias = ImageInput | TensorInput | TextInput


def vocabulary(
    texts: Iterable[str], *, case: str = "folded", seen_min: int = 1, words_max: int = WORDS_MAX
) -> tuple[str, ...]:
    """The words of training texts, the most frequent first: those seen at least ``seen_min`` times.

    A word that occurs once in a hospital's texts may be a patient's name, and a vocabulary is public: choose ``seen_min``
    with that in mind.
    """
    counts = Counter(token for one in texts for token in text.split(one, case))
    ranked = sorted((word for word, seen in counts.items() if seen >= seen_min), key=lambda word: (-counts[word], word))
    return tuple(ranked[:words_max])


def whole(value: object, low: int, high: int) -> bool:
    """Whether it is a whole number in this range; True is not one."""
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
