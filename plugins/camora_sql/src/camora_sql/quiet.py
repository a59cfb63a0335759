"""Alembic tells the log what it does, from its import on; here it only writes statements down, and nobody asked."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterator

__all__ = ["quiet"]

_LOGGERS = ("alembic.runtime.migration", "alembic.runtime.plugins")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """What Alembic tells in this thread is left out; migrations of others, in other threads, go on telling."""
    thread = threading.get_ident()

    def is_elsewhere(record: logging.LogRecord) -> bool:
        return record.thread != thread

    loggers = [logging.getLogger(name) for name in _LOGGERS]
    for logger in loggers:
        logger.addFilter(is_elsewhere)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(is_elsewhere)
