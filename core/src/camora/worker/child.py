"""A worker process: what the supervisor starts."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import sys
import threading
import time
from typing import Any

from camora.errors import CamoraError, ConfigurationError
from camora.reference import import_object
from camora.settings import WorkerSettings
from camora.worker.supervisor import EXIT_CONFIGURATION, child_options

__all__ = ["main", "run_worker"]


def main() -> None:
    """Run the worker that the supervisor asked for; ends the process."""
    told = child_options()
    if told is None:
        sys.exit("camora.worker.child is started by Camora's supervisor, not by hand: use  camora worker")
    settings = WorkerSettings(**told["settings"]) if told["settings"] else None
    if told["pipe"] is not None:
        grace = (settings or WorkerSettings.from_environment(os.environ)).shutdown_timeout
        threading.Thread(target=_end_with_parent, args=(told["pipe"], grace), daemon=True).start()
    try:
        app = import_object(told["app"])
        run_worker(app, queues=told["queues"], threads=told["threads"], settings=settings, burst=told["burst"])
    except ConfigurationError as error:
        print(f"camora: {error}", file=sys.stderr)  # noqa: T201 -- the user's mistake, in one place, without a traceback
        sys.exit(EXIT_CONFIGURATION)
    except CamoraError as error:
        print(f"camora: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(1)


def run_worker(app: Any, *, burst: bool, **options: Any) -> None:
    """Run one worker in this process until it is stopped; on uvloop where that is installed."""
    if not logging.getLogger().handlers:
        logging.basicConfig(
            level=os.environ.get("CAMORA_LOG_LEVEL", "INFO").upper(),
            format="%(asctime)s %(levelname)-7s %(message)s",
            datefmt="%H:%M:%S",
        )
    _tune_interpreter()
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(app.start(burst=burst, **options))


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


def _end_with_parent(pipe: int, grace: float) -> None:
    """Stop as soon as the supervisor is gone: the pipe then has no writer left, and reading it ends."""
    os.read(pipe, 1)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(grace + 5.0)
    os._exit(1)  # it did not stop; nothing that it holds is lost, because leases lapse


if __name__ == "__main__":
    main()
