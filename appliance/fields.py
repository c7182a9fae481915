"""Reads the fields of one table (from JSON or TOML) strictly, and collects everything that is wrong with it.

A field that is missing, of the wrong type or out of its limits adds one sentence to ``problems``, and reading goes on with
a harmless value; whoever started the reading checks ``problems`` before using anything. A key that nobody asked for is a
problem too.
"""

import re
from typing import Any, TypeVar, overload

T = TypeVar("T")
_REQUIRED: Any = object()


class Fields:
    """One table being read. ``where`` is its name in messages, such as ``server.limits``."""

    def __init__(self, table: object, where: str = "", problems: list[str] | None = None) -> None:
        self.problems = [] if problems is None else problems
        self.where = where
        self._unread: dict[str, Any] = {}
        if isinstance(table, dict):
            self._unread = dict(table)
        else:
            self.problem(f"{where or 'the document'} is not a table")

    def problem(self, sentence: str) -> None:
        self.problems.append(sentence)

    def name(self, key: str) -> str:
        return f"{self.where}.{key}" if self.where else key

    def __contains__(self, key: str) -> bool:
        return key in self._unread

    def _take(self, key: str, kind: type, described: str, default: Any) -> Any:
        if key not in self._unread:
            if default is _REQUIRED:
                self.problem(f"{self.name(key)} is missing")
                return None
            return default
        value = self._unread.pop(key)
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            self.problem(f"{self.name(key)} is not {described}")
            return None
        return value

    def text(self, key: str, *, pattern: str = r"(?s).{1,200}", default: str = _REQUIRED) -> str:
        """A string that matches ``pattern`` as a whole."""
        value = self._take(key, str, "a string", default)
        if value is not None and value is not default and not re.fullmatch(pattern, value):
            self.problem(f"{self.name(key)} is not of the form it should have")
        return value or ""

    def choice(self, key: str, allowed: tuple[str, ...], *, default: str = _REQUIRED) -> str:
        """One of a few words."""
        value = self._take(key, str, "a string", default)
        if value is not None and value not in allowed:
            self.problem(f"{self.name(key)} is not one of {', '.join(allowed)}")
        return value if value in allowed else allowed[0]

    def integer(self, key: str, low: int, high: int, *, default: int = _REQUIRED) -> int:
        """A whole number from ``low`` to ``high``, both allowed."""
        value = self._take(key, int, "a whole number", default)
        if value is None:
            return low
        if not low <= value <= high:
            self.problem(f"{self.name(key)} is {value}, and must be from {low} to {high}")
            return low
        return int(value)

    @overload
    def items(self, key: str, kind: type[T], least: int, most: int) -> list[T]: ...
    @overload
    def items(self, key: str, kind: type[T], least: int, most: int, *, default: list[T]) -> list[T]: ...
    def items(self, key: str, kind: type[T], least: int, most: int, *, default: list[T] = _REQUIRED) -> list[T]:
        """A list of ``least`` to ``most`` values of one type."""
        value = self._take(key, list, "a list", default)
        if value is None:
            return []
        if not least <= len(value) <= most:
            self.problem(f"{self.name(key)} has {len(value)} items, and must have {least} to {most}")
            return []
        if not all(isinstance(item, kind) for item in value):
            self.problem(f"{self.name(key)} holds something of the wrong type")
            return []
        return list(value)

    def table(self, key: str, *, default: dict[str, Any] = _REQUIRED) -> "Fields":
        """A table inside this one; its problems are collected with ours."""
        value = self._take(key, dict, "a table", default)
        return Fields({} if value is None else value, self.name(key), self.problems)

    def require(self, key: str) -> None:
        """Says that a key must be there, though its value may be null."""
        if key not in self._unread:
            self.problem(f"{self.name(key)} is missing")

    def present(self, key: str) -> bool:
        """Whether the key has a value. A null is read here, and is not one."""
        if self._unread.get(key) is not None:
            return True
        self._unread.pop(key, None)
        return False

    def optional_table(self, key: str) -> "Fields | None":
        """A table, or nothing where the value is absent or null."""
        return self.table(key) if self.present(key) else None

    def tables(self, key: str, least: int, most: int) -> list["Fields"]:
        """A list of tables."""
        rows = self.items(key, dict, least, most, default=[] if least == 0 else _REQUIRED)
        return [Fields(row, f"{self.name(key)}[{i}]", self.problems) for i, row in enumerate(rows)]

    def rest(self) -> dict[str, Any]:
        """Everything not yet read, taken as it is."""
        rest, self._unread = self._unread, {}
        return rest

    def close(self) -> None:
        """Say that everything known has been read: what is left is a problem."""
        for key in self._unread:
            self.problem(f"{self.name(key)} is not a known setting")
        self._unread = {}
