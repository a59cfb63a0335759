"""`camora dead …`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import cyclopts
import msgspec
from cyclopts import Parameter

from camora.cli.common import (
    NOT_FOUND,
    OK,
    JsonOption,
    Where,
    YesOption,
    confirm,
    note,
    print_json,
    progress,
    run,
    say,
    stdout,
    table,
    waiting,
)
from camora.cli.moments import exact, moment_of, relative
from camora.cli.payload import arguments_of, call_text, decoded
from camora.cli.queue_names import doubt_queue, named_queues
from camora.errors import ConfigurationError, UnsupportedCapability

if TYPE_CHECKING:
    from camora.app import Camora
    from camora.outcome import DeadLetter

__all__ = ["app"]

app = cyclopts.App(name="dead", help="List, requeue or purge dead letters: jobs that will not run again by themselves.")

_WIDE = 120
"""Columns from which on a letter has room in one line."""
_Id = Annotated[str, Parameter(help="The job's id.")]
_Queue = Annotated[str | None, Parameter(name=["--queue", "-q"], help="Only those of this queue.")]

_Every = Annotated[bool, Parameter(name="--all", negative=(), show_default=False, help="All of them.")]


@app.default
@app.command(name="list")
def list_letters(
    *,
    queue: _Queue = None,
    limit: Annotated[int, Parameter(help="At most so many, the oldest first; 0 is all.")] = 50,
    as_json: JsonOption = False,
    where: Where = Where(),  # noqa: B008 -- frozen
) -> int:
    """List dead letters, the oldest first, with what became of them and their arguments."""
    found = where.find()

    async def work(app: Camora) -> tuple[list[DeadLetter], bool]:
        letters: list[DeadLetter] = []
        async for letter in app.dead_letters(queue):
            if limit and len(letters) == limit:
                return letters, True
            letters.append(letter)
        return letters, False

    letters, more = run(work, found)
    rows = [_row(found, letter) for letter in letters]
    if as_json:
        print_json({"letters": rows, "more": more})
        return OK
    if not rows and queue is not None:
        doubt_queue(queue, named_queues(found))
    if not rows:
        say("no dead letters" if queue is None else f"no dead letters of queue {queue}")
        return OK
    _print(rows, [relative(letter.died, found.clock.now_ms()) for letter in letters])
    if more:
        note(f"these are the first {limit}; --limit 0 lists all")
    return OK


def _print(rows: Sequence[dict[str, Any]], died: Sequence[str]) -> None:
    if stdout().width < _WIDE:
        cells = [
            [f"{row['id']}\n{row['queue']}, {when}", f"{_call(row)}\n{_why(row)}"]
            for row, when in zip(rows, died, strict=True)
        ]
        table(["id", "call, and what became of it"], cells, lines=True)
        return
    table(
        ["id", "call", "queue", "died", "why"],
        [[row["id"], _call(row), row["queue"], when, _why(row)] for row, when in zip(rows, died, strict=True)],
    )


def _row(app: Camora, letter: DeadLetter) -> dict[str, Any]:
    message = decoded(app, letter.body)
    error = letter.error
    return {
        "id": letter.id,
        "task": letter.task or (message.task if message else ""),
        "queue": letter.queue,
        "reason": letter.reason,
        "error": None if error is None else {"type": error.type, "text": error.text},
        "attempts": letter.attempts,
        "deliveries": letter.deliveries,
        "died": moment_of(letter.died),
        "arguments": None if message is None else arguments_of(app, message),
    }


def _call(row: dict[str, Any]) -> str:
    if row["arguments"] is None:
        return f"{row['task'] or '?'}(undecodable)"
    return f"{row['task']}({call_text(row['arguments'], limit=60)})"


def _why(row: dict[str, Any]) -> str:
    error = row["error"]
    text = "" if error is None else f"{error['type']}: {error['text']}".splitlines()[0][:200]
    return text if row["reason"] == "failed" and text else f"{row['reason']}: {text}".rstrip(": ")


@app.command
def show(job_id: _Id, /, *, as_json: JsonOption = False, where: Where = Where()) -> int:  # noqa: B008
    """Show one dead letter whole: arguments, headers, error and traceback; exits with 3 when there is none."""
    found = where.find()
    letter = run(lambda app: app.dead_letter(job_id), found)
    if letter is None:
        note(f"there is no dead letter {job_id}; camora why {job_id} says where the job is")
        return NOT_FOUND
    row = {**_row(found, letter), **_whole(found, letter)}
    if as_json:
        print_json(row)
        return OK
    error = row["error"] or {}
    lines = [(name, row[name]) for name in ("task", "queue", "reason", "attempts", "deliveries") if row[name]]
    lines.append(("died", f"{exact(letter.died)} ({relative(letter.died, found.clock.now_ms())})"))
    lines.append(("arguments", call_text(row["arguments"], limit=10_000) if row["arguments"] else row["body"]))
    lines += [("headers", f"{name}: {value}") for name, value in row["headers"].items()]
    lines.append(("error", error.get("traceback", "").rstrip() or f"{error.get('type')}: {error.get('text')}"))
    table(["letter", job_id], lines)
    say(f"requeue it: camora dead requeue {job_id}")
    return OK


def _whole(app: Camora, letter: DeadLetter) -> dict[str, Any]:
    message = decoded(app, letter.body)
    return {
        "error": None if letter.error is None else msgspec.to_builtins(letter.error),
        "headers": dict(message.headers) if message else {},
        "created": moment_of(message.created) if message else None,
        "body": None if message else _raw(app, letter.body),
    }


def _raw(app: Camora, body: bytes) -> str:
    """The body that nobody can read; where secrets travel it may be one of theirs, in a codec that is not ours."""
    if any(task.secrets for task in app.tasks):
        return f"<{len(body)} bytes, not shown: tasks of this app have secret arguments>"
    return body.decode("utf-8", "backslashreplace")


@app.command
def requeue(
    *job_ids: _Id,
    every: _Every = False,
    queue: _Queue = None,
    yes: YesOption = False,
    where: Where = Where(),  # noqa: B008
) -> int:
    """Put dead letters back into their queues, each as a first attempt; exits with 3 when one does not exist."""
    _check_choice("requeue", job_ids, every, queue)
    found = where.find()
    if every and not yes:
        count = run(lambda app: _count(app, queue), found)
        if not confirm(f"Requeue {_which((), queue, count)}?", yes=False):
            say("nothing was requeued")
            return OK

    async def work(app: Camora) -> tuple[int, list[str]]:
        done, missing = 0, []
        with progress("requeueing", total=len(job_ids) or await _count(app, queue) or None) as step:
            async for job_id in _ids(app, job_ids, queue):
                if await app.requeue(job_id):
                    done += 1
                elif job_ids:  # of all, one that is gone was requeued by somebody else
                    missing.append(job_id)
                step()
        return done, missing

    done, missing = run(work, found)
    for job_id in missing:
        note(f"there is no dead letter {job_id}")
    say(f"{done} requeued")
    return NOT_FOUND if missing else OK


async def _ids(app: Camora, given: tuple[str, ...], queue: str | None) -> AsyncIterator[str]:
    for job_id in given:
        yield job_id
    if not given:
        async for letter in app.dead_letters(queue):
            yield letter.id


async def _count(app: Camora, queue: str | None) -> int | None:
    """How many there are, where the broker counts them."""
    try:
        counts = await app.queue_control.counts()
    except UnsupportedCapability:
        return None
    names = counts if queue is None else [queue]
    return sum(counts.get(name, {}).get("dead", 0) for name in names)


@app.command
def purge(
    *job_ids: _Id,
    every: _Every = False,
    queue: _Queue = None,
    yes: YesOption = False,
    where: Where = Where(),  # noqa: B008
) -> int:
    """Delete dead letters for good; exits with 3 when one does not exist."""
    _check_choice("purge", job_ids, every, queue)
    found = where.find()
    if not yes:
        count = None if job_ids else run(lambda app: _count(app, queue), found)
        if not confirm(f"Delete {_which(job_ids, queue, count)} for good?", yes=False):
            say("nothing was deleted")
            return OK

    async def work(app: Camora) -> int:
        return await app.purge_dead_letters(queue, ids=job_ids or None)

    with waiting("deleting …"):
        count = run(work, found)
    if every and not count and queue is not None:
        doubt_queue(queue, named_queues(found))
    say(f"{count} deleted")
    return NOT_FOUND if count < len(set(job_ids)) else OK


def _check_choice(verb: str, job_ids: Sequence[str], every: bool, queue: str | None) -> None:
    if bool(job_ids) == every or (queue is not None and not every):
        raise ConfigurationError(f"camora dead {verb}: name ids, or say --all, or --all --queue NAME")


def _which(job_ids: Sequence[str], queue: str | None, count: int | None) -> str:
    """Which letters are meant, as a question names them; `count` is None where the broker does not say."""
    if job_ids:
        return f"the dead letter {job_ids[0]}" if len(job_ids) == 1 else f"these {len(job_ids)} dead letters"
    number = "" if count is None else f" {count}"
    return f"all{number} dead letters" + (" of all queues" if queue is None else f" of queue {queue}")
