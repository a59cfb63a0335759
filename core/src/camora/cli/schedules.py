"""`camora schedules …`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import attrs
import cyclopts
from cyclopts import Parameter

from camora.cli import schedule_changes
from camora.cli.common import NOT_FOUND, OK, JsonOption, Where, note, print_json, run, say, table
from camora.cli.moments import relative
from camora.cli.payload import call_text, decoded
from camora.cli.schedule_changes import is_stored, moment_text
from camora.cli.triggers import When
from camora.errors import ConfigurationError

if TYPE_CHECKING:
    from camora.app import Camora
    from camora.schedules import Schedule

__all__ = ["app"]

app = cyclopts.App(name="schedules", help="List, add, pause, resume or run schedules; without a word, list them.")

_Key = Annotated[str, Parameter(help="The schedule's key.")]
for _change in (schedule_changes.add, schedule_changes.pause, schedule_changes.resume, schedule_changes.remove):
    app.command(_change)
app.command(schedule_changes.run_now, name="run")

_LATE = 15_000
"""Milliseconds; a scheduler that was killed is replaced in less."""
_ORIGINS = {"code": "code", "config": "settings", "runtime": "run time"}


@app.default
@app.command(name="list")
def list_schedules(
    *,
    group: Annotated[str | None, Parameter(name=["--group", "-g"], help="Only those of this group.")] = None,
    as_json: JsonOption = False,
    where: Where = Where(),  # noqa: B008 -- frozen
) -> int:
    """List the stored schedules, with the moments at which they are due and the ones that fired last."""
    found = where.find()
    rows = run(lambda app: app.schedules.list(group), found)
    stored = {row.key for row in rows}
    declared = found.schedules.declared.by_key.values()
    missing = [one.key for one in declared if one.key not in stored and group in (None, one.group)]
    if as_json:
        print_json({"schedules": [_plain(row) for row in rows], "not_stored": missing})
        return OK
    if rows:
        _print(rows, found.clock.now_ms())
    else:
        say("no schedules are stored" if group is None else f"no schedules of group {group} are stored")
    late = [row.key for row in rows if _is_late(row, found.clock.now_ms())]
    if late:
        note(f"overdue: {', '.join(late)}; does a scheduler run? (camora scheduler, or camora worker --scheduler)")
    if missing:
        note(f"declared, and stored when a scheduler starts: {', '.join(missing)}")
    return OK


def _is_late(row: Schedule, now: int) -> bool:
    return not row.paused and row.next is not None and _ms(row.next) < now - _LATE


def _plain(schedule: Schedule) -> dict[str, Any]:
    return attrs.asdict(schedule, recurse=False)


def _print(rows: Sequence[Schedule], now: int) -> None:
    """As a table; what all of them have in common needs no column."""
    columns = {
        "key": [row.key for row in rows],
        "when": [row.trigger for row in rows],
        "next": [_due(row, now) for row in rows],
        "last": ["never" if row.last is None else relative(_ms(row.last), now) for row in rows],
        "task": [row.task for row in rows],
    }
    some = {"group": [row.group for row in rows], "from": [_origin(row) for row in rows]}
    columns |= {name: cells for name, cells in some.items() if len(set(cells)) > 1}
    table(list(columns), zip(*columns.values(), strict=True))


def _due(row: Schedule, now: int) -> str:
    return "paused" if row.paused else "ended" if row.next is None else relative(_ms(row.next), now)


def _origin(row: Schedule) -> str:
    return _ORIGINS.get(row.origin, row.origin)


def _ms(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)


@app.command
def show(key: _Key, /, *, as_json: JsonOption = False, where: Where = Where()) -> int:  # noqa: B008
    """Show one schedule whole, with its arguments and its next moments; exits with 3 when there is none."""

    async def work(app: Camora) -> int:
        if not await is_stored(app, key):
            return NOT_FOUND
        schedule = await app.schedules.get(key)
        facts = {
            **_plain(schedule),
            "arguments": await _arguments(app, key),
            "preview": [] if schedule.paused else list(await app.schedules.preview(key, 3)),
        }
        if as_json:
            print_json(facts)
        else:
            table(["schedule", key], _lines(facts, app.clock.now_ms()))
        return OK

    return run(work, where.find())


async def _arguments(app: Camora, key: str) -> dict[str, Any] | None:
    """What its jobs are given; secrets are masked. None where the codec of this app cannot read it."""
    from camora.secrets import mask_arguments

    [record] = await (await app.schedules.parts.store()).get([key])
    message = None if record is None else decoded(app, record.message)
    if message is None:
        return None
    return mask_arguments(app.tasks.for_message(message.task, message.queue), message)


def _lines(facts: Mapping[str, Any], now: int) -> list[tuple[str, str]]:
    arguments = facts["arguments"]
    call = "undecodable" if arguments is None else call_text(arguments, limit=10_000)
    lines = [("when", facts["trigger"]), ("call", f"{facts['task']}({call})"), ("queue", facts["queue"])]
    lines += [(name, facts[name]) for name in ("group", "catch_up", "overlap")]
    lines.append(("from", f"{_ORIGINS.get(facts['origin'], facts['origin'])} of app {facts['app']}"))
    if facts["last"] is not None:
        lines.append(("last", moment_text(facts["last"], now)))
        lines.append(("last job", facts["last_job"]))
    if facts["paused"]:
        lines.append(("next", "paused"))
    elif facts["next"] is None:
        lines.append(("next", "ended"))
    lines += [("next", moment_text(moment, now)) for moment in facts["preview"]]
    return lines


@app.command
def preview(
    key: Annotated[str | None, Parameter(help="The schedule's key; or say a trigger with --cron and the like.")] = None,
    /,
    *,
    when: When = When(),  # noqa: B008 -- frozen
    count: Annotated[int, Parameter(name=["--count", "-n"], help="How many moments.")] = 10,
    as_json: JsonOption = False,
    where: Where = Where(),  # noqa: B008
) -> int:
    """Print the next moments of a schedule that is stored or declared, or of a trigger that is none yet."""
    if (key is None) == (not when.given):
        raise ConfigurationError("camora schedules preview: name a schedule, or say when with --cron and the like")
    if count < 1:
        raise ConfigurationError(f"--count {count}: a whole number from 1")

    async def work(app: Camora) -> int:
        if key is not None and key not in app.schedules.declared.by_key and not await is_stored(app, key):
            return NOT_FOUND
        catalog = app.schedules.parts.catalog
        moments = await app.schedules.preview(when.make(catalog) if key is None else key, count)
        if as_json:
            print_json({"moments": list(moments)})
            return OK
        zone = when.tz if key is None else await _zone(app, key)
        rows = [_turns(moment, zone, app.clock.now_ms()) for moment in moments]
        table(["UTC", zone or "UTC", "in"] if _elsewhere(zone) else ["UTC", "in"], rows)
        if len(moments) < count:
            note("after these it never comes again" if moments else "it never comes after now")
        return OK

    return run(work, where.find())


def _elsewhere(zone: str | None) -> bool:
    return zone not in (None, "UTC")


def _turns(moment: datetime, zone: str | None, now: int) -> list[str]:
    from zoneinfo import ZoneInfo

    there = [f"{moment.astimezone(ZoneInfo(zone)):%a %Y-%m-%d %H:%M:%S %z}"] if zone and _elsewhere(zone) else []
    return [f"{moment:%a %Y-%m-%d %H:%M:%S}", *there, relative(_ms(moment), now).removeprefix("in ")]


async def _zone(app: Camora, key: str) -> str | None:
    declared = app.schedules.declared.by_key.get(key)
    described = declared.trigger.describe() if declared else (await app.schedules.get(key)).described
    zone = described.get("tz")
    return zone if isinstance(zone, str) else None
