"""Where a worker's health can be seen from outside."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from camora.worker.health import Health
from camora.worker.health_server import HealthServer
from camora.worker.ready_file import ReadyFile

__all__ = ["endpoints"]


@contextmanager
def endpoints(
    look: Callable[[], Health], *, address: str | None, ready_file: Path | None, logger: logging.Logger
) -> Iterator[None]:
    """Inside the block, an HTTP endpoint and a file show what `look` says, where they were asked for.

    Raises `ConfigurationError` for an address or a path that cannot be had.
    """
    with ExitStack() as stack:
        if address is not None:
            server = HealthServer(address, look, logger=logger)
            stack.callback(server.close)
            server.start()
        if ready_file is not None:
            file = ReadyFile(ready_file, look, logger=logger)
            stack.callback(file.close)
            file.start()
        yield
