"""How this process is: told from any thread, so that a blocked event loop is reported and not waited for."""

from __future__ import annotations

import asyncio
import os
import threading

from camora.settings import WorkerSettings
from camora.worker.health import WorkerHealth
from camora.worker.worker import Worker

__all__ = ["ProcessHealth"]

_SLACK = 5.0
_PATIENCE = 1.0
"""Seconds within which a loop that is not blocked answers."""


class ProcessHealth:
    """Looks at the worker of this process, once there is one. `look` may be called from any thread but the loop's."""

    def __init__(self) -> None:
        self._worker: Worker | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def attach(self, worker: Worker) -> None:
        """This is the worker; it runs in the loop that runs now."""
        self._loop = asyncio.get_running_loop()
        self._worker = worker

    def longest_stop(self) -> float:
        """Seconds that its worker takes to stop, at most."""
        return (WorkerSettings() if self._worker is None else self._worker.settings).shutdown_timeout

    def look(self) -> WorkerHealth:
        """How it is; waits up to a second for its loop."""
        worker, loop = self._worker, self._loop
        if worker is None or loop is None:
            return WorkerHealth(live=True, ready=False, reasons=("it has not started yet",), pid=os.getpid())
        answers = _answers(loop)
        reasons = _reasons(worker)
        if not answers:
            reasons.insert(0, f"the event loop is blocked by {worker.current(loop)}")
        return WorkerHealth(
            live=answers,
            ready=not reasons,
            reasons=tuple(reasons),
            worker=worker.name,
            pid=os.getpid(),
            state=worker.state,
            queues=worker.queues,
            busy=worker.busy,
            settled=worker.settled,
            polled=None if (since := worker.unanswered()) is None else round(since, 1),
        )


def _answers(loop: asyncio.AbstractEventLoop) -> bool:
    beat = threading.Event()
    try:
        loop.call_soon_threadsafe(beat.set)
    except RuntimeError:  # the loop is closed: the process is about to end
        return True
    return beat.wait(_PATIENCE)


def _reasons(worker: Worker) -> list[str]:
    if worker.state != "running":
        return [_IN_STATE.get(worker.state, worker.state)]
    since = worker.unanswered()
    limit = 2 * worker.settings.poll_interval + _SLACK
    if since is not None and since > limit:
        return [f"the broker has not answered for {since:.0f} s"]
    return []


_IN_STATE = {
    "starting": "it has not started yet",
    "quiet": "it was told to take nothing more",
    "stopping": "it is stopping",
}
