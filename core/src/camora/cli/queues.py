"""`camora queues …`."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import cyclopts

from camora.cli.common import (
    NOT_FOUND,
    OK,
    JsonOption,
    Where,
    YesOption,
    confirm,
    note,
    print_json,
    run,
    say,
    table,
    waiting,
)
from camora.cli.queue_names import doubt_queue, named_queues
from camora.errors import UnsupportedCapability

if TYPE_CHECKING:
    from camora.app import Camora

__all__ = ["app"]

app = cyclopts.App(name="queues", help="Count, pause, resume or purge queues; without a word, list them.")

_STATES = {"ready": "ready", "scheduled": "scheduled", "leased": "running", "dead": "dead"}
"""The broker's word for where a message lies, and the column's."""
_Queue = Annotated[str, cyclopts.Parameter(help="The queue's name.")]
_Unchecked = Annotated[
    bool, cyclopts.Parameter(negative=(), show_default=False, help="Whether or not anybody knows such a queue.")
]


@app.default
@app.command(name="list")
def list_queues(*, as_json: JsonOption = False, where: Where = Where()) -> int:  # noqa: B008 -- frozen
    """List the queues that the app names or the broker holds jobs of, with how many are in which state."""
    found = where.find()
    rows = run(_rows, found)
    if not found.broker.capabilities.inspect:
        # Who can take back what is scheduled sees it, too.
        seen = found.broker.capabilities.cancel_scheduled
        note(f"this broker counts no jobs that are {'running' if seen else 'scheduled or running'}")
    if as_json:
        print_json({"queues": rows})
    else:
        cells = [[row["queue"], *(row[state] or "·" for state in _STATES), _state(row)] for row in rows]
        table(["queue", *_STATES.values(), "state"], cells, right=list(_STATES.values()))
    return OK


def _state(row: Mapping[str, Any]) -> str:
    return "paused" if row["paused"] else "open"


async def _rows(app: Camora) -> list[dict[str, Any]]:
    counts = await app.queue_control.counts()
    paused = await app.queue_control.paused() if app.broker.capabilities.pause else ()
    known = {*named_queues(app), *counts, *paused}
    return [
        {"queue": name, **{state: counts.get(name, {}).get(state, 0) for state in _STATES}, "paused": name in paused}
        for name in sorted(known)
    ]


@app.command
def pause(
    queue: _Queue,
    /,
    *more: _Queue,
    unchecked: _Unchecked = False,
    where: Where = Where(),  # noqa: B008
) -> int:
    """Hand out no jobs of these queues, to any worker, until resumed; what runs goes on.

    Exits with 3, and pauses none, when nobody knows one of them, but one that is called nearly so.
    """
    return _each((queue, *more), where, "pause", "paused", refuse=not unchecked)


@app.command
def resume(queue: _Queue, /, *more: _Queue, where: Where = Where()) -> int:  # noqa: B008
    """Hand out jobs of these queues again."""
    return _each((queue, *more), where, "resume", "resumed", refuse=False)


def _each(queues: Sequence[str], where: Where, verb: str, done: str, *, refuse: bool) -> int:
    async def work(app: Camora) -> int:
        known = {*named_queues(app), *(await app.queue_control.paused() if app.broker.capabilities.pause else ())}
        with contextlib.suppress(UnsupportedCapability):  # it only serves the hint
            known.update(await app.queue_control.counts())
        doubted = [doubt_queue(queue, known) for queue in queues]
        if refuse and any(doubted):
            return NOT_FOUND
        for queue in queues:
            await getattr(app.queue_control, verb)(queue)
            say(f"{queue}: {done}")
        return OK

    return run(work, where.find())


@app.command
def purge(
    queue: _Queue,
    /,
    *,
    yes: YesOption = False,
    unchecked: _Unchecked = False,
    where: Where = Where(),  # noqa: B008
) -> int:
    """Delete all waiting jobs of a queue for good; running ones and dead letters stay.

    Exits with 3, and deletes nothing, when the app knows no such queue, but one that is called nearly so.
    """
    found = where.find()
    if doubt_queue(queue, named_queues(found)) and not unchecked:
        return NOT_FOUND
    if not confirm(f"Delete all waiting jobs of {queue!r} for good?", yes=yes):
        say("nothing was deleted")
        return OK
    with waiting(f"deleting the waiting jobs of {queue} …"):
        count = run(lambda app: app.queue_control.purge(queue), found)
    say(f"{queue}: {count} deleted")
    return OK
