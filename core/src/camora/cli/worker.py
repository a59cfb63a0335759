"""`camora worker`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import attrs
from cyclopts import Parameter

from camora.cli.common import Where
from camora.errors import ConfigurationError

if TYPE_CHECKING:
    from camora.app import Camora
    from camora.worker.order import WorkOrder

__all__ = ["log_as", "work_order", "worker"]

_Flag = Parameter(negative=(), show_default=False)


def worker(
    app: str | None = None,
    /,
    *,
    queues: Annotated[str | None, Parameter(name=["--queues", "-q"])] = None,
    processes: Annotated[str | None, Parameter(name=["--processes", "-p"])] = None,
    concurrency: Annotated[int | None, Parameter(name=["--concurrency", "-c"])] = None,
    burst: Annotated[bool, _Flag] = False,
    reload: Annotated[bool, _Flag] = False,
    scheduler: Annotated[bool, _Flag] = False,
    health: str | None = None,
    ready_file: Path | None = None,
    max_jobs: int | None = None,
    max_memory: str | None = None,
    log_level: str | None = None,
    log_format: str | None = None,
    where: Where = Where(),  # noqa: B008 -- frozen
) -> None:
    """Run workers until SIGTERM or Ctrl-C; the first lets running jobs finish, the second gives them back at once.

    Parameters
    ----------
    app
        Where the app is: module:attribute, for example shop.tasks:app; default: `app =` of camora.toml.
    queues
        Serve only these queues, separated by commas; default: all that the app knows.
    processes
        How many worker processes; "auto" is one per core; default 1.
    concurrency
        How many jobs one process runs at once; default 100.
    burst
        End when the queues hold nothing that is due.
    reload
        Start over when a file of the app changes, for development.
    scheduler
        Dispatch what the app's schedules say, too.
    health
        Answer /live and /ready over HTTP at this address, for example 127.0.0.1:8080.
    ready_file
        Keep this file there while the worker is ready.
    max_jobs
        Begin anew, in a fresh process, after so many jobs.
    max_memory
        Begin anew when a process holds more than this, for example 512MB.
    log_level
        debug, info, warning or error; default info.
    log_format
        text or json; default text.
    where
        Which app.
    """
    log_as(log_level, log_format)
    order = work_order(
        queues,
        burst=burst,
        scheduler=scheduler,
        concurrency=concurrency,
        max_jobs=max_jobs,
        max_memory=None if max_memory is None else _bytes(max_memory),
    )
    where = where if app is None else attrs.evolve(where, app=app)
    count = _processes(processes)
    if reload:
        from camora.cli.reloading import run_reloading

        run_reloading(where, order, processes=count, health=health, ready_file=ready_file)
        return
    from camora.worker.process import check_recycling

    found = where.find()
    settings = order.settings_for(found)
    check_recycling(found, settings)
    count = count or settings.processes
    # One that is to be replaced needs somebody to replace it while it still runs.
    if count == 1 and settings.max_jobs is None and settings.max_memory is None:
        _run_here(found, order, health, ready_file)
    else:
        _run_processes(found, order, count, where.app, health, ready_file)


def _run_here(app: Camora, order: WorkOrder, address: str | None, ready_file: Path | None) -> None:
    from camora.worker.endpoints import endpoints
    from camora.worker.health import Health
    from camora.worker.logs import set_up_logging
    from camora.worker.process import run_worker
    from camora.worker.process_health import ProcessHealth

    set_up_logging(os.environ)
    health = ProcessHealth()
    with endpoints(lambda: Health.of(health.look()), address=address, ready_file=ready_file, logger=app.logger):
        run_worker(app, order, health=health)


def _run_processes(
    app: Camora, order: WorkOrder, count: int, reference: str | None, address: str | None, ready_file: Path | None
) -> None:
    from camora.worker.endpoints import endpoints
    from camora.worker.logs import set_up_logging
    from camora.worker.supervisor import end_with, order_processes, signals_to

    set_up_logging(os.environ)
    workers = order_processes(app, order, processes=count, reference=reference)
    with (
        signals_to(workers),
        endpoints(workers.look, address=address, ready_file=ready_file, logger=app.logger),
    ):
        end_with(workers)


def log_as(level: str | None, shape: str | None) -> None:
    """Leave in the environment, where worker processes read it, how to log. Raises `ConfigurationError`."""
    from camora.worker.logs import FORMAT, FORMATS, LEVEL, LEVELS, one_of

    if level is not None:
        os.environ[LEVEL] = one_of(LEVELS, level, "--log-level")
    if shape is not None:
        os.environ[FORMAT] = one_of(FORMATS, shape, "--log-format")


def work_order(
    queues: str | None, *, burst: bool = False, scheduler: bool = False, **settings: int | None
) -> WorkOrder:
    """What the command line says; settings that are None were not given."""
    from camora.worker.order import WorkOrder

    return WorkOrder(
        queues=None if queues is None else [name.strip() for name in queues.split(",") if name.strip()],
        given={name: value for name, value in settings.items() if value is not None},
        burst=burst,
        scheduler=scheduler,
    )


def _bytes(text: str) -> int:
    from camora.units import size

    try:
        return size(text)
    except ValueError as error:
        raise ConfigurationError(f"--max-memory {error}") from None


def _processes(text: str | None) -> int | None:
    if text is None:
        return None
    if text == "auto":
        return os.cpu_count() or 1
    if not text.isdecimal() or int(text) < 1:
        raise ConfigurationError(f"--processes {text!r}: a whole number from 1, or auto")
    return int(text)
