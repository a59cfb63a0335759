"""When a worker process has done enough, and is to begin anew.

Memory that a library leaks, and threads that no function gives back, come back only with the process. What has been
counted here makes the worker take nothing more; it finishes what it has begun, and its process starts over.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from camora.clock import Clock
from camora.context import Context
from camora.errors import ConfigurationError
from camora.settings import WorkerSettings

__all__ = ["STUCK_AFTER", "Recycling", "resident_bytes"]

STUCK_AFTER = 60.0
"""Seconds after which a thread that was abandoned is taken for one that never ends."""

Run = Callable[[Context], Coroutine[Any, Any, Any]]


def resident_bytes() -> int:
    """Memory that this process holds."""
    import psutil

    return int(psutil.Process().memory_info().rss)


class Recycling:
    """Watches one worker. `enough(reason)` is called once, in the worker's loop, when it is to begin anew.

    Raises `ConfigurationError` when the process holds more than `max_memory` before it has begun: it would never work.
    """

    def __init__(
        self,
        settings: WorkerSettings,
        *,
        enough: Callable[[str], None],
        clock: Clock,
        memory: Callable[[], int] = resident_bytes,
    ) -> None:
        self._max_jobs = settings.max_jobs
        self._max_memory = settings.max_memory
        self._enough = enough
        self._clock = clock
        self._memory = memory
        self._begun = 0
        self._told = False
        self._stuck_since: float | None = None
        if self._max_memory is not None and (held := memory()) > self._max_memory:
            raise ConfigurationError(
                f"max_memory = {self._max_memory}: the worker holds {held} bytes before its first job, and would begin "
                "anew for ever; allow it more"
            )

    def counting(self, run: Run) -> Run:
        """The same chain, with its attempts counted where they have a limit."""
        most = self._max_jobs
        if most is None:
            return run

        def counted(context: Context) -> Coroutine[Any, Any, Any]:
            self._begun += 1
            if self._begun >= most:
                self._tell(f"{self._begun} jobs begun, max_jobs is {most}")
            return run(context)

        return counted

    def look(self, abandoned: int) -> None:
        """Look at what nobody tells: memory, and the threads that run on though nobody waits for them."""
        if self._max_memory is not None and (held := self._memory()) > self._max_memory:
            self._tell(f"{held} bytes held, max_memory is {self._max_memory}")
        now = self._clock.monotonic()
        if not abandoned:
            self._stuck_since = None
        elif self._stuck_since is None:
            self._stuck_since = now
        elif now - self._stuck_since >= STUCK_AFTER:
            self._tell(f"{abandoned} abandoned calls still run after {STUCK_AFTER:.0f} s")

    def _tell(self, reason: str) -> None:
        if not self._told:
            self._told = True
            self._enough(reason)
