"""All that can be wrong with a file, its profiles included."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import attrs

from camora.config.arguments import app_arguments
from camora.config.files import shown_path
from camora.config.loading import file_of, profiles_of, read
from camora.errors import SettingsError

__all__ = ["Checked", "check"]


@attrs.frozen
class Checked:
    """The file, the profiles that were laid over it, one after the other, and every problem."""

    file: str
    profiles: tuple[str, ...]
    problems: tuple[str, ...]


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
    problems = _problems(file, profile, environ, strict=True)
    for name in [] if profile else names:
        problems += _problems(file, name, environ, strict=False)
    return Checked(shown_path(file), tuple(names), tuple(dict.fromkeys(problems)))


def _problems(file: Path, profile: str | None, environ: Mapping[str, str] | None, *, strict: bool) -> list[str]:
    try:
        found = read(file, profile=profile, environ=environ, ignore_missing=not strict)
        if strict:
            app_arguments(found)
    except SettingsError as error:
        return list(error.problems)
    return []
