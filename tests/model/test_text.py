"""From a text to the numbers of its words."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.bundle.manifest import InputSpec, TextSpec
from appliance.errors import InvalidInput
from appliance.model import inputs, text
from appliance.model.inputs import Encoded, Raw

SPEC = TextSpec("folded", 60, ("fever", "no", "."))
INPUT = InputSpec("text", "INT64", (6,), text=SPEC)


def test_words_and_marks_are_numbered_and_the_rest_is_zeros() -> None:
    """The length, the numbers from 2 on, 1 for what the vocabulary lacks."""
    assert text.tokens(SPEC, 5, [b"No fever.", b"pain!"]).tolist() == [[3, 3, 2, 4, 0, 0], [2, 1, 1, 0, 0, 0]]


def test_spelling_of_one_word_is_one_word() -> None:
    """Full width, ligature, sharp s, case: Unicode's NFKC and full case folding."""
    assert text.split("\uff2e\uff2f ofﬁce STRAẞE", "folded") == ["no", "office", "strasse"]
    assert text.split("No.", "kept") == ["No", "."]


@pytest.mark.parametrize(("given", "said"), [
    ([b"no", b"no no no no no no"], "Text 1: it has 6 words and marks; this model takes 1 to 5"),
    ([b"  \n"], "Text 0: it has 0 words"),
    ([b"no", b"\xff"], "Text 1: it is not UTF-8"),
    ([b"x" * 61], "Text 0: it has more than 60 bytes"),
])  # fmt: skip
def test_text_that_cannot_be_used_is_one_sentence_with_its_place(given: list[bytes], said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        text.tokens(SPEC, 5, given)


@pytest.mark.parametrize("mark", ["\u0301", "\uff9e", "\u0f73", "\u0f81", "\u0301\uff9f"])
def test_tower_of_marks_is_refused_before_it_is_put_in_order(mark: str) -> None:
    """Of such, too, as are marks only once they are decomposed: 30,000 of them would hold everybody up for seconds."""
    wide = TextSpec("folded", 1 << 20, ("a",))
    with pytest.raises(InvalidInput, match="more than 30 combining marks in a row"):
        text.tokens(wide, 5, [("a" + mark * 31).encode()])
    assert text.tokens(wide, 100, [("a" + mark[0] * 15 + "b").encode()]).shape == (1, 101)


def test_input_of_texts_takes_nothing_but_texts() -> None:
    """A number of a word that is out of range would end the whole batch."""
    assert inputs.read(INPUT, Encoded([b"no"])).tolist() == [[1, 3, 0, 0, 0, 0]]
    with pytest.raises(InvalidInput, match="has the datatype BYTES, holding texts"):
        inputs.read(INPUT, Raw("INT64", (1, 6), np.array([1, 99, 0, 0, 0, 0]).tobytes()))


@given(st.lists(st.text(), min_size=1, max_size=4))
def test_any_text_is_read_or_refused_and_has_one_reading(texts: list[str]) -> None:
    """What stands beside it changes nothing."""

    def read(given: list[str]) -> list[list[int]] | None:
        try:
            return text.tokens(SPEC, 5, [one.encode("utf-8", "surrogatepass") for one in given]).tolist()
        except InvalidInput:
            return None

    alone, together = [read([one]) for one in texts], read(texts)
    if any(one is None for one in alone):
        assert together is None
    else:
        assert together == [row for one in alone if one for row in one]
