"""All that can be wrong with a file, its profiles included."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Iterable, Mapping
from pathlib import Path

import attrs

from camora.config.arguments import app_arguments
from camora.config.configuration import Configuration
from camora.config.files import shown_path
from camora.config.loading import file_of, profiles_of, read
from camora.config.locate import KeyPath
from camora.errors import SettingsError

__all__ = ["Checked", "check", "unknown_tasks"]


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
            read(file, profile=name, environ=environ, ignore_missing=True)
        except SettingsError as error:
            problems += error.problems
    return Checked(shown_path(file), tuple(names), tuple(dict.fromkeys(problems)), settings)


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


def _unknown(pattern: str, names: list[str]) -> str:
    near = difflib.get_close_matches(pattern, names, n=1)
    return f"the app has no such task{f': did you mean {near[0]!r}?' if near else ''}"
