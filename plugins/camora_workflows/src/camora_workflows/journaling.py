"""What the running job has done so far: known to its function through a context variable, kept in the journal.

A job that uses nothing of this costs nothing but the variable; the first use claims the journal, once for an attempt.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from typing import Any, ClassVar, NoReturn, TypeVar

from camora.context import Context
from camora.errors import BrokerUnavailable, UndeliverableError, UnsupportedCapability
from camora.interfaces.extension import Host
from camora.interfaces.journal import Journal
from camora.interfaces.middleware import Executed, Middleware
from camora.signals import Suspend
from camora.task import AnyTask

__all__ = ["KEEP", "Elsewhere", "Journaling", "Running", "StepError", "running"]

T = TypeVar("T")

KEEP = 7 * 86400.0
"""Seconds for which a job's journal is kept after it was last written to, where the settings say nothing else."""
_BITS = 20
_LONGEST_PAUSE = 5.0
_OVERTAKEN_PAUSE = 1.0


class StepError(UndeliverableError):
    """A job is not written as one that is done in steps must be. Never retried: running it again is no help."""


class Running:
    """One attempt of a job, and its journal. Belongs to the worker's event loop; usable from threads' loops, too."""

    __slots__ = (
        "_claiming",
        "_entries",
        "_host",
        "_id",
        "_journal",
        "_keep",
        "_loop",
        "_task",
        "_token",
        "_used",
        "label",
    )

    def __init__(self, host: Host, context: Context, task: asyncio.Task[Any], keep: float) -> None:
        self._host = host
        self._id = context.id
        self._token = _token(context)
        self._keep = keep
        self._loop = task.get_loop()
        self._task: asyncio.Task[Any] | None = task
        self._used: Counter[str] | None = None
        self._entries: dict[str, bytes] | None = None
        self._journal: Journal | None = None
        self._claiming: asyncio.Task[None] | None = None
        self.label = f"{context.task.name} {context.id}"
        """Task and job, for errors and logs."""

    @property
    def host(self) -> Host:
        """The app."""
        return self._host

    def now(self) -> int:
        """By the app's clock, in milliseconds since the epoch."""
        return self._host.clock.now_ms()

    def end(self) -> None:
        """The attempt is over; whoever still has this keeps nothing else alive."""
        self._task = None

    def check_own_task(self, what: str) -> None:
        """Raises `StepError` in a task that the function has started: ending that would not end the attempt."""
        if asyncio.get_running_loop() is self._loop and asyncio.current_task() is not self._task:
            raise StepError(
                f"{what} was awaited in another asyncio task (gather, TaskGroup, wait_for …); it ends "
                "the attempt, so await it in the function itself. step(…) may be awaited anywhere"
            )

    def named(self, kind: str, name: Any) -> str:
        """The name. Raises `StepError` for one that is no text."""
        if not isinstance(name, str) or not name:
            raise StepError(f"the name of a {kind} is a text that is not empty; it got {name!r}")
        return name

    def once(self, kind: str, name: Any) -> str:
        """The name of an entry. Raises `StepError` for one that this attempt has used before."""
        entry = f"{kind}:{self.named(kind, name)}"
        if self.count(entry) > 0:
            raise StepError(
                f"there are two {kind}s {name!r} in one run of the job, and the second would be taken for "
                f'the first. Name each its own; in a loop f"{name}-{{index}}"'
            )
        return entry

    def count(self, entry: str) -> int:
        """How often this was asked before, for this entry, by this attempt."""
        used = self._used = Counter() if self._used is None else self._used
        used[entry] += 1
        return used[entry] - 1

    async def entries(self) -> Mapping[str, bytes]:
        """All that the journal has, as far as this attempt knows; claims it at first."""
        if self._entries is None:
            await self._here(self._claimed)
        assert self._entries is not None
        return self._entries

    async def look_again(self) -> Mapping[str, bytes]:
        """All that the journal has now."""

        async def read() -> Mapping[str, bytes]:
            await self._claimed()
            found = await self._insisting(self._opened().read, self._id)
            assert self._entries is not None
            self._entries.update(found)
            return self._entries

        return await self._here(read)

    async def enter(self, entry: str, value: bytes, *, lasting: float = 0.0) -> bytes:
        """Enter a value, to be kept for `lasting` seconds longer than usual; returns the one that stands.

        Ends the attempt when a later one has begun.
        """

        async def write() -> bytes:
            await self._claimed()
            keep = self._keep + lasting
            stands = await self._insisting(self._opened().write, self._id, self._token, entry, value, keep)
            if stands is None:
                self._overtaken()
            assert self._entries is not None
            self._entries[entry] = stands
            return stands

        return await self._here(write)

    async def suspend(self, delay: float) -> NoReturn:
        """Give the worker's slot back, and run again in so many seconds, or when somebody wakes the job up."""
        longest = (await self._here(self._host.stores)).broker.capabilities.longest_delay
        raise Suspend(delay=max(0.0, delay if longest is None else min(delay, longest)))

    async def can_be_woken(self) -> bool:
        """Whether a signal can make the suspended job due at once."""
        return bool((await self._here(self._host.stores)).broker.capabilities.reschedule)

    async def _here(self, work: Callable[[], Awaitable[T]]) -> T:
        """Do it in the worker's loop, in which the stores are open."""
        if asyncio.get_running_loop() is self._loop:
            return await work()

        async def there() -> T:
            return await work()

        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(there(), self._loop))

    async def _claimed(self) -> None:
        if self._entries is not None:
            return
        if self._claiming is None or self._claiming.done():
            # One claim for all steps that begin at the same moment; whoever is cancelled leaves it to the others.
            self._claiming = self._loop.create_task(self._claim())
            self._claiming.add_done_callback(_retrieve)
        await asyncio.shield(self._claiming)

    async def _claim(self) -> None:
        stores = await self._insisting(self._host.stores)
        journal = await self._insisting(stores.journal)
        if journal is None:
            raise UnsupportedCapability(
                f"steps, durable sleeps and signals need a store that keeps a journal, and neither "
                f"{stores.broker!r} nor the result backend does. Give the app one beside its broker: "
                'Camora(…, results="redis://…"), or a database such as results="sqlite:///results.db"'
            )
        self._journal = journal
        found = await self._insisting(journal.claim, self._id, self._token, self._keep)
        if found is None:
            self._overtaken()
        self._entries = dict(found)

    def _opened(self) -> Journal:
        assert self._journal is not None
        return self._journal

    def _overtaken(self) -> NoReturn:
        """A later attempt has begun, as it seems: whether this one may still settle anything is for the broker to say.

        If it may not, that refuses. If it may (its count of deliveries went back), the next run is later than all.
        """
        self._host.logger.warning("%s: a later run of it has begun; this one ends here", self.label)
        raise Suspend(delay=_OVERTAKEN_PAUSE)

    async def _insisting(self, operation: Callable[..., Awaitable[T]], *given: Any) -> T:
        """Try until the store answers: what was done already must not be done again because that is away."""
        tries = 0
        while True:
            try:
                return await operation(*given)
            except (BrokerUnavailable, OSError) as error:
                if tries == 0:
                    self._host.logger.warning("%s waits for its journal: %s", self.label, error)
                await asyncio.sleep(min(_LONGEST_PAUSE, 0.05 * 2**tries))
                tries += 1


class Elsewhere:
    """What the context variable says in another process: where steps cannot be."""

    __slots__ = ("label",)

    def __init__(self, label: str) -> None:
        self.label = label


class _Attempt:
    """What it says in the worker's own process. Most jobs need no more of it, so this is all that they pay for.

    Whatever a job starts that lives on, such as a connection, has a copy of the variable, and so this object: at the
    end it lets go of the job, whose message may be large.
    """

    __slots__ = ("_context", "_journaling", "_running", "_task")

    def __init__(self, journaling: Journaling, context: Context) -> None:
        self._journaling = journaling
        self._context: Context | None = context
        self._task = asyncio.current_task()
        self._running: Running | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        """Context variables travel to the processes of pools; a journal cannot."""
        context = self._context
        return Elsewhere, (f"{context.task.name} {context.id}" if context is not None else "a job that has ended",)

    def end(self) -> None:
        """The attempt is over."""
        if self._running is not None:
            self._running.end()
        self._context = self._task = None

    def running(self, what: str) -> Running:
        """Its journal. Raises `StepError` when the attempt is over."""
        if self._context is None:
            raise StepError(
                f"{what} was awaited after the attempt of its job had ended, in a task that it left running; await all "
                "that the job starts before it returns"
            )
        if self._running is None:
            host = self._journaling.host
            assert host is not None
            assert self._task is not None
            self._running = Running(host, self._context, self._task, self._journaling.keep)
        return self._running


_RUNNING: ContextVar[_Attempt | Elsewhere | None] = ContextVar("camora_workflows_running", default=None)


class Journaling(Middleware):
    """Tells the function of an async task which attempt of which job it is."""

    phase: ClassVar[str] = "inner"

    def __init__(self, keep: float = KEEP) -> None:
        self.keep = keep
        self.host: Host | None = None
        """Set when the extension is attached."""

    def concerns(self, task: AnyTask) -> bool:
        """Only coroutine functions can await a step."""
        return task.is_async

    async def execute(self, context: Context, call_next: Executed) -> Any:
        """Set the variable around the call."""
        attempt = _Attempt(self, context)
        token = _RUNNING.set(attempt)
        try:
            return await call_next(context)
        finally:
            attempt.end()
            _RUNNING.reset(token)


def running(what: str) -> Running:
    """The attempt in which this is called. Raises `StepError` outside of a job, and in a process of a pool."""
    found = _RUNNING.get()
    if isinstance(found, Elsewhere):
        raise StepError(
            f"{found.label}: {what} needs the worker's own process, where the journal is; this task runs in a pool of "
            "processes. Run it as a coroutine, and the heavy part of it as a job of its own"
        )
    if found is None:
        raise StepError(
            f"{what} was awaited outside of a job. It belongs into an async task that a worker runs; to try one here, "
            "await app.run_now(task.s(…))"
        )
    return found.running(what)


def _token(context: Context) -> int:
    """Later attempts have greater ones: a new life counts more than an attempt, and that more than a delivery."""
    most = (1 << _BITS) - 1
    message = context.message
    return min(message.life, most) << 2 * _BITS | min(message.attempt, most) << _BITS | min(context.deliveries, most)


def _retrieve(claiming: asyncio.Task[None]) -> None:
    """Whoever waited for it may have been cancelled; asyncio need not complain of that."""
    if not claiming.cancelled():
        claiming.exception()
