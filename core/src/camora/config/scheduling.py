"""`[[schedules]]`: tables as triggers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from camora.builtin.triggers.zones import zone_named
from camora.config.choices import Scheduled
from camora.config.locate import KeyPath
from camora.config.sections import ScheduleSection
from camora.config.source import Source
from camora.errors import ConfigurationError, SettingsError
from camora.options import check_name
from camora.plugins import Catalog
from camora.settings import Duration
from camora.structuring import WRONG, settings_fields, unknown_key

__all__ = ["read_schedules"]

_HOOK = "camora_triggers"
_TRIGGERS = ("cron", "every", "calendar", "at", "trigger")


def read_schedules(source: Source, catalog: Catalog) -> list[Scheduled]:
    """All schedules; what is wrong with them is noted in the source."""
    given = source.data.get("schedules", [])
    if given is WRONG or not isinstance(given, list):
        if given is not WRONG:
            source.note(("schedules",), f"expected an array of tables, found {source.shown(given, ('schedules',))}")
        return []
    found = []
    places: dict[str, KeyPath] = {}
    for index, table in enumerate(given):
        path: KeyPath = ("schedules", index)
        section = source.table(ScheduleSection, table, path)
        if isinstance(table, Mapping):
            trigger = _trigger(source, catalog, table, path)
            if section is not WRONG and trigger is not WRONG:
                found.append(_scheduled(section, trigger, path))
            _check_names(source, table, path, places)
    return found


def _scheduled(section: ScheduleSection, trigger: Any, path: KeyPath) -> Scheduled:
    return Scheduled(
        path=path,
        key=section.key,
        task=section.task,
        args=section.args,
        kwargs=dict(section.kwargs),
        trigger=trigger,
        group=section.group,
        catch_up=section.catch_up,
        overlap=section.overlap,
    )


def _check_names(source: Source, table: Mapping[str, Any], path: KeyPath, places: dict[str, KeyPath]) -> None:
    for name, kind in (("key", "schedule"), ("task", "task"), ("group", "schedule group")):
        value = table.get(name)
        if isinstance(value, str):
            try:
                check_name(kind, value)
            except ConfigurationError as error:
                source.note((*path, name), str(error))
    key = table.get("key")
    if isinstance(key, str) and key in places:
        source.note(
            (*path, "key"), f"two schedules are called {key!r}; the other one is at {source.place(places[key])}"
        )
    elif isinstance(key, str):
        places[key] = (*path, "key")


def _trigger(source: Source, catalog: Catalog, table: Mapping[str, Any], path: KeyPath) -> Any:
    given = [name for name in _TRIGGERS if name in table]
    if len(given) != 1:
        found = " and ".join(given) or "none"
        _zone(source, table.get("tz"), (*path, "tz"))  # for what else is wrong
        return source.note(path, f"expected one of {', '.join(_TRIGGERS)}, found {found}")
    [name] = given
    tz = _zone(source, table.get("tz"), (*path, "tz"))
    if table[name] is WRONG:
        return WRONG
    if tz is WRONG:
        _of_kind(source, catalog, name, table[name], "UTC", (*path, name))  # for what else is wrong
        return WRONG
    if name == "every" and tz is not None:
        return source.note((*path, "tz"), "every counts elapsed time, which no time zone changes: leave tz out")
    return _of_kind(source, catalog, name, table[name], tz, (*path, name))


def _of_kind(source: Source, catalog: Catalog, name: str, value: Any, tz: str | None, path: KeyPath) -> Any:
    if name == "trigger":
        return _of_plugin(source, catalog, value, path)
    if name == "at":
        return _once(source, catalog, value, tz, path)
    return _of_core(source, catalog, name, value, tz, path)


def _of_core(source: Source, catalog: Catalog, name: str, value: Any, tz: str | None, path: KeyPath) -> Any:
    """What `cron`, `every` and `calendar` say."""
    zone = {} if tz is None else {"tz": tz}
    if isinstance(value, Mapping):
        return _of_table(source, catalog, name, value, path, zone)
    if name == "cron" and isinstance(value, str):
        return _made(source, catalog, name, {"expression": value, **zone}, path)
    if name == "every":
        seconds = source.read(Duration, value, path)
        return WRONG if seconds is WRONG else _made(source, catalog, name, {"seconds": seconds}, path)
    return WRONG  # noted while the section was read


def _zone(source: Source, given: Any, path: KeyPath) -> Any:
    """The zone's name, if one is given and exists."""
    if not isinstance(given, str):
        return None  # noted while the section was read
    try:
        zone_named(given)
    except ValueError as error:
        text = source.told(error, path).removeprefix(f"tz={given!r}: ")
        return source.note(path, text.replace("no such time zone", f"no time zone {given!r}", 1))
    return given


def _once(source: Source, catalog: Catalog, value: Any, tz: str | None, path: KeyPath) -> Any:
    moment = source.read(datetime, value, path)
    if moment is WRONG:
        return WRONG
    if moment.tzinfo is None and tz is not None:
        moment = moment.replace(tzinfo=zone_named(tz))
    if moment.tzinfo is None:
        return source.note(path, f"expected a moment with a time zone, found {moment.isoformat()}: add Z, or tz")
    return _made(source, catalog, "once", {"at": moment}, path)


def _of_plugin(source: Source, catalog: Catalog, value: Any, path: KeyPath) -> Any:
    if not isinstance(value, Mapping):
        return WRONG
    name = value.get("use")
    if not isinstance(name, str):
        return source.note((*path, "use"), "is missing: expected a trigger's name")
    if name not in catalog.items[_HOOK]:
        problem = unknown_key((*path, "use", name), catalog.items[_HOOK], what="trigger")
        return source.note((*path, "use"), problem.text)
    settings = {key: item for key, item in value.items() if key != "use"}
    return _of_table(source, catalog, name, settings, path, {})


def _of_table(
    source: Source, catalog: Catalog, name: str, value: Mapping[str, Any], path: KeyPath, zone: Mapping[str, Any]
) -> Any:
    provider = catalog.provider(_HOOK, name)
    if provider.settings is None:
        return _made(source, catalog, name, value, path)
    fixed = (
        {} if "tz" in value else {key: item for key, item in zone.items() if key in settings_fields(provider.settings)}
    )
    settings = source.table(provider.settings, value, path, fixed=fixed)
    return WRONG if settings is WRONG else _made(source, catalog, name, settings, path)


def _made(source: Source, catalog: Catalog, name: str, settings: Any, path: KeyPath) -> Any:
    try:
        return catalog.provider(_HOOK, name).make(settings=settings)
    except SettingsError as error:
        # The trigger's name, its field and the value are said by the key, or stand there.
        said = re.compile(rf"{name}: (?:\w+: )?(?:{name} '[^']*': )?")
        return source.note(path, "; ".join(said.sub("", problem, count=1) for problem in error.problems))
    except (ConfigurationError, ValueError) as error:
        return source.note(path, source.told(error, path))
