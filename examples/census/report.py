"""The report: a table that a person enjoys reading."""

from __future__ import annotations

import collections
from collections.abc import Sequence

from camora import DeadLetter
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from tasks import Measured

TOP = 12


def print_report(console: Console, files: Sequence[Measured], dead: Sequence[DeadLetter]) -> None:
    """Print packages by size, the record holders, duplicates, and what could not be read."""
    packages: dict[str, list[Measured]] = collections.defaultdict(list)
    for file in files:
        packages[file.package].append(file)
    table = Table(title="The standard library, by package", title_justify="left", box=SIMPLE_HEAD)
    table.add_column("package", no_wrap=True)
    for heading in ("files", "lines", "code", "notes", "defs", "classes", "size"):
        table.add_column(heading, justify="right", no_wrap=True)
    ranked = sorted(packages.items(), key=lambda item: -sum(file.lines for file in item[1]))
    for name, group in ranked[:TOP]:
        table.add_row(name, *_sums(group))
    if ranked[TOP:]:
        rest = [file for _, group in ranked[TOP:] for file in group]
        table.add_row(f"… {len(ranked) - TOP} more", *_sums(rest))
    table.add_section()
    table.add_row("[bold]all", *(f"[bold]{text}" for text in _sums(files)))
    console.print(table)
    longest = max(files, key=lambda file: file.lines)
    deepest = max(files, key=lambda file: file.deepest)
    same = collections.Counter(file.sha256 for file in files if file.size)
    console.print(f"Longest file   {longest.path} ({longest.lines:,} lines)")
    console.print(f"Deepest nest   {deepest.path} ({deepest.deepest} levels)")
    console.print(
        f"Twins          {sum(count - 1 for count in same.values() if count > 1)} files are copies of another one"
    )
    if dead:
        kinds = collections.Counter(letter.error.type if letter.error else letter.reason for letter in dead)
        console.print(f"\n[bold]Could not be read[/bold], after {max(letter.attempts for letter in dead)} tries each:")
        for kind, count in kinds.most_common():
            console.print(f"  {count:3d} of {kind}")


def _sums(group: Sequence[Measured]) -> list[str]:
    numbers = [
        len(group),
        sum(file.lines for file in group),
        sum(file.code for file in group),
        sum(file.comments for file in group),
        sum(file.functions for file in group),
        sum(file.classes for file in group),
    ]
    return [*(f"{number:,}" for number in numbers), f"{sum(file.size for file in group) / 1_000_000:.1f} MB"]
