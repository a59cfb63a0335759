"""All that can be wrong with a file, its profiles included."""

from __future__ import annotations

import difflib
import fnmatch
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import attrs

from camora.config.arguments import app_arguments, problems_of_choices
from camora.config.configuration import Configuration
from camora.config.files import shown_path
from camora.config.loading import file_of, profiles_of, read
from camora.config.locate import KeyPath
from camora.errors import SettingsError

__all__ = ["Checked", "check", "in_order", "unknown_tasks", "unused_queues"]


@attrs.frozen
class Checked:
    """The file, the profiles that were laid over it, one after the other, and every problem.

    `settings` are those in force; None where something is wrong with them.
    """

    file: str
    profiles: tuple[str, ...]
    problems: tuple[str, ...]
    settings: Configuration | None = None


def check(
    path: str | Path | None = None, *, profile: str | None = None, environ: Mapping[str, str] | None = None
) -> Checked:
    """Read the settings in force, and make what they choose.

    Without `profile`, also what each of the file's profiles makes of them, where variables that are not set are no
    mistake: they belong to other machines. Raises `SettingsError` where there is no file.
    """
    file = file_of(path, environ)
    try:
        names = [profile] if profile else profiles_of(file)
    except SettingsError as error:  # it cannot be read, or is no TOML
        return Checked(shown_path(file), (), error.problems)
    settings, problems = _looked_at(file, profile, environ)
    for name in [] if profile else names:
        try:
            problems += problems_of_choices(read(file, profile=name, environ=environ, ignore_missing=True))
        except SettingsError as error:
            problems += error.problems
    return Checked(shown_path(file), tuple(names), in_order(dict.fromkeys(problems), shown_path(file)), settings)


def in_order(problems: Iterable[str], file: str) -> tuple[str, ...]:
    """Those with a place in the file by their lines, then the others as they came."""
    place = re.compile(rf"{re.escape(file)}:(\d+):(\d+): ")

    def key(problem: str) -> tuple[bool, int, int]:
        found = place.match(problem)
        return (False, int(found[1]), int(found[2])) if found else (True, 0, 0)

    return tuple(sorted(problems, key=key))


def _looked_at(
    file: Path, profile: str | None, environ: Mapping[str, str] | None
) -> tuple[Configuration | None, list[str]]:
    try:
        found = read(file, profile=profile, environ=environ)
        app_arguments(found)
    except SettingsError as error:
        return None, list(error.problems)
    return found, []


def unknown_tasks(found: Configuration, known: Iterable[str]) -> list[str]:
    """What the settings say of tasks that the app does not know, each with its place and the nearest name.

    It need not be a mistake: several apps may share one file.
    """
    names = list(known)
    paths: list[tuple[KeyPath, str]] = [(("tasks", pattern), pattern) for pattern in found.task_options]
    paths += [((*schedule.path, "task"), schedule.task) for schedule in found.schedules]
    return [
        found.source.line_of(path, _unknown(pattern, names))
        for path, pattern in paths
        if pattern not in names and not ("*" in pattern and fnmatch.filter(names, pattern))
    ]


def unused_queues(found: Configuration, used: Iterable[str]) -> list[str]:
    """`[queues.…]` that none of the app's tasks is in, each with its place and the nearest name."""
    names = sorted(used)
    return [
        found.source.line_of(("queues", name), f"no task of the app is in this queue{_near(name, names)}")
        for name in found.queues
        if name not in names
    ]


def _unknown(pattern: str, names: list[str]) -> str:
    return f"the app has no such task{_near(pattern, names)}"


def _near(name: str, names: list[str]) -> str:
    near = difflib.get_close_matches(name, names, n=1)
    return f": did you mean {near[0]!r}?" if near else ""
