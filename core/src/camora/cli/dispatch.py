"""`camora dispatch …`."""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from camora.cli.arguments import ARGUMENTS, known_task, read_arguments
from camora.cli.common import FAILED, OK, JsonOption, Where, note, print_json, run, say, waiting
from camora.cli.queue_names import doubt_queue, named_queues
from camora.errors import ConfigurationError, ResultError, ResultsDisabled
from camora.options import DispatchOptions
from camora.units import duration

if TYPE_CHECKING:
    from camora.app import Camora
    from camora.job import Job

__all__ = ["dispatch"]


_KEY = "Idempotency key: while a job of the same key is unfinished, that one's id is the answer."
_FROM = """Dispatch a job for each line of this file, "-" is stdin: a JSON object, or a JSON list, of arguments.
Nothing is dispatched when a line is wrong."""
_UNCHECKED = "Dispatch it although the app knows no such task; its arguments are checked where it runs."


def dispatch(
    task: Annotated[str, Parameter(help='The task\'s name, for example "shop.tasks:add".')],
    /,
    *arguments: Annotated[str, Parameter(help=ARGUMENTS)],
    delay: Annotated[str | None, Parameter(help="Run it so much later: 30s, 5m, 1h30m.")] = None,
    eta: Annotated[str | None, Parameter(help="Run it at this moment: 2031-05-01T09:00:00+02:00.")] = None,
    expires: Annotated[str | None, Parameter(help="Drop it if it has not started after this time: 5m.")] = None,
    queue: Annotated[str | None, Parameter(name=["--queue", "-q"], help="Another queue than the task's.")] = None,
    priority: Annotated[int | None, Parameter(help="0 to 9, the largest first.")] = None,
    key: Annotated[str | None, Parameter(help=_KEY)] = None,
    job_id: Annotated[str | None, Parameter(help="Dispatch it under this id.")] = None,
    rows: Annotated[str | None, Parameter(name="--from", allow_leading_hyphen=True, help=_FROM)] = None,
    wait: Annotated[bool, Parameter(negative=(), show_default=False, help="Wait for the result and print it.")] = False,
    timeout: Annotated[str | None, Parameter(help="How long to wait at most: 30s, 5m; default: for ever.")] = None,
    unchecked: Annotated[bool, Parameter(negative=(), show_default=False, help=_UNCHECKED)] = False,
    as_json: JsonOption = False,
    where: Where = Where(),  # noqa: B008 -- frozen
) -> int:
    """Dispatch a job and print its id, or one for each line of a file and print how many.

    Exits with 1 when the job was waited for and did not succeed.
    """
    if rows is not None and (arguments or wait or key or job_id):
        raise ConfigurationError(
            "--from: arguments come from its lines; ARGUMENTS, --wait, --key and --job-id are for one"
        )
    given = {"delay": delay, "eta": eta, "expires": expires, "queue": queue, "priority": priority, "key": key}
    options = _options({**given, "job_id": job_id})
    longest = _seconds("--timeout", timeout)
    app = where.find()
    if not app.broker.capabilities.shared:
        raise ConfigurationError(
            f"{app.broker!r} lives in one process: the job would be gone with this command. Use a broker that "
            "processes share, for example  sqlite:///camora.db  (camora-sql)"
        )
    known = known_task(app, task, unchecked=unchecked)
    if queue is not None:
        doubt_queue(queue, named_queues(app))
    if rows is not None:
        return _many(app, known or task, options, rows, as_json=as_json)
    args, kwargs = read_arguments(arguments, known)

    async def work(app: Camora) -> int:
        job = await app.options(**options).dispatch(known or task, *args, **kwargs)
        if not wait:
            if as_json:
                print_json({"id": job.id, "task": task})
            else:
                say(job.id)
            return OK
        return await _outcome(job, longest, as_json=as_json)

    return run(work, app)


def _many(app: Camora, task: Any, options: dict[str, Any], source: str, *, as_json: bool) -> int:
    from camora.cli.rows import Rows, opened

    with opened(source) as file:
        call = app._signature(task, (), {}).options(**options)  # noqa: SLF001 -- one unit with the app
        rows = Rows(app, call, file, source)
        count = rows.check()
        run(lambda _: rows.dispatch(count), app)
    if as_json:
        print_json({"dispatched": count, "task": call.task.name})
    else:
        say(f"{count} dispatched")
    return OK


async def _outcome(job: Job[Any], timeout: float | None, *, as_json: bool) -> int:
    error = ""
    value: Any = None
    try:
        with waiting(f"waiting for {job.id} …"):
            value = await job.result(timeout)
    except ResultsDisabled as found:
        error = f"{job.id} is dispatched, and nobody can wait for it: {found}"
    except ResultError as found:
        error = str(found)
    if as_json:
        answer = {"id": job.id, "task": job.task, "status": str(await job.status())}
        print_json({**answer, "error": error} if error else {**answer, "result": value})
    elif error:
        note(error)
    else:
        say(json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value))
    return FAILED if error else OK


def _options(given: dict[str, Any]) -> dict[str, Any]:
    options = {name: value for name, value in given.items() if value is not None}
    for name in ("delay", "expires"):
        if name in options:
            options[name] = _seconds(f"--{name}", options[name])
    if "eta" in options:
        options["eta"] = _moment(options["eta"])
    DispatchOptions().merge(options, "dispatch")  # before anything is imported
    return options


def _seconds(option: str, text: str | None) -> float | None:
    try:
        return None if text is None else duration(text)
    except ValueError as error:
        raise ConfigurationError(f"{option}: {error}") from None


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigurationError(
            f"--eta {text!r}: is no moment; write it as 2031-05-01T09:00:00+02:00, or use --delay"
        ) from None
    if moment.tzinfo is None:
        raise ConfigurationError(f"--eta {text!r}: in which zone? Add an offset such as +02:00, or Z for UTC")
    return moment
