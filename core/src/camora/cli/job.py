"""`camora job …`."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import attrs
import cyclopts
import msgspec
from cyclopts import Parameter

from camora.cli.arguments import read_value
from camora.cli.belonging import told, workflow_of
from camora.cli.common import (
    FAILED,
    NOT_FOUND,
    OK,
    JsonOption,
    Where,
    YesOption,
    confirm,
    connection_of,
    note,
    print_json,
    progress,
    run,
    say,
    table,
)
from camora.cli.moments import exact, relative, span
from camora.cli.payload import arguments_of, call_text, decoded
from camora.errors import ConfigurationError, UnsupportedCapability
from camora.jobs import unknown_job
from camora.outcome import CancelResult, Status
from camora.units import duration

if TYPE_CHECKING:
    from camora.app import Camora
    from camora.connections import Connection

__all__ = ["app"]

app = cyclopts.App(name="job", help="Show, cancel, signal or forget jobs.")

_Ids = Annotated[str, Parameter(help="The job's id, as the dispatch printed it.")]


@app.command
def show(job_id: _Ids, /, *, as_json: JsonOption = False, where: Where = Where()) -> int:  # noqa: B008 -- frozen
    """Show all that is known of a job; exits with 3 when that is nothing."""
    found = where.find()
    facts, remark = run(lambda app: _facts(app, job_id), found)
    unknown = facts["status"] == Status.UNKNOWN
    if as_json:
        print_json(facts)
    elif unknown:
        note(remark)
    else:
        table(["job", job_id], _lines(facts, found.clock.now_ms()))
    return NOT_FOUND if unknown else OK


async def _facts(app: Camora, job_id: str) -> tuple[dict[str, Any], str]:
    """What is known of a job, and what it means if that is nothing."""
    info = await (await app.job(job_id)).info()
    facts = attrs.asdict(info, recurse=False)
    facts["status"] = str(info.status)
    for name in ("error", "progress"):
        facts[name] = None if facts[name] is None else msgspec.to_builtins(facts[name])
    connection = await connection_of(app)
    try:
        queued = await connection.broker.queues.find(job_id)
    except UnsupportedCapability:
        queued = None
    message = decoded(app, queued.body) if queued else None
    facts["arguments"] = None if message is None else arguments_of(app, message)
    return facts, await _unknown(connection, job_id) if info.status is Status.UNKNOWN else ""


async def _unknown(connection: Connection, job_id: str) -> str:
    workflow = await workflow_of(connection, job_id)
    if not workflow:
        return unknown_job(connection, job_id)
    return f"{job_id}: {told(workflow, job_id)}. camora workflow show {workflow} shows its jobs and their ids"


def _lines(facts: dict[str, Any], now: int) -> Iterator[tuple[str, str]]:
    for name in ("task", "queue", "status", "attempts", "deliveries", "worker"):
        if facts[name]:
            yield name, str(facts[name])
    for name in ("created", "due", "started", "finished"):
        if facts[name]:
            yield name, _moment(facts[name], now)
    if facts["started"] and facts["finished"]:
        yield "took", span((facts["finished"] - facts["started"]).total_seconds())
    if facts["arguments"]:
        yield "arguments", call_text(facts["arguments"]) or "none"
    if facts["progress"]:
        progress = facts["progress"]
        total = f" of {progress['total']:g}" if progress.get("total") else ""
        yield "progress", f"{progress.get('done', 0):g}{total} {progress.get('text', '')}".strip()
    if facts["error"]:
        error = facts["error"]
        yield "error", f"{error['type']}: {error['text']}" if error.get("text") else error["type"]
        if error.get("traceback"):
            yield "", error["traceback"].rstrip()


def _moment(moment: datetime, now: int) -> str:
    stamp = round(moment.timestamp() * 1000)
    return f"{exact(stamp)} ({relative(stamp, now)})"


_CANCELLED = {
    CancelResult.REMOVED: "removed: it was waiting, and will never run",
    CancelResult.SIGNALLED: "its worker has been told: a coroutine is interrupted, anything else runs to its end",
    CancelResult.FINISHED: "too late: it has ended already",
    CancelResult.UNKNOWN: "there is no such job",
}


@app.command
def cancel(job_id: _Ids, /, *more: _Ids, as_json: JsonOption = False, where: Where = Where()) -> int:  # noqa: B008
    """Remove waiting jobs, interrupt running ones; exits with 3 when one of them does not exist."""

    async def work(app: Camora) -> dict[str, CancelResult]:
        return {name: await (await app.job(name)).cancel() for name in (job_id, *more)}

    answers = run(work, where.find())
    if as_json:
        print_json({name: str(answer) for name, answer in answers.items()})
    else:
        for name, answer in answers.items():
            say(f"{name}: {_CANCELLED[answer]}")
    return NOT_FOUND if CancelResult.UNKNOWN in answers.values() else OK


@app.command
def signal(
    job_id: _Ids,
    name: Annotated[str, Parameter(help="The signal's name, as the job waits for it.")],
    payload: Annotated[str, Parameter(help="What to send with it: JSON, or else text.")] = "null",
    /,
    *,
    as_json: JsonOption = False,
    where: Where = Where(),  # noqa: B008
) -> int:
    """Send a job a signal that it waits for; exits with 3 where there is no such job, with 1 where it has ended."""

    async def work(app: Camora) -> tuple[Status, bool, str]:
        status = (await (await app.job(job_id)).info()).status
        connection = await connection_of(app)
        if status.finished or (status is Status.UNKNOWN and connection.broker.capabilities.inspect):
            return status, False, await _unknown(connection, job_id)
        return status, await app.signal(job_id, name, read_value(payload)), ""

    status, woken, remark = run(work, where.find())
    posted = not remark
    if as_json:
        print_json({"id": job_id, "posted": posted, "woken": woken, "status": str(status)})
    elif posted:
        say(f"{job_id}: {name!r} was sent, and {'has woken the job up' if woken else _NOT_WOKEN}")
    elif status.finished:
        note(f"job {job_id} has ended ({status}): it waits for nothing, and nothing was sent")
    else:
        note(f"{remark}. Nothing was sent")
    return OK if posted else FAILED if status.finished else NOT_FOUND


_NOT_WOKEN = "waits there until the job waits for it, or looks again by itself"


@app.command
def prune(
    *,
    older_than: Annotated[str, Parameter(help="Those that finished longer ago than this: 12h, 7d.")],
    only_successful: Annotated[
        bool, Parameter(negative=(), show_default=False, help="Keep what is known of those that did not succeed.")
    ] = False,
    yes: YesOption = False,
    as_json: JsonOption = False,
    where: Where = Where(),  # noqa: B008
) -> int:
    """Forget the results of jobs that finished long ago, before their time to be kept is over."""
    try:
        age = duration(older_than)
    except ValueError as error:
        raise ConfigurationError(f"--older-than: {error}") from None
    found = where.find()
    which = "successful jobs" if only_successful else "jobs"
    if not confirm(f"Forget the results of all {which} that finished more than {span(age)} ago?", yes=yes):
        say("nothing was forgotten")
        return OK
    before = found.clock.now_ms() - round(age * 1000)

    async def work(app: Camora) -> int:
        results = (await connection_of(app)).results
        if results is None:
            raise ConfigurationError("this app keeps no results (results=False): there is nothing to forget")
        count = 0
        with progress("forgetting", total=None) as step:
            while some := await results.prune(before, only_successful=only_successful):
                count += some
                step(some)
        return count

    count = run(work, found)
    if as_json:
        print_json({"forgotten": count})
    else:
        say(f"{count} forgotten")
    return OK
