"""Scripts of the server's: each with those parts of what all of them share that it needs."""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Iterator
from importlib import resources

import attrs

__all__ = ["Script", "script"]

_COMMENT = re.compile(r"^[ \t]*--[^\n]*\n", re.MULTILINE)
_FUNCTION = re.compile(r"^local function (\w+)", re.MULTILINE)
_VALUES = re.compile(r"^local (?!function\b)([\w, ]+)", re.MULTILINE)


@attrs.frozen
class Script:
    """A script of the server's, known there by the digest of its text."""

    text: str = attrs.field(repr=False)
    digest: str


def script(name: str) -> Script:
    """The script of this name, after the parts of `scripts/common.lua` that it needs.

    The server makes each function anew whenever the script runs: all of them cost it as much as storing a message.
    """
    own = _text(name)
    text = "\n".join([*_needed(own), own])
    return Script(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


def _text(name: str) -> str:
    return _COMMENT.sub("", (resources.files("camora_redis") / "scripts" / f"{name}.lua").read_text())


@attrs.frozen
class _Part:
    """Some lines that stand together; `needed` finds a use of what they define."""

    text: str
    needed: re.Pattern[str] | None


@functools.cache
def _parts() -> tuple[_Part, ...]:
    return tuple(_Part(text, _uses_of(text)) for text in re.split(r"\n\s*\n", _text("common")) if text.strip())


def _uses_of(text: str) -> re.Pattern[str] | None:
    functions = [rf"\b{name}\(" for name in _FUNCTION.findall(text)]
    values = [rf"\b{name.strip()}\b" for names in _VALUES.findall(text) for name in names.split(",")]
    return re.compile("|".join(functions + values)) if functions or values else None


def _needed(own: str) -> Iterator[str]:
    """The parts that a script needs, and those that these need, in their order."""
    chosen: list[str] = []
    for part in reversed(_parts()):
        if part.needed is None or any(part.needed.search(text) for text in (own, *chosen)):
            chosen.append(part.text)
    return reversed(chosen)
