"""The tree of errors: as drawn, complete, and known wherever an error meets the outside."""

import inspect
import re
from collections.abc import Iterator

import pytest

from appliance import cli, errors
from appliance.errors import ApplianceError, RequestError
from appliance.server.status import STATUS, refusal


def below(kind: type[Exception]) -> Iterator[type[Exception]]:
    """Every class under one, in the order of their writing."""
    for child in kind.__subclasses__():
        if child.__module__ == errors.__name__:
            yield child
            yield from below(child)


def leaves(kind: type[Exception]) -> list[type[Exception]]:
    return [child for child in below(kind) if not any(True for _ in below(child))]


def drawn() -> list[tuple[int, str]]:
    """The tree at the top of errors.py: depth and name of each line."""
    lines = re.findall(r"(?m)^    ((?:│   |    )*)([├└]── )?([A-Z]\w+)(?:\s|$)", errors.__doc__ or "")
    return [(len(indent) // 4 + bool(branch), name) for indent, branch, name in lines]


def as_written(kind: type[Exception], depth: int = 0) -> Iterator[tuple[int, str]]:
    yield depth, kind.__name__
    for child in kind.__subclasses__():
        if child.__module__ == errors.__name__:
            yield from as_written(child, depth + 1)


def test_the_tree_is_as_drawn() -> None:
    assert sorted(drawn()) == sorted(as_written(ApplianceError))


def test_every_class_of_the_file_is_in_the_tree() -> None:
    classes = {value for _, value in inspect.getmembers(errors, inspect.isclass) if value.__module__ == errors.__name__}
    assert classes == {ApplianceError, *below(ApplianceError)}


def test_every_line_of_the_tree_says_what_it_is() -> None:
    """A leaf without a docstring of its own has its sentence in the drawing."""
    for _, name in drawn()[1:]:
        line = next(line for line in (errors.__doc__ or "").splitlines() if re.search(rf"── {name}\b", line))
        assert re.search(rf"{name}\s{{2,}}\S", line), name


@pytest.mark.parametrize("leaf", leaves(RequestError))
def test_every_refusal_of_a_call_has_a_status(leaf: type[RequestError]) -> None:
    assert refusal(leaf("a sentence"), "id").status in STATUS.values()


def test_table_of_statuses_knows_nothing_else() -> None:
    assert set(STATUS) == set(RequestError.__subclasses__())


@pytest.mark.parametrize("leaf", leaves(ApplianceError))
def test_every_error_has_an_exit_code_other_than_our_own_mistake(leaf: type[ApplianceError]) -> None:
    assert issubclass(leaf, tuple(kind for kind, _ in cli.EXITS))
    assert cli.exit_code(leaf.__new__(leaf)) in (2, 3, 4, 5, 6)


def test_unavailable_audit_is_the_logs_exit_code_not_a_refused_calls() -> None:
    """The more special class stands first in the table."""
    assert cli.exit_code(errors.AuditUnavailable("")) == 4
    assert cli.exit_code(errors.Overloaded("")) == 5
    assert cli.exit_code(ApplianceError("")) == 1


def test_codes_are_words_and_nobody_shares_one() -> None:
    codes = [kind.code for kind in leaves(ApplianceError) if kind is not errors.CallFailed]
    assert len(set(codes)) == len(codes)
    assert all(re.fullmatch(r"[a-z_]{4,30}", code) for code in codes)


def test_configuration_error_keeps_each_problem() -> None:
    error = errors.ConfigError("one", "two")
    assert (error.problems, str(error)) == (("one", "two"), "one; two")


def test_failed_call_has_a_status_and_a_sentence() -> None:
    error = errors.CallFailed("UNAVAILABLE", "Try again.")
    assert (error.status, str(error), error.reason) == ("UNAVAILABLE", "Try again.", "")


@pytest.mark.parametrize("leaf", leaves(ApplianceError))
def test_refusal_of_a_running_appliance_has_the_exit_code_of_our_own(leaf: type[ApplianceError]) -> None:
    """Whoever asks the running appliance and whoever does it themselves must not need two scripts."""
    if leaf is not errors.CallFailed:
        asked = errors.CallFailed("FAILED_PRECONDITION", "No.", leaf.code)
        assert cli.exit_code(asked) == cli.exit_code(leaf.__new__(leaf))


def test_code_that_nobody_has_is_a_call_that_failed() -> None:
    assert errors.with_code("no_such_code") is ApplianceError
    assert cli.exit_code(errors.CallFailed("INTERNAL", "No.", "")) == 5
