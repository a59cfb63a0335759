"""`camora config …`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import cyclopts
from cyclopts import Parameter

from camora.cli.common import (
    MISTAKE,
    OK,
    ConfigOption,
    JsonOption,
    ProfileOption,
    find_app,
    masked,
    note,
    print_json,
    say,
)
from camora.errors import ConfigurationError, SettingsError

if TYPE_CHECKING:
    from camora.config import Configuration

__all__ = ["app"]

app = cyclopts.App(name="config", help="Check, show or describe camora.toml.")

_OriginOption = Annotated[
    bool, Parameter(name="--origin", negative=(), show_default=False, help="Say where each value comes from.")
]


@app.command
def check(*, config: ConfigOption = None, profile: ProfileOption = None, as_json: JsonOption = False) -> int:
    """Read the settings, and name every mistake with its place; exit code 2 if there is one.

    Without --profile all profiles of the file are checked, too; secrets that only they need may be missing. What the
    settings choose is made, but nothing is connected. Tasks that the app does not have are
    remarked upon.
    """
    from camora.config.checking import check as checked

    found = checked(config, profile=profile)
    remarks = [] if found.problems or found.settings is None else _remarks(found.settings, profile)
    if as_json:
        answer = {"ok": not found.problems, "file": found.file, "problems": list(found.problems), "remarks": remarks}
        print_json(answer)
        return MISTAKE if found.problems else OK
    if found.problems:
        raise SettingsError("\n".join(found.problems), problems=found.problems)
    for remark in remarks:
        note(remark)
    profiles = f", with {_profiles(found.profiles)}" if found.profiles else ""
    say(f"{found.file}: nothing is wrong{profiles}")
    return OK


def _remarks(found: Configuration, profile: str | None) -> list[str]:
    """What only the app itself can tell: whether it has the tasks that the file speaks of."""
    from camora.config.checking import unknown_tasks

    if not (found.app and (found.task_options or found.schedules)):
        return []
    try:
        app = find_app(config=found.path, profile=profile)
    except ConfigurationError as error:
        return [f"what the file says of tasks was not looked at: {error}"]
    return unknown_tasks(found, app.tasks.by_name)


def _profiles(names: tuple[str, ...]) -> str:
    return f"profile{'s' if len(names) > 1 else ''} {', '.join(names)}"


@app.command
def show(
    *,
    origin: _OriginOption = False,
    config: ConfigOption = None,
    profile: ProfileOption = None,
    as_json: JsonOption = False,
) -> int:
    """Print the settings in force as TOML, defaults among them, secrets masked."""
    from camora.config.effective import effective
    from camora.config.writing import as_data, as_toml

    found = _read(config, profile)
    settings = effective(found)
    if not as_json:
        # Plain, so that it can be piped into a file.
        print(masked(as_toml(settings, origins=origin)), end="")  # noqa: T201
        return OK
    answer: dict[str, Any] = {"file": _file(found), "profile": found.profile, "settings": as_data(settings)}
    if origin:
        from camora.config.places import dotted

        answer["origins"] = {dotted(setting.path): setting.origin for setting in settings}
    print_json(answer)
    return OK


@app.command
def schema(*, config: ConfigOption = None) -> int:
    """Print the JSON Schema of camora.toml, with what the installed plugins add to it.

    An editor that knows TOML then completes keys and marks mistakes. Plugins that [plugins] of the file names as local
    are described, too.
    """
    from camora.config.loading import catalog_near
    from camora.config.schema import schema_of

    print_json(schema_of(catalog_near(config)))
    return OK


def _read(config: Path | None, profile: str | None) -> Configuration:
    from camora.config import read

    return read(config, profile=profile)


def _file(found: Configuration) -> str:
    from camora.config.files import shown_path

    return shown_path(found.path)
