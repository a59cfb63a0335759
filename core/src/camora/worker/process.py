"""A process of the worker's own: how it is set up, runs one worker, and ends or begins anew."""

from __future__ import annotations

import asyncio
import difflib
import gc
import logging
import os
import sys
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NoReturn

from camora.errors import UnsupportedCapability
from camora.settings import WorkerSettings
from camora.worker.draining import bounded
from camora.worker.last_resort import LastResort
from camora.worker.logs import set_up_logging
from camora.worker.order import WorkOrder
from camora.worker.process_health import ProcessHealth
from camora.worker.worker import Ending, Worker

__all__ = ["check_recycling", "run_worker"]

_ENDS = {"job.retried": "debug", "job.dead_lettered": "debug"}
"""Of what a job goes through, only how it ends is shown; the worker logs these by itself."""
_SCHEDULER_STOP = 5.0
"""Seconds for what the scheduler is just sending."""
_LAST_STEPS = 0.1
"""Seconds for the same, and for closing the app, after a second signal."""


def run_worker(
    app: Any,
    order: WorkOrder,
    *,
    health: ProcessHealth | None = None,
    leaving: Callable[[], bool] | None = None,
    dismissed: int = 0,
) -> Ending:
    """Run one worker in this process until it ends; on uvloop where that is installed.

    A process that has done enough calls `leaving`, which says whether another one takes its place; else it begins anew
    by itself, and this does not return. However it ends, the process ends within three seconds then, and within two of
    a second signal: nothing that runs on is waited for. `dismissed` is the exit code of one that was ordered to stop.
    """
    set_up_logging(os.environ)
    _tune_interpreter()
    last_resort = LastResort()
    replaced = False

    def leave() -> None:
        nonlocal replaced
        replaced = leaving is not None and leaving()

    def ends_process(ending: Ending) -> bool:
        # One whose queues were empty closes in order, and may be stopped while it does.
        return ending is not Ending.EMPTY and (ending is not Ending.RECYCLED or replaced)

    runner = asyncio.Runner(loop_factory=_loop_factory())
    try:
        ending = runner.run(_work(app, order, health or ProcessHealth(), last_resort, leave, ends_process))
        if ending is Ending.RECYCLED and not replaced:
            _begin_anew()
        if ending is not Ending.EMPTY:
            last_resort.code = dismissed if ending is Ending.DISMISSED else 0
            last_resort.ended()
            # Closing the runner would wait for the threads of this one's predecessor.
            runner.get_loop().set_default_executor(ThreadPoolExecutor(1))
    finally:
        runner.close()
        last_resort.cancel()
    return ending


async def _work(
    app: Any,
    order: WorkOrder,
    health: ProcessHealth,
    last_resort: LastResort,
    leave: Callable[[], None],
    ends_process: Callable[[Ending], bool],
) -> Ending:
    settings = order.settings_for(app)
    check_recycling(app, settings)
    _hint_at_queues(app, order.queues)
    if not app.broker.capabilities.shared:
        app.logger.warning("%r lives in this process: what other programs dispatch does not come here", app.broker)
    if order.show_jobs and not app.events.active:
        from camora.builtin.observers.logging import LoggingObserver

        app.events.add(LoggingObserver(levels=_ENDS))
    worker: Worker = app.make_worker(queues=order.queues, threads=order.threads, settings=settings)
    health.attach(worker)
    replaceable = app.broker.capabilities.shared  # what lives in this process would end with it
    working = worker.run(
        burst=order.burst,
        leaving=leave if replaceable else None,
        insisted=last_resort.insist,
        ends_process=ends_process,
    )
    try:
        return await (_with_scheduler(app, worker, working) if order.scheduler else working)
    finally:
        await bounded(app.close(), _LAST_STEPS if worker.hurried.is_set() else None)


async def _with_scheduler(app: Any, worker: Worker, run: Coroutine[Any, Any, Ending]) -> Ending:
    """Run both until the worker ends. A scheduler that cannot start ends the worker, and its error is raised."""
    scheduler = app.make_scheduler()
    # Not its `run`: the signals are the worker's.
    starting = asyncio.get_running_loop().create_task(_start(scheduler, app), name="the scheduler's start")
    working = asyncio.get_running_loop().create_task(run, name="the worker")
    try:
        await asyncio.wait([starting, working], return_when=asyncio.FIRST_COMPLETED)
        if not working.done() and starting.exception() is not None:
            worker.stop()
        return await working
    finally:
        scheduler.stop()
        patience = _LAST_STEPS if worker.hurried.is_set() else _SCHEDULER_STOP
        await asyncio.wait([starting], timeout=patience)
        await bounded(scheduler.close(), patience)
        if starting.done():
            starting.result()


async def _start(scheduler: Any, app: Any) -> None:
    try:
        await scheduler.start()
    except UnsupportedCapability as error:
        if app.schedules.declared.by_key:
            raise
        app.logger.warning("no schedules are run: %s", error)


def check_recycling(app: Any, settings: WorkerSettings) -> None:
    """Raises `UnsupportedCapability` for a process that is to be replaced and would take its jobs with it."""
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


def _begin_anew() -> NoReturn:
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
