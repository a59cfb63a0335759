"""`camora dev`."""

from __future__ import annotations

from typing import Annotated

import attrs
from cyclopts import Parameter

from camora.cli.common import Where, note

__all__ = ["dev"]


def dev(
    app: str | None = None,
    /,
    *,
    queues: Annotated[str | None, Parameter(name=["--queues", "-q"])] = None,
    concurrency: Annotated[int | None, Parameter(name=["--concurrency", "-c"])] = None,
    health: str | None = None,
    log_level: str | None = None,
    where: Where = Where(),  # noqa: B008 -- frozen
) -> None:
    """Run one worker and the app's schedules in this terminal, and start over when a file changes; Ctrl-C ends it.

    How each job ends is logged in one line, unless the app has observers of its own.

    Parameters
    ----------
    app
        Where the app is: module:attribute, for example shop.tasks:app; default: `app =` of camora.toml.
    queues
        Serve only these queues, separated by commas; default: all that the app knows.
    concurrency
        How many jobs run at once; default 100.
    health
        Answer /live and /ready over HTTP at this address, for example 127.0.0.1:8080.
    log_level
        debug, info, warning or error; default info.
    where
        Which app.
    """
    from camora.cli.reloading import run_reloading
    from camora.cli.worker import log_as, work_order

    log_as(log_level, None)
    note("worker and schedules, started over when a file changes; Ctrl-C ends them")
    order = attrs.evolve(work_order(queues, scheduler=True, concurrency=concurrency), show_jobs=True)
    run_reloading(where if app is None else attrs.evolve(where, app=app), order, processes=1, health=health)
