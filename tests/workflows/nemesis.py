"""Processes in one event loop, with an enemy: each call of theirs on broker, results and workflows may go wrong.

A call fails before it has had an effect or after that, or its process dies then. The dead do nothing that counts: what
they held comes back when its leases lapse, by virtual time.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Self, TypeVar

from camora.builtin.memory import MemoryBroker, MemoryResultBackend, MemoryStore, MemoryWorkflowStore
from camora.builtin.memory.consumer import MemoryConsumer
from camora.errors import BrokerUnavailable
from camora.interfaces import Consumer, ConsumerSettings, Mark, Marked, ResultBackend, WorkflowStore
from camora.message import Delivery, Envelope
from camora.outcome import JobRecord, Settlement

__all__ = ["Nemesis", "NotingStore", "Process", "ProcessBroker", "ProcessResults"]

R = TypeVar("R")

_RATE = 0.12
"""How often a call goes wrong, while the enemy has anything left."""


class Nemesis:
    """Lets `faults` calls go wrong, and others take a little time, as chance has it."""

    def __init__(self, seed: int, faults: int) -> None:
        self.chance = random.Random(seed)
        self.left = faults
        self.told: list[str] = []
        """What was done, in words."""

    def fate(self, what: str, process: Process) -> str:
        """What becomes of a call."""
        if not self.left or self.chance.random() >= _RATE:
            return ""
        self.left -= 1
        fate = self.chance.choice(["fails", "is lost", "kills", "kills afterwards", "starves"])
        self.told.append(f"{process.name}: {what} {fate}")
        return fate

    def pause(self) -> float:
        """Seconds that a call takes: mostly none."""
        return self.chance.choice([0.0, 0.0, 0.01, 0.1])


class Process:
    """What lives and dies as one."""

    def __init__(self, name: str, nemesis: Nemesis) -> None:
        self.name = name
        self.dead = False
        self.starved_until = 0.0
        """Until then, by the loop's time, its leases are not kept, though it goes on."""
        self._nemesis = nemesis

    def check(self) -> None:
        if self.dead:
            raise BrokerUnavailable(f"{self.name} is dead")

    async def call(self, what: str, act: Callable[[], Awaitable[R]]) -> R:
        """Do it, unless the enemy has something against it."""
        self.check()
        fate = self._nemesis.fate(what, self)
        if pause := self._nemesis.pause():
            await asyncio.sleep(pause)
            self.check()
        if fate == "starves":
            self.starved_until = asyncio.get_running_loop().time() + 45
        elif fate == "fails":
            raise BrokerUnavailable(f"{what} fails")
        elif fate == "kills":
            self.dead = True
            self.check()
        answer = await act()
        if fate == "is lost":
            raise BrokerUnavailable(f"the answer of {what} is lost")
        if fate == "kills afterwards":
            self.dead = True
            self.check()
        return answer


class NotingStore(MemoryStore):
    """Counts how often each message was stored, and each first mark."""

    def __init__(self, clock: Any) -> None:
        super().__init__(clock)
        self.stored: dict[str, int] = {}
        self.marked: dict[tuple[str, int, int], list[Mark]] = {}

    def locked_publish(self, envelopes: Iterable[Envelope], touched: set[str]) -> list[str]:
        batch = list(envelopes)
        before = set(self.entries)
        answers = super().locked_publish(batch, touched)
        for job_id in set(self.entries) - before:
            self.stored[job_id] = self.stored.get(job_id, 0) + 1
        return answers


class ProcessBroker(MemoryBroker):
    """The broker as one process sees it."""

    def __init__(self, store: NotingStore, process: Process) -> None:
        super().__init__(store)
        self._noting = store
        self._process = process

    async def publish(self, envelopes: Sequence[Envelope]) -> Sequence[str]:
        return await self._process.call("publish", lambda: super(ProcessBroker, self).publish(envelopes))

    async def consumer(self, settings: ConsumerSettings) -> Consumer:
        return _ProcessConsumer(self.store, settings, self._process)

    def own_results(self) -> ResultBackend:
        return ProcessResults(self._noting, self._process)

    def own_workflows(self) -> WorkflowStore:
        return _ProcessWorkflows(self._noting, self._process)

    def twin(self) -> Self:
        return type(self)(self._noting, self._process)


class _ProcessConsumer(MemoryConsumer):
    def __init__(self, store: MemoryStore, settings: ConsumerSettings, process: Process) -> None:
        super().__init__(store, settings)
        self._process = process

    async def receive(self, limit: int, wait: float) -> Sequence[Delivery]:
        # Waits in steps of its own: who is killed while it waits takes nothing.
        await asyncio.sleep(0)
        found = await super().receive(limit, min(wait, 1.0))
        if self._process.dead and found:
            return ()
        return await self._process.call("receive", lambda: _done(found)) if found else ()

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[bool]:
        return await self._process.call("settle", lambda: super(_ProcessConsumer, self).settle(settlements))


class ProcessResults(MemoryResultBackend):
    """Results as one process sees them."""

    def __init__(self, store: NotingStore, process: Process) -> None:
        super().__init__(store)
        self._noting = store
        self._process = process

    async def store(self, records: Sequence[JobRecord]) -> None:
        await self._process.call("store", lambda: super(ProcessResults, self).store(records))

    def own_workflows(self) -> WorkflowStore:
        return _ProcessWorkflows(self._noting, self._process)

    def twin(self) -> Self:
        return type(self)(self._noting, self._process)


async def _done(what: R) -> R:
    return what


class _ProcessWorkflows(MemoryWorkflowStore):
    def __init__(self, store: NotingStore, process: Process) -> None:
        super().__init__(store)
        self._noting = store
        self._process = process

    async def create(self, *args: Any) -> bool:
        return await self._process.call("create", lambda: super(_ProcessWorkflows, self).create(*args))

    async def add(self, *args: Any) -> bool:
        return await self._process.call("add", lambda: super(_ProcessWorkflows, self).add(*args))

    async def start(self, *args: Any) -> bool:
        return await self._process.call("start", lambda: super(_ProcessWorkflows, self).start(*args))

    async def end(self, marks: Sequence[Mark], now: int) -> Sequence[Marked]:
        return await self._process.call("end", lambda: self._end(marks, now))

    async def _end(self, marks: Sequence[Mark], now: int) -> Sequence[Marked]:
        answers = await super().end(marks, now)
        for mark, answer in zip(marks, answers, strict=True):
            if answer.known and answer.standing is None:
                self._noting.marked.setdefault((mark.workflow, mark.index, mark.run), []).append(mark)
        return answers

    async def reopen(self, *args: Any) -> bool:
        return await self._process.call("reopen", lambda: super(_ProcessWorkflows, self).reopen(*args))

    async def read(self, *args: Any) -> Any:
        return await self._process.call("read", lambda: super(_ProcessWorkflows, self).read(*args))

    async def nodes(self, *args: Any, **more: Any) -> Any:
        return await self._process.call("nodes", lambda: super(_ProcessWorkflows, self).nodes(*args, **more))

    async def passed(self, *args: Any) -> None:
        return await self._process.call("passed", lambda: super(_ProcessWorkflows, self).passed(*args))

    async def finish(self, *args: Any) -> bool:
        return await self._process.call("finish", lambda: super(_ProcessWorkflows, self).finish(*args))

    async def get(self, *args: Any) -> Any:
        return await self._process.call("get", lambda: super(_ProcessWorkflows, self).get(*args))

    async def list(self, **more: Any) -> Any:
        return await self._process.call("list", lambda: super(_ProcessWorkflows, self).list(**more))

    async def delete(self, *args: Any, **more: Any) -> int:
        return await self._process.call("delete", lambda: super(_ProcessWorkflows, self).delete(*args, **more))

    def twin(self) -> Self:
        return type(self)(self._noting, self._process)
