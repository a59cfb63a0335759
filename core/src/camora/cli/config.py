"""`camora config …`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import cyclopts
from cyclopts import Parameter

from camora.cli.common import (
    FAILED,
    MISTAKE,
    OK,
    ConfigOption,
    JsonOption,
    ProfileOption,
    find_app,
    masked,
    print_json,
    say,
    stderr,
)
from camora.errors import ConfigurationError, SettingsError
from camora.masking import masked_error

if TYPE_CHECKING:
    from camora.config import Configuration

__all__ = ["app"]

app = cyclopts.App(name="config", help="Check, show or describe camora.toml.")

_OriginOption = Annotated[
    bool, Parameter(name="--origin", negative=(), show_default=False, help="Say where each value comes from.")
]

_StrictOption = Annotated[
    bool, Parameter(name="--strict", negative=(), show_default=False, help="Exit with 1 where there are remarks.")
]


@app.command
def check(
    *,
    config: ConfigOption = None,
    profile: ProfileOption = None,
    strict: _StrictOption = False,
    as_json: JsonOption = False,
) -> int:
    """Read the settings, and name every mistake with its place; exit code 2 if there is one.

    Without --profile all profiles of the file are checked, too; secrets that only they need may be missing. What the
    settings choose is made, but nothing is connected. An app that cannot be imported is a mistake; tasks that it
    does not have, and queues that none of its tasks is in, are remarked upon.
    """
    from camora.config.checking import check as checked

    found = checked(config, profile=profile)
    problems, remarks = list(found.problems), list[str]()
    if not problems and found.settings is not None and found.settings.app:
        problems, remarks = _looked_at(found.settings, profile)
    code = MISTAKE if problems else FAILED if strict and remarks else OK
    if as_json:
        print_json({"ok": code == OK, "file": found.file, "problems": problems, "remarks": remarks})
        return code
    for line in (*problems, *remarks):
        stderr().print(masked_error(line), style="red" if problems else "yellow", markup=False, soft_wrap=True)
    if problems:
        return code
    profiles = f", with {_profiles(found.profiles)}" if found.profiles else ""
    count = f"no mistakes, {len(remarks)} remark{'s' if len(remarks) > 1 else ''}" if remarks else "nothing is wrong"
    say(f"{found.file}: {count}{profiles}")
    return code


def _looked_at(found: Configuration, profile: str | None) -> tuple[list[str], list[str]]:
    """What only the app itself can tell: mistakes, and remarks on the tasks and queues that the file speaks of."""
    from camora.config.checking import in_order, unknown_tasks, unused_queues

    try:
        app = find_app(config=found.path, profile=profile)
    except SettingsError as error:
        return list(error.problems), []
    except ConfigurationError as error:
        return [found.source.line_of(("app",), str(error))], []
    try:
        app._declarations.tell(app.broker)  # noqa: SLF001 -- made for this
    except ConfigurationError as error:
        place = ("broker",) if "broker" in found.source.data else ("app",)
        return [found.source.line_of(place, str(error))], []
    remarks = [*unknown_tasks(found, app.tasks.by_name), *unused_queues(found, app.tasks.queues())]
    return [], list(in_order(remarks, _file(found)))


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
