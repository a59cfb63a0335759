"""What takes part: one small class for each system, with the same few methods."""

from __future__ import annotations

import asyncio
import contextlib
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

__all__ = ["Entrant", "InProcessEntrant", "Place", "SyncEntrant", "run_uvloop"]


@dataclass(frozen=True)
class Place:
    """Where an entrant keeps its things: a fresh folder, and the server's URL where it needs one."""

    folder: Path
    url: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    """What one of the entrant's `variants` says."""
    keep_results: bool = False
    """The scenario looks at results. Where it does not, an entrant that can switch them off does."""


class Entrant(ABC):
    """A system under test. Made once in the process that dispatches, and once in the worker's process.

    The jobs are those of `benchmarks.jobs`: `noop()`, `stamp(sent)`, `nap(seconds)`, `echo(value)`, `answer(value)`,
    `body(values)`, each in an async and a plain form; an entrant registers them under these names.
    """

    requires: ClassVar[tuple[str, ...]] = ()
    """Modules it needs; it is skipped, with the reason, where one is missing."""
    server: ClassVar[str] = ""
    """The server it needs: "", or one of `benchmarks.servers.KINDS`."""
    lacks: ClassVar[Mapping[str, str]] = {}
    """Scenarios it cannot take part in, and why."""
    guarantee: ClassVar[str] = "at least once"
    forks: ClassVar[bool] = False
    """Its worker runs jobs in child processes: each job reports itself, and CPU is summed over the tree."""
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """Settings of its worker to choose the best of, for each scenario."""
    distribution: ClassVar[str] = ""
    """Whose version is noted."""
    package: ClassVar[str] = ""
    """What is imported where the import is measured."""
    slow: ClassVar[float] = 1
    """Its number of jobs is divided by this, so that a run ends; below 1, for the fast, it is more."""

    def __init__(self, place: Place) -> None:
        self.place = place

    async def open(self) -> None:  # noqa: B027 -- not everybody has something to do here
        """Connect, on the dispatching side."""

    @abstractmethod
    async def dispatch(self, job: str, *args: Any) -> Any:
        """Enqueue one job."""

    async def dispatch_many(self, job: str, arguments: Sequence[tuple[Any, ...]]) -> None:
        """Enqueue many, in the fastest way it has; here: for those without a bulk call, 100 at the same time."""
        for start in range(0, len(arguments), 100):
            await asyncio.gather(*(self.dispatch(job, *args) for args in arguments[start : start + 100]))

    async def delay_many(self, job: str, seconds: float, count: int) -> None:
        """Enqueue `count` jobs for later, and have them stored as such."""
        raise NotImplementedError

    async def roundtrip(self, value: int) -> int:
        """Dispatch `echo(value)`, and wait for what it returns."""
        raise NotImplementedError

    async def chord(self, count: int) -> None:
        """Dispatch `count` times `noop`, and `body` when all of them have run, with their results."""
        raise NotImplementedError

    async def chain(self, count: int) -> None:
        """Dispatch `count` times `answer`, each with the result of the one before it."""
        raise NotImplementedError

    async def close(self) -> None:  # noqa: B027
        """Disconnect."""

    @abstractmethod
    def work(self, concurrency: int) -> None:
        """Be the worker, in this process, until SIGTERM."""


class SyncEntrant(Entrant):
    """For systems whose clients block: they give `send` and `send_and_wait`."""

    senders: ClassVar[int] = 1
    """Threads that send many, where each waits for its server."""

    @abstractmethod
    def send(self, job: str, *args: Any) -> Any:
        """Enqueue one job."""

    def send_and_wait(self, value: int) -> int:
        """Dispatch `echo(value)`, and wait for what it returns."""
        raise NotImplementedError

    async def dispatch(self, job: str, *args: Any) -> Any:
        return self.send(job, *args)

    async def dispatch_many(self, job: str, arguments: Sequence[tuple[Any, ...]]) -> None:
        if self.senders == 1:
            self._send_all(job, arguments)
            return
        share = -(-len(arguments) // self.senders)
        shares = [arguments[start : start + share] for start in range(0, len(arguments), share)]
        await asyncio.gather(*(asyncio.to_thread(self._send_all, job, some) for some in shares))

    def _send_all(self, job: str, arguments: Sequence[tuple[Any, ...]]) -> None:
        for args in arguments:
            self.send(job, *args)

    async def roundtrip(self, value: int) -> int:
        return await asyncio.to_thread(self.send_and_wait, value)


class InProcessEntrant(Entrant):
    """For systems without a second process: the worker lives in the dispatching one."""

    async def fill(self, count: int) -> None:
        """Enqueue `count` times `noop`; nothing where dispatching is running."""
        await self.dispatch_many("noop", [()] * count)

    @abstractmethod
    async def drain(self, count: int, done: Callable[[], None]) -> None:
        """Run what was enqueued (or enqueue and run `count` jobs); call `done` when the last one is settled."""

    @contextlib.asynccontextmanager
    async def serving(self, concurrency: int) -> AsyncIterator[None]:
        """A worker in the running loop, for the length of the block."""
        yield

    def work(self, concurrency: int) -> None:
        raise NotImplementedError


def run_uvloop(main: Callable[[], Any]) -> None:
    """Run a coroutine function on uvloop."""
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
