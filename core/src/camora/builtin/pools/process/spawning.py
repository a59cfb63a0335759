"""How a pool's process is started: a fresh interpreter, deaf to Ctrl-C from its first moment."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from multiprocessing.context import SpawnContext, SpawnProcess
from typing import Any

__all__ = ["DEAF_TO", "Spawning"]

DEAF_TO = frozenset({signal.SIGINT, signal.SIGTERM})
"""Signals that a terminal or a service manager sends to the whole group: the parent decides what they mean."""
SILENT = 256
"""Stands for an exit code of 0 where pebble reads it: to pebble that is no death, and it would wait for ever."""


class _Process(SpawnProcess):
    """A process that is ended with SIGKILL, because a function may hold any other signal off for seconds."""

    def start(self) -> None:
        """Start it with `DEAF_TO` blocked, until it has handlers of its own."""
        with _blocked():
            super().start()

    def terminate(self) -> None:
        """Kill: there is nothing to be gentle with, a call that is stopped has no second chance."""
        self.kill()

    @property
    def exitcode(self) -> int | None:
        """The exit code as pebble is to see it."""
        return SILENT if super().exitcode == 0 else super().exitcode


class Spawning(SpawnContext):
    """multiprocessing's spawn context for one pool of pebble's; remembers the last process it made."""

    def __init__(self) -> None:
        super().__init__()
        self.last: _Process | None = None

    def Process(self, *args: Any, **kwargs: Any) -> _Process:  # type: ignore[override]  # noqa: N802 -- their name
        """Make one, not yet started."""
        self.last = _Process(*args, **kwargs)
        return self.last

    def exit_code(self) -> int | None:
        """How the last process ended: negative is a signal; None while it lives, or when there is none."""
        code = None if self.last is None else self.last.exitcode
        return 0 if code == SILENT else code


@contextlib.contextmanager
def _blocked() -> Iterator[None]:
    """Signals blocked in this thread, and so in what it starts."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, DEAF_TO)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
