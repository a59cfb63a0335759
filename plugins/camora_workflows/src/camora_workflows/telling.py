"""What commands print: answers on stdout, remarks and questions on stderr; everything is masked."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any

from camora.errors import ConfigurationError
from camora.masking import masked, masked_data

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["confirmed", "console", "note", "print_json", "say"]


def console() -> Console:
    """A rich console on stdout."""
    from rich.console import Console

    # What goes to a file or another program is not wrapped, unless somebody says how wide it is to be.
    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else 10_000
    return Console(highlight=False, emoji=False, soft_wrap=not sys.stdout.isatty(), width=width)


def say(text: str) -> None:
    """Print a line of the answer."""
    print(masked(text))  # noqa: T201 -- a command's answer


def note(remark: str) -> None:
    """Print a remark that is not part of the answer."""
    print(f"camora: {masked(remark)}", file=sys.stderr)  # noqa: T201


def print_json(data: Any) -> None:
    """Print plain data."""
    print(json.dumps(masked_data(data), indent=2, ensure_ascii=False))  # noqa: T201


def confirmed(question: str, *, yes: bool) -> bool:
    """Ask, unless `yes`. Raises `ConfigurationError` where nobody can answer."""
    if yes:
        return True
    if not sys.stdin.isatty():
        raise ConfigurationError(f"{question} Nobody can answer here: say --yes")
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)  # noqa: T201
    return sys.stdin.readline().strip().lower() in ("y", "yes")
