"""What commands print: data and tables on stdout, remarks and questions on stderr. Everything is masked here."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from camora.errors import ConfigurationError
from camora.masking import masked, masked_data

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

__all__ = ["confirm", "item", "note", "print_json", "progress", "say", "stderr", "stdout", "table", "waiting"]


def stdout() -> Console:
    """A rich console on stdout, for answers."""
    from rich.console import Console

    # What goes to a file or another program is not wrapped, unless somebody says how wide it is to be.
    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else 10_000
    return Console(highlight=False, emoji=False, soft_wrap=not sys.stdout.isatty(), width=width)


def stderr() -> Console:
    """A rich console on stderr, for remarks, progress and questions."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, emoji=False, soft_wrap=not sys.stderr.isatty())


def say(text: str, *, style: str | None = None) -> None:
    """Print a line of the answer; the text is taken literally."""
    stdout().print(masked(text), style=style, markup=False)


def item(sign: str, text: str, *, style: str | None = None, indent: int = 0) -> None:
    """Print a line of the answer behind a sign; where it is wrapped, it goes on below its beginning."""
    from rich.table import Table
    from rich.text import Text

    if not sys.stdout.isatty():
        below = "\n" + " " * (indent + len(sign) + 1)
        say(f"{' ' * indent}{sign} {below.join(text.splitlines())}")
        return
    grid = Table.grid(padding=(0, 1, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    grid.add_row(Text(" " * indent + sign, style=style or ""), Text(masked(text)))
    stdout().print(grid)


def note(text: str) -> None:
    """Print a remark that is not part of the answer, on stderr."""
    stderr().print(f"camora: {masked(text)}", style="yellow", markup=False)


def print_json(data: Any) -> None:
    """Print data as JSON: plain, moments, enums, attrs classes, dataclasses; anything else as text."""
    print(json.dumps(masked_data(data), indent=2, ensure_ascii=False, default=_plain))  # noqa: T201


def _plain(value: Any) -> Any:
    import msgspec

    if isinstance(value, bytes):
        return masked(value.decode("utf-8", "replace"))
    try:
        return masked_data(msgspec.to_builtins(value))
    except (TypeError, ValueError):
        return masked(str(value))


def table(
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    right: Sequence[str] = (),
    title: str | None = None,
    lines: bool = False,
) -> None:
    """Print a table; `right` names the columns of numbers, and `lines` leaves one free between rows.

    The first column is never cut, the others are wrapped.
    """
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    made = Table(
        box=SIMPLE_HEAD, pad_edge=False, title=title, title_justify="left", show_edge=False, leading=1 if lines else 0
    )
    for number, column in enumerate(columns):
        made.add_column(column, justify="right" if column in right else "left", overflow="fold", no_wrap=number == 0)
    for row in rows:
        made.add_row(*(cell if isinstance(cell, Text) else Text(masked(str(cell))) for cell in row))
    stdout().print(made)


def confirm(question: str, *, yes: bool) -> bool:
    """Ask, unless `yes`. Raises `ConfigurationError` where nobody can answer."""
    if yes:
        return True
    if not sys.stdin.isatty():
        raise ConfigurationError(f"{masked(question)} Nobody can answer here: say --yes")
    print(f"{masked(question)} [y/N] ", end="", file=sys.stderr, flush=True)  # noqa: T201
    return sys.stdin.readline().strip().lower() in ("y", "yes")


@contextmanager
def progress(text: str, *, total: int | None) -> Iterator[Any]:
    """A bar on stderr while the block runs, where it is a terminal; call what it yields with each step done."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    bar: Progress = Progress(
        *columns, console=stderr(), transient=True, disable=not sys.stderr.isatty(), redirect_stdout=False
    )
    with bar:
        task = bar.add_task(masked(text), total=total)
        yield lambda steps=1: bar.advance(task, steps)


@contextmanager
def waiting(text: str) -> Iterator[None]:
    """A spinner on stderr while the block runs, where it is a terminal. Print nothing to stdout inside."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.text import Text

    with stderr().status(Text(masked(text))):
        yield
