"""Several worker processes: started, watched, restarted, stopped.

Each child is a fresh interpreter that imports the app by name; nothing is forked, so no connection, lock or thread is
shared. Supervisor and child hold the two ends of a line: when the supervisor is gone, however it went, the line ends
and the child stops.
"""

from __future__ import annotations

import contextlib
import logging
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import attrs
import msgspec

from camora.errors import ConfigurationError, UnsupportedCapability
from camora.interfaces.broker import Broker
from camora.reference import reference_of
from camora.settings import WorkerSettings
from camora.worker.health import Health, WorkerHealth
from camora.worker.link import SupervisorEnd, new_link
from camora.worker.order import WorkOrder
from camora.worker.stop_signals import Repeats

__all__ = [
    "EXIT_CONFIGURATION",
    "EXIT_DISMISSED",
    "Assignment",
    "WorkerProcesses",
    "assignment",
    "check_shared",
    "end_with",
    "order_processes",
    "run_processes",
    "signals_to",
    "start_processes",
]

CHILD = "CAMORA_CHILD"
EXIT_CONFIGURATION = 2
EXIT_DISMISSED = 86
"""It was ordered to stop, through the directory of workers, and nobody is to come in its place."""
_QUICK = 5.0
"""A process that lives shorter than this, in seconds, has failed to start."""
_MOST_QUICK = 5
_INSISTED = 2.0
"""Seconds that a process gets after a second stop; it may be frozen."""
_LAST_WORDS = 1.0
"""Seconds for what a process said right before its end; its line may be held open by children of its own."""
_ANSWER = 2.5
"""Seconds within which a process says how it is, its loop blocked or not."""


@attrs.frozen(kw_only=True)
class Assignment:
    """What the supervisor tells a process. `link` is the file descriptor of its end of the line."""

    app: str
    slot: int
    count: int
    link: int
    daemon: bool
    order: WorkOrder


def assignment() -> Assignment | None:
    """What the supervisor told this process to do; None in any other process."""
    text = os.environ.get(CHILD)
    return None if text is None else msgspec.json.decode(text, type=Assignment)


class ProcessApp(Protocol):
    """What the supervisor needs of an app."""

    logger: logging.Logger
    broker: Broker


class _Child:
    """A process that runs, and the line to it."""

    def __init__(self, slot: int, process: subprocess.Popen[bytes], link: SupervisorEnd) -> None:
        self.slot = slot
        self.process = process
        self.link = link
        self.leaving = False
        """It finishes what it has begun; another one has its place."""
        self._killer: threading.Timer | None = None

    def __str__(self) -> str:
        return f"worker process {self.slot} (pid {self.process.pid})"

    def signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)

    def kill_after(self, seconds: float) -> None:
        """Kill it if it has not ended by then; leases bring back what it had. The last call counts."""
        if self._killer is not None:
            self._killer.cancel()
        self._killer = threading.Timer(seconds, self.process.kill)
        self._killer.daemon = True
        self._killer.start()

    def health(self) -> WorkerHealth:
        """As it says, or what its silence says."""
        answer = self.link.ask(_ANSWER)
        if answer is None:
            return WorkerHealth(live=False, ready=False, reasons=("it does not answer",), pid=self.process.pid)
        return answer

    def wait(self) -> int:
        """Wait for its end; the exit code."""
        code = self.process.wait()
        self.link.heard_all(_LAST_WORDS)
        return code

    def ended(self) -> None:
        """Let go of what belongs to it."""
        if self._killer is not None:
            self._killer.cancel()
        self.link.close()


class WorkerProcesses:
    """Running worker processes. Every method may be called from any thread, and repeated.

    With `reloads`, a process that fails is not started again before `restart` says that something has changed.
    """

    def __init__(
        self,
        reference: str,
        *,
        count: int,
        order: WorkOrder,
        daemon: bool,
        logger: logging.Logger,
        reloads: bool = False,
    ) -> None:
        self._reference = reference
        self._order = order
        self._daemon = daemon
        self._reloads = reloads
        self._logger = logger
        self._lock = threading.Lock()
        self._count = count
        self._children: list[_Child] = []
        self._stopping = threading.Event()
        self._stops = 0
        self._generation = 0
        """How often everything was to be restarted."""
        self._changed = threading.Condition()
        self._failed: int | None = None
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Start them all."""
        with self._lock:
            for slot in range(self._count):
                self._start_keeper(slot)

    def _start_keeper(self, slot: int) -> None:
        name = f"camora-process-{slot}"
        thread = threading.Thread(target=self._keep, args=(slot,), name=name, daemon=True)
        self._threads = [*(other for other in self._threads if other.is_alive()), thread]
        thread.start()

    def stop(self) -> None:
        """Let every process finish what runs and end; a second call makes them give everything back at once."""
        self._stopping.set()
        with self._lock:
            self._stops += 1
            # SIGTERM may reach the children from elsewhere as well, and counts once; SIGINT means it.
            number = signal.SIGTERM if self._stops == 1 else signal.SIGINT
            for child in self._children:
                child.signal(number)
                if self._stops == 2:
                    child.kill_after(_INSISTED)
        with self._changed:
            self._changed.notify_all()

    def kill(self) -> None:
        """End every process at once, as a power cut would; leases bring their jobs back."""
        self._stopping.set()
        with self._lock:
            for child in self._children:
                child.process.kill()

    def restart(self) -> None:
        """Let every process drain, and start another one in its place."""
        with self._changed:
            self._generation += 1
            self._changed.notify_all()
        patience = (self._order.longest_stop or WorkerSettings().shutdown_timeout) + 5.0
        with self._lock:
            for child in self._children:
                child.signal(signal.SIGTERM)
                child.kill_after(patience)

    def join(self, timeout: float | None = None) -> int:
        """Wait until all have ended, at most `timeout` seconds; returns the exit code: 0, or the first failure's."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while (thread := self._living()) is not None and (deadline is None or time.monotonic() < deadline):
            thread.join(None if deadline is None else max(0.0, deadline - time.monotonic()))
        return self._failed or 0

    @property
    def alive(self) -> bool:
        """True while any process runs or is about to be restarted."""
        return self._living() is not None

    def _living(self) -> threading.Thread | None:
        with self._lock:
            return next((thread for thread in self._threads if thread.is_alive()), None)

    @property
    def pids(self) -> list[int]:
        """The ids of the processes that live now."""
        with self._lock:
            return [child.process.pid for child in self._children if child.process.poll() is None]

    def look(self) -> Health:
        """How they all are, but for those that leave; waits a few seconds for those that do not answer."""
        with self._lock:
            by_slot = {child.slot: child for child in self._children if not child.leaving}
        with ThreadPoolExecutor(self._count) as threads:
            return Health.of(*threads.map(_health_of, map(by_slot.get, range(self._count))))

    def _keep(self, slot: int) -> None:
        """Keep a place filled until all is over or its process leaves it to another."""
        self._wait_for_room(slot)
        quick = 0
        while not self._stopping.is_set():
            started, generation = time.monotonic(), self._generation
            child = self._spawn_or_rest(slot)
            if child is None:
                continue
            code = self._outlive(child)
            if child.leaving or self._is_over(slot, code, generation):
                return
            if generation != self._generation or self._stopping.is_set():
                continue
            if self._reloads and code > 0:
                self._logger.error("worker process %d %s; it starts again when a file changes", slot, _ended(code))
                self._wait_for_change(generation)
                continue
            quick = quick + 1 if time.monotonic() - started < _QUICK else 0
            # Killed by a signal is a job's doing as often as not, and no reason to stop the others.
            if quick >= _MOST_QUICK and code > 0:
                self._logger.error(
                    "worker process %d ended %d times in a row right after its start; giving up", slot, quick
                )
                self._give_up(code)
                return
            pause = random.uniform(0.1, 0.2) * 2 ** min(quick, 6)  # noqa: S311 -- jitter
            self._logger.warning("%s %s; starting another in %.1f s", child, _ended(code), pause)
            self._stopping.wait(pause)

    def _spawn_or_rest(self, slot: int) -> _Child | None:
        try:
            return self._spawn(slot)
        except OSError as error:
            # Out of memory, processes or files: most likely for a moment, and no reason to run with fewer for ever.
            self._logger.warning("worker process %d cannot be started (%s); trying again", slot, error)
            self._stopping.wait(random.uniform(1.0, 3.0))  # noqa: S311 -- jitter
            return None

    def _outlive(self, child: _Child) -> int:
        """Wait for its end; the exit code."""
        code = child.wait()
        with self._lock:
            self._children.remove(child)
        with self._changed:
            self._changed.notify_all()
        child.ended()
        if child.leaving and code not in (0, EXIT_DISMISSED):
            self._logger.warning("%s, which was to be replaced, %s", child, _ended(code))
        return code

    def _wait_for_room(self, slot: int) -> None:
        """Of processes that finish long jobs there shall not be more and more: two are waited for, whichever ends."""

        def has_room() -> bool:
            return self._stopping.is_set() or self._leaving(slot) <= 1

        with self._changed:
            self._changed.wait_for(has_room)

    def _leaving(self, slot: int) -> int:
        return sum(child.leaving and child.slot == slot for child in list(self._children))

    def _let_leave(self, child: _Child) -> None:
        """Another process takes its place now, or as soon as no more than one is leaving it."""
        with self._lock:
            if child not in self._children:
                return
            child.leaving = True
            self._start_keeper(child.slot)

    def _is_over(self, slot: int, code: int, generation: int) -> bool:
        """True when nobody is to come in its place."""
        if code == EXIT_DISMISSED:
            self._logger.info("worker process %d was ordered to stop, and is not replaced", slot)
            return True
        if code == 0 and self._order.burst and generation == self._generation:
            return True
        if code == EXIT_CONFIGURATION and not self._reloads:
            self._give_up(code)
            return True
        return self._stopping.is_set()

    def _wait_for_change(self, generation: int) -> None:
        with self._changed:
            self._changed.wait_for(lambda: generation != self._generation or self._stopping.is_set())

    def _give_up(self, code: int) -> None:
        self._failed = self._failed or (code if code > 0 else 1)
        self.stop()

    def _spawn(self, slot: int) -> _Child:
        ours, theirs = new_link()
        told = Assignment(
            app=self._reference,
            slot=slot,
            count=self._count,
            link=theirs.fileno(),
            daemon=self._daemon,
            # One of them is enough to run the schedules; another's would find nothing left to do.
            order=attrs.evolve(self._order, scheduler=self._order.scheduler and slot == 0),
        )
        paths = [path for path in sys.path if path] + [str(Path.cwd())]
        environment = {
            **os.environ,
            CHILD: msgspec.json.encode(told).decode(),
            "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths)),
        }
        try:
            with self._lock:
                process = subprocess.Popen(
                    [sys.executable, "-m", "camora.worker.child"],
                    env=environment,
                    pass_fds=(theirs.fileno(),),
                    # Ctrl-C goes to the whole foreground group; the supervisor alone is to hear it, and passes it on.
                    process_group=0,
                )
                child = _Child(slot, process, ours)
                self._children.append(child)
                if self._stopping.is_set():
                    child.signal(signal.SIGTERM)
            ours.listen(lambda: self._let_leave(child))
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        return child


def _health_of(child: _Child | None) -> WorkerHealth:
    if child is None:
        return WorkerHealth(live=True, ready=False, reasons=("it is between two starts",))
    return child.health()


def _ended(code: int) -> str:
    if code >= 0:
        return f"ended with code {code}"
    with contextlib.suppress(ValueError):
        return f"was killed by {signal.Signals(-code).name}"
    return f"was killed by signal {-code}"


def check_shared(app: ProcessApp) -> None:
    """Raises `UnsupportedCapability` when other processes would not see what this app dispatches."""
    if not app.broker.capabilities.shared:
        raise UnsupportedCapability(
            f"{app.broker!r} lives in one process, so other processes would see nothing. "
            "Use Camora('sqlite:///camora.db') (pip install camora-sql), or one process: asyncio.run(app.start())",
            capability="shared",
        )


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
    scheduler: bool = False,
    reference: str | None = None,
) -> WorkerProcesses:
    """Start worker processes for an app that other processes can import. Raises `ConfigurationError`."""
    if assignment() is not None:
        raise ConfigurationError(
            "a worker process would start worker processes of its own: the module of the app starts them when it is "
            'imported. Put that under  if __name__ == "__main__":'
        )
    given = {} if concurrency is None else {"concurrency": concurrency}
    order = WorkOrder(
        threads=dict(threads),
        queues=None if queues is None else list(queues),
        settings=None if settings is None else attrs.asdict(settings),
        given=given,
        burst=burst,
        scheduler=scheduler,
    )
    return order_processes(app, order, processes=processes, daemon=daemon, reference=reference)


def order_processes(
    app: ProcessApp, order: WorkOrder, *, processes: int | str, daemon: bool = True, reference: str | None = None
) -> WorkerProcesses:
    """As `start_processes`, with all that they are to do in one."""
    check_shared(app)
    reference = reference or reference_of(app)
    if not reference:
        raise ConfigurationError(
            "worker processes import the app by name: bind it to a name at the top level of a module"
        )
    count = (os.cpu_count() or 1) if processes == "auto" else processes
    if not isinstance(count, int) or count < 1:
        raise ConfigurationError(f"processes={processes!r}: a whole number from 1, or 'auto' for one per core")
    order.settings_for(app)  # a mistake is told here, and not by every child
    workers = WorkerProcesses(reference, count=count, order=order, daemon=daemon, logger=app.logger)
    workers.start()
    return workers


def run_processes(app: ProcessApp, **options: Any) -> None:
    """Start worker processes, pass signals on, and block until they have ended; exits with their code when not 0."""
    workers = start_processes(app, **options)
    with signals_to(workers):
        end_with(workers)


def end_with(workers: WorkerProcesses) -> None:
    """Block until they have ended; exits with their code when that is not 0."""
    while True:
        # In short waits: a signal handler runs only between them.
        code = workers.join(0.5)
        if not workers.alive:
            break
    if code:
        raise SystemExit(code)


@contextlib.contextmanager
def signals_to(workers: WorkerProcesses) -> Iterator[None]:
    """Inside the block, SIGTERM and SIGINT stop these processes."""
    reading, writing = os.pipe()
    repeats = Repeats()

    # A handler interrupts whatever the main thread is at, and must not wait for a lock that it holds.
    def handle(number: int, frame: Any) -> None:
        del frame
        if repeats.counts(number):
            os.write(writing, b"!")

    def pass_on() -> None:
        while os.read(reading, 1):
            workers.stop()

    thread = threading.Thread(target=pass_on, name="camora-signals", daemon=True)
    thread.start()
    previous = {}
    for number in (signal.SIGTERM, signal.SIGINT):
        with contextlib.suppress(ValueError):  # not in the main thread
            previous[number] = signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        os.close(writing)
        thread.join()
        os.close(reading)
