"""From a text to the numbers of its words (bundle-format section 4.1).

A text is UTF-8, brought to Unicode's form NFKC, its case folded where the model says so. A token is a run of letters and
digits, or any other character that is not a space: combining marks that NFKC leaves are tokens of their own. Words have the
numbers from 2 on; 1 is a word that the vocabulary lacks, and 0 stands where there is none. Every row is as long as the
model's longest text, so that what stands beside a text in a batch cannot change its numbers; its length goes with it, first,
for the model to mask by.
"""

import re
import unicodedata
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from appliance.bundle.manifest import TextSpec
from appliance.errors import InvalidInput

STRANGE = 1
MARKS_MAX = 30  # in a row, decomposed; as in Unicode's Stream-Safe Text Format (UAX #15), since no language has as many
_TOO_MANY_MARKS = re.compile(rb"[^\0]{%d}" % (MARKS_MAX + 1))
_TOKEN = re.compile(r"\w+|[^\w\s]")


def split(text: str, case: str) -> list[str]:
    """The tokens of a text, in order. ``case`` is ``kept`` or ``folded``."""
    normal = unicodedata.normalize("NFKC", text)
    if case == "folded":
        normal = unicodedata.normalize("NFKC", normal.casefold())
    return _TOKEN.findall(normal)


def _classes(text: str) -> bytes:
    """The canonical combining class of each character of the decomposed text, 0 for one that is no mark.

    Python puts marks that stand in a row in order by insertion, and nobody is answered meanwhile: a megabyte of them takes
    minutes. Some characters are marks only once they are decomposed (U+FF9E), so each is, once, alone.
    """
    of = {one: bytes(map(unicodedata.combining, unicodedata.normalize("NFKD", one))) for one in set(text)}
    return b"".join(map(of.__getitem__, text))


def tokens(spec: TextSpec, tokens_max: int, texts: Sequence[bytes | memoryview]) -> NDArray[np.int64]:
    """Int64 ``[N, 1 + tokens_max]``: the length of each text in tokens, their numbers, then zeros.

    Raises:
        InvalidInput: a text is over a limit, empty, not UTF-8, or has too many marks in a row; the message gives its
            position, counted from 0.
    """
    rows = np.zeros((len(texts), 1 + tokens_max), np.int64)
    for i, data in enumerate(texts):
        if len(data) > spec.bytes_max:
            raise InvalidInput(f"Text {i}: it has more than {spec.bytes_max} bytes.")
        try:
            said = str(data, "utf-8")
        except UnicodeDecodeError:
            raise InvalidInput(f"Text {i}: it is not UTF-8.") from None
        if not said.isascii() and _TOO_MANY_MARKS.search(_classes(said)):
            raise InvalidInput(f"Text {i}: it has more than {MARKS_MAX} combining marks in a row.")
        found = split(said, spec.case)
        if not 1 <= len(found) <= tokens_max:
            # Cut off, it could lose the word that matters without anybody noticing.
            raise InvalidInput(f"Text {i}: it has {len(found)} words and marks; this model takes 1 to {tokens_max}.")
        rows[i, 0] = len(found)
        rows[i, 1 : 1 + len(found)] = [spec.numbers.get(word, STRANGE) for word in found]
    return rows
