"""Canonical JSON: one spelling for each value, and nothing that two writers could spell differently."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance import canonical

KEYS = st.text(st.characters(max_codepoint=127), max_size=8)
SCALARS = st.none() | st.booleans() | st.integers(-canonical.INTEGER_MAX, canonical.INTEGER_MAX) | st.text(max_size=20)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4))


@given(VALUES)
def test_what_is_written_reads_back(value: object) -> None:
    data = canonical.encode(value)
    assert canonical.decode(data) == value
    assert canonical.encode(canonical.decode(data)) == data


@given(st.dictionaries(KEYS, SCALARS, max_size=6))
def test_order_of_writing_does_not_show(value: dict[str, object]) -> None:
    assert canonical.encode(dict(reversed(value.items()))) == canonical.encode(value)


@given(st.binary(max_size=40))
def test_any_bytes_read_as_their_own_spelling_or_not_at_all(data: bytes) -> None:
    try:
        value = canonical.decode(data)
    except ValueError:
        return
    assert canonical.encode(value) == data


def test_known_answer_of_rfc_8785() -> None:
    """Section 3.2.2's string, the parts of it that we allow: escapes are short where there is a short form."""
    value = {"string": '€$\u000f\nA\'B"\\\\"/', "literals": [None, True, False]}
    expected = '{"literals":[null,true,false],"string":"€$\\u000f\\nA\'B\\"\\\\\\\\\\"/"}'
    assert canonical.encode(value) == expected.encode()


@pytest.mark.parametrize(
    "data",
    [
        b"1.0", b"0.5", b"1e3", b"-0", b"01", b"NaN", b"Infinity", b"-Infinity",
        b"9007199254740992", b"-9007199254740992", b"9" * 5000,
        b'{"a":1,"a":1}', b'{"b":1,"a":2}', '{"é":1}'.encode(),
        b' {"a":1}', b'{"a":1}\n', b'{"a": 1}', b"[1, 2]",
        b'"\\u0041"', b'"\\/"', b'"\\ud800"', b'"\\u000A"', b'"\xff"', b'"\xed\xa0\x80"', b'"\x01"',
        b"", b"{", b"nul", b"\xef\xbb\xbf1", "[1]".encode("utf-16"), b"'a'", b"[1,]",
        b"[" * 17 + b"]" * 17, b"[" * 17 + b"1" + b"]" * 17, b"[" * 100_000,
    ],
)  # fmt: skip
def test_other_spellings_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="not canonical JSON"):
        canonical.decode(data)


@pytest.mark.parametrize("value", [0.5, 1.0, float("nan"), float("inf"), b"bytes", {1}, {1: 2}, {"é": 1}, {None: 1}])
def test_value_without_a_canonical_form_is_refused(value: object) -> None:
    with pytest.raises(TypeError):
        canonical.encode(value)


@pytest.mark.parametrize("value", [2**53, -(2**53), "\ud800", ["\udfff"]])
def test_value_over_a_limit_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match=r"53 bits|surrogates"):
        canonical.encode(value)


@pytest.mark.parametrize("kernel", [[], {}, [1], {"a": "b"}])
@pytest.mark.parametrize("wrap", [lambda inner: [inner], lambda inner: {"k": inner}])
def test_nesting_ends_at_sixteen(wrap: object, kernel: object) -> None:
    """Whatever stands in the middle, sixteen containers are allowed and seventeen are not."""
    assert callable(wrap)
    value = kernel
    for _ in range(15):
        value = wrap(value)
    assert canonical.decode(canonical.encode(value)) == value
    with pytest.raises(ValueError, match="deeper than 16"):
        canonical.encode(wrap(value))
