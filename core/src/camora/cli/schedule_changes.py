"""Changing stored schedules: added, paused, resumed, removed, run."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, get_args

import attrs
from cyclopts import Parameter

from camora.cli.arguments import ARGUMENTS, known_task, read_arguments
from camora.cli.common import NOT_FOUND, OK, JsonOption, Where, YesOption, confirm, note, print_json, run, say
from camora.cli.moments import exact, relative
from camora.cli.triggers import When
from camora.errors import ConfigurationError, UnsupportedCapability
from camora.interfaces.schedule import CatchUp, Overlap
from camora.schedules import Schedules

if TYPE_CHECKING:
    from camora.app import Camora

__all__ = ["add", "is_stored", "moment_text", "pause", "remove", "resume", "run_now"]

_Key = Annotated[str, Parameter(help="The schedule's key.")]


def add(
    key: Annotated[str, Parameter(help="Its name for ever.")],
    task: Annotated[str, Parameter(help='The task\'s name, for example "shop.tasks:report".')],
    /,
    *arguments: Annotated[str, Parameter(help=ARGUMENTS)],
    when: When = When(),  # noqa: B008
    group: Annotated[str, Parameter(name=["--group", "-g"], help="Its group.")] = "default",
    catch_up: Annotated[str, Parameter(help="Of missed moments, make up for: one, all or none.")] = "one",
    overlap: Annotated[
        str, Parameter(help="While the job before is unfinished: allow the next, or skip it.")
    ] = "allow",
    queue: Annotated[str | None, Parameter(name=["--queue", "-q"], help="Another queue than the task's.")] = None,
    priority: Annotated[int | None, Parameter(help="0 to 9, the largest first.")] = None,
    expires: Annotated[str | None, Parameter(help="Drop a job that has not started after this time: 5m.")] = None,
    unchecked: Annotated[
        bool, Parameter(negative=(), show_default=False, help="Although the app knows no such task.")
    ] = False,
    as_json: JsonOption = False,
    where: Where = Where(),  # noqa: B008
) -> int:
    """Store a schedule that stays until it is removed, whatever is deployed; one that was added before is replaced."""
    found = where.find()
    _shared(found)
    known = known_task(found, task, unchecked=unchecked)
    args, kwargs = read_arguments(arguments, known)
    trigger = when.make(found.schedules.parts.catalog)
    given = {"queue": queue, "priority": priority, "expires": None if expires is None else _seconds(expires)}
    options: dict[str, Any] = {name: value for name, value in given.items() if value is not None}

    async def work(app: Camora) -> int:
        call = app._signature(known or task, args, kwargs).options(**options)  # noqa: SLF001 -- one unit with the app
        stored = await app.schedules.add(
            key,
            call,
            trigger,
            group=group,
            catch_up=_one_of("--catch-up", catch_up, get_args(CatchUp)),
            overlap=_one_of("--overlap", overlap, get_args(Overlap)),
        )
        if as_json:
            print_json(attrs.asdict(stored, recurse=False))
        else:
            due = "never" if stored.next is None else moment_text(stored.next, app.clock.now_ms())
            say(f"{key}: {stored.trigger}, next {due}")
        return OK

    return run(work, found)


def _shared(app: Camora) -> None:
    if not app.broker.capabilities.shared:
        raise ConfigurationError(
            f"{app.broker!r} lives in one process: what this command does would be gone with it. Use a broker that "
            "processes share, for example  sqlite:///camora.db  (camora-sql)"
        )


def _seconds(text: str) -> float:
    from camora.units import duration

    try:
        return duration(text)
    except ValueError as error:
        raise ConfigurationError(f"--expires: {error}") from None


def _one_of(option: str, given: str, allowed: Sequence[str]) -> Any:
    if given not in allowed:
        raise ConfigurationError(f"{option} {given!r}: one of {', '.join(allowed)}")
    return given


def pause(key: _Key, /, *more: _Key, where: Where = Where()) -> int:  # noqa: B008
    """Fire these no more, until resumed; a deploy does not change that."""
    return _each((key, *more), where.find(), Schedules.pause, "paused")


def resume(key: _Key, /, *more: _Key, where: Where = Where()) -> int:  # noqa: B008
    """Fire these again, from their next moments on; what came while they were paused is left out."""
    return _each((key, *more), where.find(), Schedules.resume, "resumed")


def remove(key: _Key, /, *more: _Key, yes: YesOption = False, where: Where = Where()) -> int:  # noqa: B008
    """Delete these for good. What code or settings declare comes back with the next scheduler: pause that instead."""
    found = where.find()
    keys = (key, *more)

    async def stored(app: Camora) -> list[str]:
        return [one for one in keys if await is_stored(app, one)]

    there = run(stored, found)
    code = OK if len(there) == len(keys) else NOT_FOUND
    if not there:
        return code
    if not confirm(f"Delete {', '.join(there)} for good?", yes=yes):
        say("nothing was deleted")
        return OK
    code = _each(there, found, Schedules.remove, "removed") or code
    if back := [one for one in keys if one in found.schedules.declared.by_key]:
        note(f"still declared, and stored again when a scheduler starts: {', '.join(back)}; pause does not come undone")
    return code


def run_now(key: _Key, /, *, as_json: JsonOption = False, where: Where = Where()) -> int:  # noqa: B008
    """Dispatch its job once, now, and print the job's id; its own moments stay as they are."""
    found = where.find()
    _shared(found)

    async def work(app: Camora) -> int:
        if not await is_stored(app, key):
            return NOT_FOUND
        job = await app.schedules.run_now(key)
        if as_json:
            print_json({"key": key, "id": job.id})
        else:
            say(job.id)
        return OK

    return run(work, found)


def _each(keys: Sequence[str], found: Camora, change: Callable[[Schedules, str], Awaitable[None]], done: str) -> int:
    async def work(app: Camora) -> int:
        code = OK
        for key in dict.fromkeys(keys):
            if await is_stored(app, key):
                await change(app.schedules, key)
                say(f"{key}: {done}")
            else:
                code = NOT_FOUND
        return code

    return run(work, found)


async def is_stored(app: Camora, key: str) -> bool:
    """Whether there is such a schedule; if not, a remark says so."""
    try:
        await app.schedules.get(key)
    except UnsupportedCapability:
        raise
    except ConfigurationError as error:
        note(str(error))
        return False
    return True


def moment_text(moment: datetime, now: int) -> str:
    """A moment in UTC, and how far it is from now (ms since the epoch)."""
    stamp = round(moment.timestamp() * 1000)
    return f"{exact(stamp)} ({relative(stamp, now)})"
