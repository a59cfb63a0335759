"""Noting what is dispatched, and running none of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING

from camora.testing.dispatched import Dispatched
from camora.testing.worker import START, staged

if TYPE_CHECKING:
    from camora.app import Camora

__all__ = ["record"]


@contextmanager
def record(app: Camora, *, seed: int = 0, start: datetime = START) -> Iterator[Dispatched]:
    """Inside the block, jobs are dispatched into memory, noted, and not run: for tests without an event loop, too.

    `dispatch` and `dispatch_sync` check arguments and pass middleware as ever. Not inside a running `TestWorker`, which
    has `dispatched` itself.
    """
    with staged(app, seed=seed, start=start) as theatre:
        try:
            yield theatre.dispatched
        finally:
            app.close_sync()
