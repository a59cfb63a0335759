"""Where a setting comes from, and how its key is written."""

from __future__ import annotations

import re
from typing import Literal

import attrs

from camora.config.locate import KeyPath, Position

__all__ = ["LAYERS", "Place", "dotted", "nearest"]

LAYERS = ("file", "profile", "variable")
"""Where settings come from; the last one wins."""

_BARE = re.compile(r"[A-Za-z0-9_-]+")


@attrs.frozen(kw_only=True)
class Place:
    """A place in a file, or an environment variable."""

    layer: Literal["file", "profile", "variable"]
    name: str
    """The file as it is shown, or the variable's name."""
    position: Position | None = None
    raw: str | None = attrs.field(default=None, repr=False)
    """The text of a variable, before it was read as TOML."""

    def __str__(self) -> str:
        """As errors begin: `camora.toml:3:5`, or the name of the variable."""
        return f"{self.name}:{self.position.line}:{self.position.column}" if self.position else self.name

    @property
    def order(self) -> tuple[int, int, int, str]:
        """Sorts places: files by line, then variables by name."""
        position = self.position or Position(0, 0)
        return self.layer == "variable", position.line, position.column, self.name


def dotted(path: KeyPath) -> str:
    """A path as one would write it in TOML: `tasks."shop:*".timeout`, `schedules[0].cron`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            key = part if _BARE.fullmatch(part) else _quoted(part)
            text += f".{key}" if text else key
    return text


def _quoted(key: str) -> str:
    escaped = key.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in escaped) + '"'


def nearest(places: dict[KeyPath, Place], path: KeyPath, top: Place) -> Place:
    """The place of a key, or of the innermost table around it that has one."""
    while path:
        if path in places:
            return places[path]
        path = path[:-1]
    return top
