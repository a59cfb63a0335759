"""Where in a TOML text each key stands: `tomllib` reads the values, and this the places, exactly."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping

import attrs

__all__ = ["KeyPath", "Position", "locate"]

KeyPath = tuple[str | int, ...]
"""Keys and indexes from the top of the document, as one would subscript what `tomllib` returns."""

_BLANK = " \t\n\r"
_BARE_END = "=.]}, \t\n\r#"
_VALUE_END = ",]}\n#"


@attrs.frozen(order=True)
class Position:
    """A place in a text; both count from 1, columns in characters."""

    line: int
    column: int


def locate(text: str) -> Mapping[KeyPath, Position]:
    """The position of every key, and of every element of an array.

    The text must be what `tomllib` accepts. A table that has a header of its own stands there, else where it is first
    mentioned.
    """
    return _Scanner(text.replace("\r\n", "\n")).document()


class _Scanner:
    """Walks once over the text. It need not refuse anything, so it only tells tokens apart."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._found: dict[KeyPath, int] = {}
        # How many elements each array of tables has so far: a header speaks of its last one.
        self._tables: dict[KeyPath, int] = {}

    def document(self) -> dict[KeyPath, Position]:
        here: KeyPath = ()
        while self._skip_blank():
            if self._peek("["):
                here = self._header()
            else:
                self._pair(here)
        return self._positions()

    def _positions(self) -> dict[KeyPath, Position]:
        found: dict[KeyPath, Position] = {}
        line, begins, counted = 1, 0, 0
        for path, at in sorted(self._found.items(), key=lambda item: item[1]):
            line += self._text.count("\n", counted, at)
            begins = self._text.rfind("\n", 0, at) + 1
            counted = at
            found[path] = Position(line, at - begins + 1)
        return found

    # Headers and pairs

    def _header(self) -> KeyPath:
        double = self._peek("[[")
        self._at += 2 if double else 1
        parts = self._key()
        self._at += 2 if double else 1
        path: KeyPath = ()
        for key, at in parts[:-1]:
            path = self._last_of((*path, key))
            self._found.setdefault(path, at)
        last, at = parts[-1]
        path = (*path, last)
        if not double:
            self._found[path] = at
            return path
        self._found.setdefault(path, at)
        index = self._tables[path] = self._tables.get(path, -1) + 1
        self._found[*path, index] = at
        return (*path, index)

    def _last_of(self, path: KeyPath) -> KeyPath:
        return (*path, self._tables[path]) if path in self._tables else path

    def _pair(self, table: KeyPath) -> None:
        path = table
        for key, at in self._key():
            path = (*path, key)
            self._found.setdefault(path, at)
        self._at = self._text.index("=", self._at) + 1
        self._value(path)

    # Keys

    def _key(self) -> list[tuple[str, int]]:
        """A key's parts, each with where it begins; stands behind it afterwards."""
        parts = []
        while True:
            self._skip_spaces()
            begin = self._at
            if self._text[begin] in "\"'":
                self._string()
                parts.append((_unquoted(self._text[begin : self._at]), begin))
            else:
                while self._text[self._at] not in _BARE_END:
                    self._at += 1
                parts.append((self._text[begin : self._at], begin))
            self._skip_spaces()
            if not self._peek("."):
                return parts
            self._at += 1

    # Values

    def _value(self, path: KeyPath) -> None:
        self._skip_spaces()
        if self._peek("["):
            self._array(path)
        elif self._peek("{"):
            self._inline_table(path)
        elif self._text[self._at] in "\"'":
            self._string()
        else:
            while self._at < len(self._text) and self._text[self._at] not in _VALUE_END:
                self._at += 1

    def _array(self, path: KeyPath) -> None:
        self._at += 1
        index = 0
        while self._skip_blank() and not self._peek("]"):
            if self._peek(","):
                self._at += 1
                continue
            self._found[*path, index] = self._at
            self._value((*path, index))
            index += 1
        self._at += 1

    def _inline_table(self, path: KeyPath) -> None:
        self._at += 1
        while self._skip_blank() and not self._peek("}"):
            if self._peek(","):
                self._at += 1
                continue
            self._pair(path)
        self._at += 1

    def _string(self) -> None:
        """Go behind the string that begins here."""
        quote = self._text[self._at]
        mark = quote * 3 if self._peek(quote * 3) else quote
        self._at += len(mark)
        while not self._peek(mark):
            self._at += 2 if quote == '"' and self._peek("\\") else 1
        self._at += len(mark)
        # Up to two quotes may stand right before the closing three, and belong to the string.
        while len(mark) == 3 and self._peek(quote):
            self._at += 1

    # Characters

    def _peek(self, text: str) -> bool:
        return self._text.startswith(text, self._at)

    def _skip_spaces(self) -> None:
        while self._at < len(self._text) and self._text[self._at] in " \t":
            self._at += 1

    def _skip_blank(self) -> bool:
        """Go behind white space and comments; False at the end of the text."""
        while self._at < len(self._text):
            if self._peek("#"):
                end = self._text.find("\n", self._at)
                self._at = len(self._text) if end < 0 else end
            elif self._text[self._at] in _BLANK:
                self._at += 1
            else:
                return True
        return False


def _unquoted(token: str) -> str:
    if "\\" not in token or token.startswith("'"):
        return token[1:-1]
    return next(iter(tomllib.loads(f"{token} = 0")))
