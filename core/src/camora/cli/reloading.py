"""A worker that starts over when its app's files change."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from camora.cli.common import Where
from camora.errors import ConfigurationError

if TYPE_CHECKING:
    from camora.settings import WorkerSettings
    from camora.worker.order import WorkOrder
    from camora.worker.supervisor import WorkerProcesses

__all__ = ["run_reloading"]

_LONGEST_STOP = 5.0
"""Seconds that running jobs get when a file has changed; what is given back then runs under the new code."""


def run_reloading(
    where: Where, order: WorkOrder, *, processes: int | None, health: str | None = None, ready_file: Path | None = None
) -> None:
    """Run worker processes, restarted on change, until they are stopped.

    The app is imported by its processes only: what is wrong with its files today may be mended in a moment.
    """
    from camora.worker.endpoints import endpoints
    from camora.worker.logs import set_up_logging
    from camora.worker.supervisor import WorkerProcesses, end_with, signals_to

    set_up_logging(os.environ)
    logger = logging.getLogger("camora")
    logging.getLogger("watchfiles").setLevel(logging.WARNING)
    reference, configuration, settings = _reference(where)
    workers = WorkerProcesses(
        reference,
        count=processes or settings.processes,
        order=attrs.evolve(order, longest_stop=_LONGEST_STOP),
        daemon=True,
        logger=logger,
        reloads=True,
    )
    with _watching(reference, configuration, workers, logger):
        workers.start()
        with signals_to(workers), endpoints(workers.look, address=health, ready_file=ready_file, logger=logger):
            end_with(workers)


def _reference(where: Where) -> tuple[str, Path | None, WorkerSettings]:
    """Which app, without importing it; the camora.toml in use, and what it says of workers."""
    from camora import config
    from camora.settings import WorkerSettings

    if where.profile is not None:
        os.environ["CAMORA_PROFILE"] = where.profile
    path = where.config or config.find()
    if where.app is not None:
        return where.app, path, WorkerSettings.from_environment(os.environ)
    if path is None:
        raise ConfigurationError(
            f"which app? There is no camora.toml in {Path.cwd()} or above: say  camora worker module:attribute"
        )
    read = config.read(path, profile=where.profile)
    if not read.app:
        raise ConfigurationError(f'{path} names no app to reload: write  app = "tasks:app"  into it')
    sys.path.insert(0, str(path.resolve().parent))  # where the app lies, for the processes too
    return read.app, path, read.worker


@contextmanager
def _watching(
    reference: str, configuration: Path | None, workers: WorkerProcesses, logger: logging.Logger
) -> Iterator[None]:
    from camora.worker.reload import FileWatch, folders_of

    folders = folders_of(reference, here=Path.cwd(), configuration=configuration)

    def changed(paths: Sequence[Path]) -> None:
        names = ", ".join(_near(path) for path in paths[:3]) + (" …" if len(paths) > 3 else "")
        logger.info("%s changed, starting over", names)
        workers.restart()

    watch = FileWatch(folders, changed, logger=logger)
    watch.start()
    logger.info("watching %s", ", ".join(str(folder) for folder in folders))
    try:
        yield
    finally:
        watch.close()


def _near(path: Path) -> str:
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)
