"""`camora demo`."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Callable
from typing import Annotated, Any

from cyclopts import Parameter

from camora.app import Camora
from camora.cli.codes import OK
from camora.cli.output import progress, say, table
from camora.context import Context
from camora.errors import ResultError
from camora.job import Job
from camora.retry import RetryPolicy

__all__ = ["demo"]


def demo(*, jobs: Annotated[int, Parameter(help="How many jobs to run.")] = 60) -> int:
    """Show jobs, retries and dead letters at work: in one process, in memory, in a few seconds."""
    say(f"A worker in this process, an app with three tasks, {jobs} jobs; nothing is left behind.")
    asyncio.run(_show(make_app(), max(1, jobs)))
    say("Now begin your own:  camora init")
    return OK


def make_app() -> Camora:
    """The app of the demonstration: a task that works, one that needs patience, one that never will."""
    logger = logging.Logger("camora.demo")  # noqa: LOG001 -- one that nobody listens to, apart from all others
    logger.addHandler(logging.NullHandler())
    app = Camora("memory://", name="demo", logger=logger)

    @app.task(name="resize")
    async def resize(number: int) -> str:
        await asyncio.sleep(0.05 + number % 7 * 0.05)
        return f"{number}.png"

    @app.task(name="call-api", retry_policy=RetryPolicy(max_tries=4, delay=0.2, mode="exponential", on=(OSError,)))
    async def call_api(number: int, context: Context) -> str:
        await asyncio.sleep(0.05)
        if context.attempt <= number // 3 % 3:
            raise ConnectionResetError("the other side hung up")
        return f"answer {number}"

    @app.task(name="divide", retry_policy=RetryPolicy(max_tries=2, delay=0.3, on=(ZeroDivisionError,)))
    async def divide(number: int) -> float:
        return number / 0

    return app


async def _show(app: Camora, count: int) -> None:
    names = [("divide" if number % 20 == 9 else "call-api" if number % 3 == 0 else "resize") for number in range(count)]
    async with app, app.worker(concurrency=8):
        jobs = [await app.dispatch(name, number=number) for number, name in enumerate(names)]
        with progress("running", total=count) as step:
            rows = await asyncio.gather(*(_row(job, step) for job in jobs))
        _summary(rows)
        letters = [letter async for letter in app.dead_letters()]
        if letters:
            say(f"{len(letters)} jobs used up their tries, and wait in the dead letters (camora dead, camora why ID):")
            errors = [(letter.id, letter.task, letter.error.line if letter.error else "") for letter in letters[:3]]
            table(["id", "task", "error"], errors)


async def _row(job: Job[Any], step: Callable[[], object]) -> tuple[str, str, int]:
    with contextlib.suppress(ResultError):
        await job.result()
    info = await job.info()
    step()
    return info.task, str(info.status), info.attempts


def _summary(rows: list[tuple[str, str, int]]) -> None:
    counts = Counter((task, status) for task, status, _ in rows)
    attempts: Counter[tuple[str, str]] = Counter()
    for task, status, tries in rows:
        attempts[task, status] += tries
    table(
        ["task", "status", "jobs", "attempts", "retries"],
        [(*key, count, attempts[key], attempts[key] - count) for key, count in sorted(counts.items())],
        right=["jobs", "attempts", "retries"],
    )
