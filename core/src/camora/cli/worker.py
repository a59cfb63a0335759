"""`camora worker`."""

from __future__ import annotations

import os
from typing import Annotated, Any

from cyclopts import Parameter

__all__ = ["worker"]


def worker(
    app: str,
    *,
    queues: Annotated[str | None, Parameter(name=["--queues", "-q"])] = None,
    processes: Annotated[str, Parameter(name=["--processes", "-p"])] = "1",
    concurrency: Annotated[int | None, Parameter(name=["--concurrency", "-c"])] = None,
    burst: Annotated[bool, Parameter(negative=())] = False,
    log_level: str = "info",
) -> None:
    """Run workers until SIGTERM or Ctrl-C; the first lets running jobs finish, the second gives them back at once.

    Parameters
    ----------
    app
        Where the app is: module:attribute, for example shop.tasks:app.
    queues
        Serve only these queues, separated by commas; default: all that the app knows.
    processes
        How many worker processes; "auto" is one per core.
    concurrency
        How many jobs one process runs at once; default 100.
    burst
        End when the queues hold nothing that is due.
    log_level
        debug, info, warning or error.
    """
    from camora.app import Camora
    from camora.errors import ConfigurationError
    from camora.reference import import_object
    from camora.settings import WorkerSettings
    from camora.worker.child import run_worker

    level = log_level.upper()
    if level not in ("DEBUG", "INFO", "WARNING", "ERROR"):
        raise ConfigurationError(f"--log-level {log_level!r}: one of debug, info, warning, error")
    os.environ["CAMORA_LOG_LEVEL"] = level
    found: Any = import_object(app)
    if not isinstance(found, Camora):
        raise ConfigurationError(f"app {app!r}: is a {type(found).__name__}, not a Camora")
    settings = WorkerSettings.from_environment(os.environ, concurrency=concurrency)
    names = None if queues is None else [name.strip() for name in queues.split(",") if name.strip()]
    count = _processes(processes, settings.processes)
    if count == 1:
        run_worker(found, queues=names, settings=settings, burst=burst)
    else:
        from camora.worker.supervisor import run_processes

        run_processes(found, processes=count, threads={}, queues=names, settings=settings, burst=burst, reference=app)


def _processes(text: str, configured: int) -> int:
    from camora.errors import ConfigurationError

    if text == "auto":
        return os.cpu_count() or 1
    if not text.isdecimal() or int(text) < 1:
        raise ConfigurationError(f"--processes {text!r}: a whole number from 1, or auto")
    return int(text) if text != "1" else configured
