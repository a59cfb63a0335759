"""A process of the worker's own: how it is set up, runs one worker, and ends or begins anew."""

from __future__ import annotations

import asyncio
import difflib
import gc
import logging
import os
import sys
import threading
from collections.abc import Sequence
from typing import Any, NoReturn

from camora.errors import UnsupportedCapability
from camora.settings import WorkerSettings
from camora.worker.draining import bounded
from camora.worker.logs import set_up_logging
from camora.worker.order import WorkOrder
from camora.worker.process_health import ProcessHealth
from camora.worker.worker import Ending, Worker

__all__ = ["begin_anew", "run_worker"]

_HURRY = 4.0
"""Seconds after a second signal for which the process waits for whatever does not end."""


def run_worker(app: Any, order: WorkOrder, *, health: ProcessHealth | None = None) -> Ending:
    """Run one worker in this process until it ends; on uvloop where that is installed."""
    set_up_logging(os.environ)
    _tune_interpreter()
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(_work(app, order, health or ProcessHealth()))


async def _work(app: Any, order: WorkOrder, health: ProcessHealth) -> Ending:
    settings = order.settings_for(app)
    _check_recycling(app, settings)
    _hint_at_queues(app, order.queues)
    worker: Worker = app.make_worker(queues=order.queues, threads=order.threads, settings=settings)
    health.attach(worker)
    guard = asyncio.get_running_loop().create_task(_end_in_any_case(worker))
    try:
        if order.scheduler:
            return await _with_scheduler(app, worker, burst=order.burst)
        return await worker.run(burst=order.burst)
    finally:
        await bounded(app.close(), 0.5 if worker.hurried.is_set() else None)
        guard.cancel()


async def _with_scheduler(app: Any, worker: Worker, *, burst: bool) -> Ending:
    scheduler = app.make_scheduler()
    scheduling = asyncio.get_running_loop().create_task(scheduler.run(), name="the scheduler")
    try:
        return await worker.run(burst=burst)
    finally:
        scheduler.stop()
        await asyncio.wait([scheduling], timeout=2.0)


def _check_recycling(app: Any, settings: WorkerSettings) -> None:
    if (settings.max_jobs or settings.max_memory) and not app.broker.capabilities.shared:
        raise UnsupportedCapability(
            f"max_jobs and max_memory end this process, and {app.broker!r} would lose its jobs with it. "
            "Use Camora('sqlite:///camora.db') (pip install camora-sql), or leave them out",
            capability="shared",
        )


def _hint_at_queues(app: Any, asked: Sequence[str] | None) -> None:
    """A queue that nothing here names may be another program's, or misspelt."""
    known = sorted({*app.tasks.queues(), *(queue.name for queue in app.queues)})
    for name in asked or ():
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"it names {', '.join(known) or 'none'}"
            app.logger.warning("no task of this app is in queue %r; %s", name, hint)


async def _end_in_any_case(worker: Worker) -> None:
    """Who signals twice does not wait for a broker that is away, a hook or a thread: leases bring back what is held."""
    await worker.hurried.wait()
    timer = threading.Timer(_HURRY, os._exit, (1,))
    timer.daemon = True
    timer.start()


def begin_anew() -> NoReturn:
    """Start this program over in this very process: same id, same arguments, nothing left in memory."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 -- ourselves


def _tune_interpreter() -> None:
    """Settings for a process that is Camora's own; an embedded worker leaves its program's interpreter alone."""
    # The collector is to pass over modules, and to look seldom: half of its time goes into what never goes away.
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)
    # The loop and a broker's thread hand work to each other: 5 ms, the default, is a long wait for one's turn.
    sys.setswitchinterval(0.001)


def _loop_factory() -> Any:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop
