"""Triggers as they are written on a command line."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

from attrs import frozen
from cyclopts import Group, Parameter

from camora.errors import ConfigurationError

if TYPE_CHECKING:
    from camora.interfaces.schedule import Trigger
    from camora.plugins import Catalog

__all__ = ["When"]

_WHEN = Group("When", sort_key=50)


def _option(name: str, text: str) -> Parameter:
    return Parameter(name=f"--{name}", group=_WHEN, help=text)


@Parameter(name="*")
@frozen(kw_only=True)
class When:
    """When a schedule is due, as one group of options: `*, when: When = When()`."""

    cron: Annotated[str | None, _option("cron", 'A cron expression: "0 9 * * 1-5".')] = None
    every: Annotated[str | None, _option("every", "An interval: 30s, 5m, 1h30m, 1d.")] = None
    calendar: Annotated[str | None, _option("calendar", 'Sets of fields: "hours=9,17 weekdays=mon,fri".')] = None
    at: Annotated[
        str | None, _option("at", "A single moment: 2031-05-01T09:00:00+02:00, or without offset and with --tz.")
    ] = None
    trigger: Annotated[
        str | None, _option("trigger", """A plugin's trigger, as JSON: '{"use": "tides", "port": "Brest"}'.""")
    ] = None
    tz: Annotated[
        str | None, _option("tz", "The time zone of --cron, --calendar or --at: Europe/Paris; default: UTC.")
    ] = None

    @property
    def given(self) -> list[str]:
        """The options that say when, of which there should be one."""
        return [name for name in ("cron", "every", "calendar", "at", "trigger") if getattr(self, name) is not None]

    def make(self, catalog: Catalog) -> Trigger:
        """The trigger. Raises `ConfigurationError` naming the option."""
        from camora.errors import SettingsError
        from camora.schedules import make_trigger

        if len(self.given) != 1:
            found = " and ".join(f"--{name}" for name in self.given) or "none"
            raise ConfigurationError(f"when? Give one of --cron, --every, --calendar, --at, --trigger; found {found}")
        [name] = self.given
        if self.tz is not None and name in ("every", "trigger"):
            raise ConfigurationError(
                f"--tz is for --cron, --calendar and --at; --{name} knows no time zone of that kind"
            )
        try:
            return make_trigger(catalog, self._described(name))
        except SettingsError as error:
            # The trigger's name is said by the option.
            said = re.compile(rf"{name}: (?:\w+: )?(?:{name} )?")
            problems = "; ".join(said.sub("", problem, count=1) for problem in error.problems)
            raise ConfigurationError(f"--{name}: {problems}") from None
        except (ConfigurationError, ValueError) as error:
            raise ConfigurationError(f"--{name}: {error}") from None

    def _described(self, name: str) -> Mapping[str, Any]:
        zone = {} if self.tz is None else {"tz": self.tz}
        text: str = getattr(self, name)
        if name == "cron":
            return {"use": "cron", "expression": text, **zone}
        if name == "every":
            from camora.units import duration

            return {"use": "every", "seconds": duration(text)}
        if name == "calendar":
            return {"use": "calendar", **_sets(text), **zone}
        if name == "at":
            return {"use": "once", "at": _moment(text, self.tz)}
        return _table(text)


def _sets(text: str) -> dict[str, list[int | str]]:
    sets: dict[str, list[int | str]] = {}
    for word in text.split():
        name, equals, values = word.partition("=")
        items = [item for item in values.split(",") if item]
        if not equals or not items:
            raise ConfigurationError(f"{word!r}: write name=value,value, for example hours=9,17")
        sets[name] = [int(item) if item.removeprefix("-").isdecimal() else item for item in items]
    return sets


def _moment(text: str, tz: str | None) -> Any:
    from datetime import datetime

    from camora.builtin.triggers.zones import zone_named

    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigurationError(f"{text!r} is no moment; write it as 2031-05-01T09:00:00+02:00") from None
    if moment.tzinfo is None and tz is None:
        raise ConfigurationError(f"{text!r}: in which zone? Add an offset such as +02:00, Z for UTC, or --tz")
    if moment.tzinfo is not None and tz is not None:
        raise ConfigurationError(f"{text!r} has an offset already: leave --tz out")
    return moment if tz is None else moment.replace(tzinfo=zone_named(tz))


def _table(text: str) -> Mapping[str, Any]:
    try:
        table = json.loads(text)
    except ValueError as error:
        raise ConfigurationError(f"{text!r} is no JSON: {error}") from None
    if not isinstance(table, dict):
        raise ConfigurationError(f'{text!r}: expected a JSON object with "use"')
    return table
