"""`camora workers …`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import cyclopts
import msgspec

from camora.cli.common import NOT_FOUND, OK, JsonOption, Where, note, print_json, run, say, table
from camora.errors import ConfigurationError, UnsupportedCapability

if TYPE_CHECKING:
    from camora.app import Camora
    from camora.interfaces.workers import Order, WorkerDirectory, WorkerInfo

__all__ = ["app"]

app = cyclopts.App(name="workers", help="List workers, quiet or stop them; without a word, list them.")

_Names = Annotated[str, cyclopts.Parameter(help="The worker's name, or the beginning of it.")]
_All = Annotated[
    bool, cyclopts.Parameter(name="--all", negative=(), show_default=False, help="All workers of this app's broker.")
]


_NOBODY = "no worker has reported in the last 15 seconds"
_COLUMNS = ("worker", "state", "queues", "jobs", "cpu", "memory", "polled")
_NUMBERS = ("jobs", "cpu", "memory", "polled")


@app.default
@app.command(name="list")
def list_workers(*, as_json: JsonOption = False, where: Where = Where()) -> int:  # noqa: B008 -- frozen
    """List the workers and schedulers that have reported in the last 15 seconds, and the jobs that they run."""
    found = run(_infos, where.find())
    if as_json:
        print_json({"workers": [msgspec.to_builtins(info) for info in found]})
    elif not found:
        say(_NOBODY)
    else:
        now = datetime.now(UTC).timestamp() * 1000
        table(list(_COLUMNS), [_row(info, now) for info in found], right=_NUMBERS)
        running = sorted(((job, info) for info in found for job in info.running), key=lambda pair: pair[0].since)
        if running:
            say("")
            rows = [[job.id, job.task, job.queue, _ago(job.since, now), info.name] for job, info in running]
            table(["running job", "task", "queue", "for", "worker"], rows, right=["for"])
    return OK


@app.command
def quiet(*names: _Names, all_: _All = False, as_json: JsonOption = False, where: Where = Where()) -> int:  # noqa: B008
    """Let workers take nothing more; what runs goes on."""
    return _order(names, "quiet", everybody=all_, as_json=as_json, where=where)


@app.command
def resume(*names: _Names, all_: _All = False, as_json: JsonOption = False, where: Where = Where()) -> int:  # noqa: B008
    """Let quiet workers take jobs again."""
    return _order(names, "resume", everybody=all_, as_json=as_json, where=where)


@app.command
def stop(*names: _Names, all_: _All = False, as_json: JsonOption = False, where: Where = Where()) -> int:  # noqa: B008
    """Let workers finish what runs and end; nobody replaces them."""
    return _order(names, "stop", everybody=all_, as_json=as_json, where=where)


def _order(names: Sequence[str], order: Order, *, everybody: bool, as_json: bool, where: Where) -> int:
    if bool(names) == everybody:
        raise ConfigurationError(f"camora workers {order}: name the workers (camora workers lists them), or say --all")
    told: list[str] = []

    async def work(app: Camora) -> int:
        async with _directory(app) as directory:
            chosen, code = _chosen(names, [info.name for info in await directory.list()], everybody=everybody)
            for name in chosen:
                if await directory.order(name, order):
                    told.append(name)
                else:
                    note(f"{name} has gone")
                    code = NOT_FOUND
            return code

    code = run(work, where.find())
    if as_json:
        print_json({"order": order, "workers": told})
    else:
        for name in told:
            say(f"{name}: told to {_SPOKEN[order]}; it hears it with its next report, within 5 seconds")
    return code


def _chosen(names: Sequence[str], known: Sequence[str], *, everybody: bool) -> tuple[list[str], int]:
    if everybody:
        if not known:
            note(_NOBODY)
        return list(known), OK
    chosen, code = [], OK
    for name in names:
        matches = [name] if name in known else [one for one in known if one.startswith(name)]
        if len(matches) == 1:
            chosen += matches
        else:
            note(_unclear(name, matches))
            code = NOT_FOUND
    return list(dict.fromkeys(chosen)), code


_SPOKEN = {"quiet": "be quiet", "resume": "resume", "stop": "stop"}


def _unclear(name: str, matches: Sequence[str]) -> str:
    if matches:
        return f"{name!r} may be each of {', '.join(matches)}: write more of it"
    return f"there is no worker {name!r}; camora workers lists them"


async def _infos(app: Camora) -> Sequence[WorkerInfo]:
    async with _directory(app) as directory:
        return await directory.list()


@asynccontextmanager
async def _directory(app: Camora) -> AsyncIterator[WorkerDirectory]:
    from camora.connections import companion_of

    directory: WorkerDirectory | None = companion_of(app.broker, app.results, "own_workers")
    if directory is None:
        raise UnsupportedCapability(
            f"neither {app.broker!r} nor the result backend keeps a directory of workers. "
            "Use Camora('sqlite:///camora.db') (pip install camora-sql)",
            capability="workers",
        )
    try:
        await directory.open()
        yield directory
    finally:
        await directory.close()


def _row(info: WorkerInfo, now: float) -> list[Any]:
    if info.kind != "worker":
        return [info.name, info.state, "·", "·", "·", "·", _ago(info.polled, now)]
    return [
        info.name,
        info.state,
        ", ".join(info.queues),
        f"{info.busy}/{info.concurrency}",
        f"{info.cpu:.0%}",
        f"{info.memory / 1_000_000:.0f} MB",
        _ago(info.polled, now),
    ]


def _ago(moment: int, now: float) -> str:
    if not moment:
        return "never"
    seconds = max(0.0, (now - moment) / 1000)
    for length, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= length:
            return f"{seconds / length:.0f}{unit}"
    return f"{seconds:.0f}s"
