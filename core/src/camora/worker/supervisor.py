"""Several worker processes: started, watched, restarted, stopped.

Each child is a fresh interpreter that imports the app by name; nothing is forked, so no connection, lock or thread is
shared. A child holds the reading end of a pipe whose writing end only the supervisor has: when the supervisor is gone,
however it went, the pipe ends and the child stops.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import attrs

from camora.errors import ConfigurationError, UnsupportedCapability
from camora.interfaces.broker import Broker
from camora.reference import reference_of
from camora.settings import WorkerSettings

__all__ = ["WorkerProcesses", "child_options", "run_processes", "start_processes"]

CHILD = "CAMORA_CHILD"
EXIT_CONFIGURATION = 2
_QUICK = 5.0
"""A process that lives shorter than this, in seconds, has failed to start."""
_MOST_QUICK = 5


def child_options() -> dict[str, Any] | None:
    """What the supervisor told this process to do; None in any other process."""
    text = os.environ.get(CHILD)
    return None if text is None else json.loads(text)


class ProcessApp(Protocol):
    """What the supervisor needs of an app."""

    logger: logging.Logger
    broker: Broker


class WorkerProcesses:
    """Running worker processes. `stop` and `join` may be called from any thread, and repeated."""

    def __init__(
        self, reference: str, *, count: int, options: Mapping[str, Any], daemon: bool, logger: logging.Logger
    ) -> None:
        self._reference = reference
        self._options = dict(options)
        self._daemon = daemon
        self._logger = logger
        self._lock = threading.Lock()
        self._children: dict[int, subprocess.Popen[bytes]] = {}
        self._stopping = threading.Event()
        self._stops = 0
        self._failed: int | None = None
        self._threads = [
            threading.Thread(target=self._keep, args=(slot,), name=f"camora-process-{slot}", daemon=True)
            for slot in range(count)
        ]

    def start(self) -> None:
        """Start them all."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Let every process finish what runs and end; a second call makes them give everything back at once."""
        self._stopping.set()
        with self._lock:
            self._stops += 1
            # SIGTERM may reach the children from elsewhere as well, and counts once; SIGINT means it.
            number = signal.SIGTERM if self._stops == 1 else signal.SIGINT
            for child in self._children.values():
                with contextlib.suppress(ProcessLookupError):
                    child.send_signal(number)

    def kill(self) -> None:
        """End every process at once, as a power cut would; leases bring their jobs back."""
        self._stopping.set()
        with self._lock:
            for child in self._children.values():
                child.kill()

    def join(self, timeout: float | None = None) -> int:
        """Wait until all have ended, at most `timeout` seconds; returns the exit code: 0, or the first failure's."""
        deadline = None if timeout is None else time.monotonic() + timeout
        for thread in self._threads:
            thread.join(None if deadline is None else max(0.0, deadline - time.monotonic()))
        return self._failed or 0

    @property
    def alive(self) -> bool:
        """True while any process runs or is about to be restarted."""
        return any(thread.is_alive() for thread in self._threads)

    @property
    def pids(self) -> list[int]:
        """The ids of the processes that live now."""
        with self._lock:
            return [child.pid for child in self._children.values() if child.poll() is None]

    def _keep(self, slot: int) -> None:
        quick = 0
        while not self._stopping.is_set():
            started = time.monotonic()
            try:
                child, ours = self._spawn(slot)
            except OSError as error:
                # Out of memory, processes or files: most likely for a moment, and no reason to run with fewer for ever.
                self._logger.warning("worker process %d cannot be started (%s); trying again", slot, error)
                self._stopping.wait(random.uniform(1.0, 3.0))  # noqa: S311 -- jitter
                continue
            code = child.wait()
            with contextlib.suppress(OSError):
                os.close(ours)
            with self._lock:
                self._children.pop(slot, None)
            if code == EXIT_CONFIGURATION:
                self._give_up(code)
            if self._stopping.is_set() or (code == 0 and self._options.get("burst")):
                return
            quick = quick + 1 if time.monotonic() - started < _QUICK else 0
            # Killed by a signal is a job's doing as often as not, and no reason to stop the others.
            if quick >= _MOST_QUICK and code > 0:
                self._logger.error(
                    "worker process %d ended %d times in a row right after its start; giving up", slot, quick
                )
                self._give_up(code)
                return
            pause = random.uniform(0.1, 0.2) * 2 ** min(quick, 6)  # noqa: S311 -- jitter
            self._logger.warning(
                "worker process %d (pid %d) %s; starting another in %.1f s", slot, child.pid, _ended(code), pause
            )
            self._stopping.wait(pause)

    def _give_up(self, code: int) -> None:
        self._failed = self._failed or (code if code > 0 else 1)
        self.stop()

    def _spawn(self, slot: int) -> tuple[subprocess.Popen[bytes], int]:
        theirs, ours = os.pipe()
        told = {**self._options, "app": self._reference, "slot": slot, "pipe": theirs if self._daemon else None}
        paths = [path for path in sys.path if path] + [str(Path.cwd())]
        environment = {**os.environ, CHILD: json.dumps(told), "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths))}
        try:
            with self._lock:
                child = subprocess.Popen(
                    [sys.executable, "-m", "camora.worker.child"],
                    env=environment,
                    pass_fds=(theirs,),
                    # Ctrl-C goes to the whole foreground group; the supervisor alone is to hear it, and passes it on.
                    process_group=0,
                )
                self._children[slot] = child
                if self._stopping.is_set():
                    child.send_signal(signal.SIGTERM)
        except OSError:
            os.close(ours)
            raise
        finally:
            os.close(theirs)
        return child, ours


def _ended(code: int) -> str:
    if code >= 0:
        return f"ended with code {code}"
    with contextlib.suppress(ValueError):
        return f"was killed by {signal.Signals(-code).name}"
    return f"was killed by signal {-code}"


def start_processes(
    app: ProcessApp,
    *,
    processes: int | str,
    threads: Mapping[str, int],
    daemon: bool = True,
    queues: Any = None,
    concurrency: int | None = None,
    settings: WorkerSettings | None = None,
    burst: bool = False,
    reference: str | None = None,
) -> WorkerProcesses:
    """Start worker processes for an app that other processes can import. Raises `ConfigurationError`."""
    if child_options() is not None:
        raise ConfigurationError(
            "a worker process would start worker processes of its own: the module of the app starts them when it is "
            'imported. Put that under  if __name__ == "__main__":'
        )
    if not app.broker.capabilities.shared:
        raise UnsupportedCapability(
            f"{app.broker!r} lives in one process, so other processes would see nothing. "
            "Use Camora('sqlite:///camora.db') (pip install camora-sql), or one process: asyncio.run(app.start())",
            capability="shared",
        )
    reference = reference or reference_of(app)
    if not reference:
        raise ConfigurationError(
            "worker processes import the app by name: bind it to a name at the top level of a module"
        )
    count = (os.cpu_count() or 1) if processes == "auto" else processes
    if not isinstance(count, int) or count < 1:
        raise ConfigurationError(f"processes={processes!r}: a whole number from 1, or 'auto' for one per core")
    if settings is None and concurrency is not None:
        settings = WorkerSettings.from_environment(os.environ, concurrency=concurrency)
    told = {
        "threads": dict(threads),
        "queues": None if queues is None else list(queues),
        "settings": None if settings is None else attrs.asdict(settings),
        "burst": burst,
    }
    workers = WorkerProcesses(reference, count=count, options=told, daemon=daemon, logger=app.logger)
    workers.start()
    return workers


def run_processes(app: ProcessApp, **options: Any) -> None:
    """Start worker processes, pass signals on, and block until they have ended; exits with their code when not 0."""
    workers = start_processes(app, **options)
    with _signals_to(workers):
        while True:
            # In short waits: a signal handler runs only between them.
            code = workers.join(0.5)
            if not workers.alive:
                break
    if code:
        raise SystemExit(code)


@contextlib.contextmanager
def _signals_to(workers: WorkerProcesses) -> Iterator[None]:
    def handle(number: int, frame: Any) -> None:
        del number, frame
        workers.stop()

    previous = {}
    for number in (signal.SIGTERM, signal.SIGINT):
        with contextlib.suppress(ValueError):  # not in the main thread
            previous[number] = signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
