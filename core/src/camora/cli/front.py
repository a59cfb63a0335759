"""What `camora --help` prints: made by hand, so that it costs no more than reading what is installed."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from collections.abc import Iterable

from camora.cli.codes import MEANINGS
from camora.cli.table import Listed

__all__ = ["front_page"]

_OPTIONS = (
    ("COMMAND --help", "Say more about a command."),
    ("--version", "Print the version."),
    ("--install-completion", "Teach the shell to complete commands and options."),
)


def front_page(commands: Iterable[Listed], *, version: str) -> str:
    """The whole page, as wide as the terminal."""
    width = min(shutil.get_terminal_size().columns, 100)
    sections: dict[str, list[tuple[str, str]]] = {}
    for command in commands:
        sections.setdefault(command.section, []).append((command.name, command.help))
    sections["Options"] = list(_OPTIONS)
    sections["Exit codes"] = [(str(code), text) for code, text in MEANINGS]
    lines = [f"{_bold('camora')} {version}: background tasks", "", f"{_bold('Usage:')} camora COMMAND …"]
    for title, rows in sections.items():
        column = max(13, *(len(name) + 2 for name, _ in rows)) if title == "Options" else 13
        lines += ["", _bold(title)]
        for name, text in rows:
            lines += _row(name, text, column, width)
    return "\n".join(lines)


def _row(name: str, text: str, column: int, width: int) -> list[str]:
    indent = " " * (column + 2)
    wrapped = textwrap.wrap(text, max(20, width - len(indent))) or [""]
    first = f"  {name:<{column}}{wrapped[0]}" if len(name) < column else f"  {name}  {wrapped[0]}"
    return [first, *(indent + line for line in wrapped[1:])]


def _bold(text: str) -> str:
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or not sys.stdout.isatty()
    return text if plain else f"\x1b[1m{text}\x1b[0m"
