"""Reading a table strictly: every problem is found, and none of them is fatal on its own."""

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.fields import Fields


def test_every_problem_of_a_table_is_collected_at_once() -> None:
    fields = Fields({"name": 5, "size": 900, "kind": "red", "inner": {"x": 1}, "stray": 1})
    fields.text("name")
    fields.integer("size", 1, 10)
    fields.choice("kind", ("blue", "green"))
    inner = fields.table("inner")
    inner.text("y")
    inner.close()
    fields.items("rows", int, 1, 3)
    fields.close()
    assert fields.problems == [
        "name is not a string",
        "size is 900, and must be from 1 to 10",
        "kind is not one of blue, green",
        "inner.y is missing",
        "inner.x is not a known setting",
        "rows is missing",
        "stray is not a known setting",
    ]


def test_table_in_order_has_no_problems() -> None:
    fields = Fields({"name": "a", "size": 10, "kind": "green", "rows": [{"n": 1}, {"n": 2}]}, "top")
    assert fields.text("name") == "a"
    assert fields.integer("size", 1, 10) == 10
    assert fields.choice("kind", ("blue", "green")) == "green"
    assert [row.integer("n", 1, 2) for row in fields.tables("rows", 1, 2)] == [1, 2]
    fields.close()
    assert fields.problems == []


@pytest.mark.parametrize("value", [True, False, 1.0, "1", None, [1]])
def test_only_a_whole_number_is_an_integer(value: object) -> None:
    """True is not 1, although Python says so."""
    fields = Fields({"n": value})
    assert fields.integer("n", 0, 5) == 0
    assert fields.problems == ["n is not a whole number"]


@given(st.integers(), st.integers(-5, 5), st.integers(0, 5))
def test_an_integer_is_inside_its_limits_whatever_was_written(value: int, low: int, width: int) -> None:
    fields = Fields({"n": value})
    assert low <= fields.integer("n", low, low + width) <= low + width
    assert bool(fields.problems) == (not low <= value <= low + width)


@pytest.mark.parametrize("value", ["", "x" * 201])
def test_text_has_a_length(value: str) -> None:
    fields = Fields({"t": value})
    fields.text("t")
    assert fields.problems == ["t is not of the form it should have"]


def test_pattern_must_match_the_whole_text() -> None:
    """A newline behind the match is not a match."""
    fields = Fields({"t": "abc\n"})
    fields.text("t", pattern=r"[a-z]+")
    assert fields.problems == ["t is not of the form it should have"]


@pytest.mark.parametrize(("rows", "sentence"), [
    ("x", "is not a list"), ([], "has 0 items"), ([1, 2, 3], "has 3 items"), (["a"], "wrong type"), (None, "is not a list"),
])  # fmt: skip
def test_list_of_the_wrong_length_or_type_is_a_problem(rows: object, sentence: str) -> None:
    fields = Fields({"rows": rows})
    assert fields.items("rows", int, 1, 2) == []
    assert re.search(sentence, fields.problems[0])


@pytest.mark.parametrize("table", [None, 5, "x", [], [{}]])
def test_document_that_is_no_table_is_one_problem_and_each_required_key_another(table: Any) -> None:
    fields = Fields(table)
    fields.text("name")
    assert fields.problems == ["the document is not a table", "name is missing"]


def test_null_counts_as_absent_only_where_it_may() -> None:
    fields = Fields({"code": None, "name": None})
    assert fields.optional_table("code") is None
    fields.text("name")
    fields.close()
    assert fields.problems == ["name is not a string"]


def test_defaults_are_used_only_for_what_is_absent() -> None:
    fields = Fields({"a": "x"})
    assert fields.text("a", default="y") == "x"
    assert fields.text("b", default="y") == "y"
    assert fields.integer("c", 1, 9, default=4) == 4
    assert fields.items("d", str, 1, 2, default=["z"]) == ["z"]
    assert fields.problems == []


def test_rest_takes_what_is_left() -> None:
    fields = Fields({"a": 1, "b": 2})
    fields.integer("a", 0, 9)
    assert fields.rest() == {"b": 2}
    fields.close()
    assert fields.problems == []
