"""Results over AMQP: each goes once, to the process that dispatched the job, through a reply queue of its own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Self

import msgspec
from camora.errors import BrokerUnavailable
from camora.interfaces.results import ResultBackend
from camora.interfaces.schedule import ScheduleStore
from camora.outcome import JobRecord

from camora_amqp.inbox import Waiter
from camora_amqp.lent import Lent
from camora_amqp.messages import Outgoing
from camora_amqp.replies import reply_message
from camora_amqp.reply_queue import ReplyQueue
from camora_amqp.schedules import AmqpScheduleStore
from camora_amqp.settings import AmqpSettings
from camora_amqp.store import Store

__all__ = ["AmqpResultBackend"]


class AmqpResultBackend(ResultBackend):
    """What comes back to this process, kept in its memory until it is over its time.

    A job's result is known where the job was dispatched, in all loops and threads of that process, and nowhere else; a
    process that has ended, or has closed its app, gets none. So is what a running job tells of its progress. Only a
    broker at the same URL sends results here.
    """

    private = True

    def __init__(self, url: str = "amqp://localhost", settings: AmqpSettings | None = None) -> None:
        self._start(Store.of_url(url, settings))

    @classmethod
    def on(cls, store: Store) -> Self:
        """A backend on a store that others use, too."""
        made = cls.__new__(cls)
        made._start(store)  # noqa: SLF001 -- its own class
        return made

    def _start(self, store: Store) -> None:
        self._store = store
        self._replies: ReplyQueue | None = None
        self._mine: set[Waiter] = set()
        self._running: Mapping[str, Lent] = {}
        self._send: Callable[[Sequence[Outgoing]], Awaitable[None]] | None = None

    def __repr__(self) -> str:
        return f"AmqpResultBackend({self._store.label!r})"

    @property
    def database(self) -> Store:
        """What its twins share with it."""
        return self._store

    def attach(self, running: Mapping[str, Lent], send: Callable[[Sequence[Outgoing]], Awaitable[None]]) -> None:
        """Tell of the progress of jobs that run here: `running` are their deliveries by id, `send` publishes."""
        self._running, self._send = running, send

    async def open(self) -> None:
        """Nothing yet: the reply queue is made for the first job whose result is to come here."""
        if self._replies is None:
            self._replies = self._store.replies()
            self._replies.join()

    async def listening(self) -> str:
        """The name of the reply queue, which exists from now on. Raises `BrokerUnavailable`."""
        return await self._open().listen()

    def _open(self) -> ReplyQueue:
        if self._replies is None:
            raise BrokerUnavailable(f"{self!r} is not open; call open() first, or use twin() for one that is")
        return self._replies

    async def store(self, records: Sequence[JobRecord]) -> None:
        """Progress of a job that runs here goes to whoever dispatched it; all else is kept here.

        What becomes of jobs in the end travels with a worker's settlements.
        """
        replies, messages = self._open(), []
        for record in records:
            lent = None if record.status.finished else self._running.get(record.id)
            if lent is not None and lent.properties.reply_to:
                messages.append(reply_message(lent.properties.reply_to, record, self._store.settings))
            else:
                replies.inbox.keep(record, len(msgspec.msgpack.encode(record)))
        if messages and self._send is not None:
            await self._send(messages)

    async def fetch(self, job_ids: Sequence[str]) -> Sequence[JobRecord | None]:
        """What has come so far."""
        inbox = self._open().inbox
        return [inbox.found(job_id) for job_id in job_ids]

    async def wait(self, job_id: str, timeout: float | None) -> JobRecord | None:
        """Pushed by the server."""
        inbox, waiter = self._open().inbox, Waiter(job_id)
        found = inbox.enter(waiter)
        if found is not None or (timeout is not None and timeout <= 0):
            inbox.leave(waiter)
            return found
        self._mine.add(waiter)
        try:
            return await waiter.heard(timeout)
        finally:
            self._mine.discard(waiter)
            inbox.leave(waiter)

    async def forget(self, job_ids: Sequence[str]) -> int:
        """Delete from memory."""
        return self._open().inbox.forget(dict.fromkeys(job_ids))

    def own_schedules(self) -> ScheduleStore:
        """Schedules in a message of their own."""
        return AmqpScheduleStore(self._store)

    def twin(self) -> Self:
        """Another one for the same process: what comes for one is there for all."""
        return type(self).on(self._store)

    def abandon(self) -> None:
        """Nobody waits in that loop any more."""
        replies, self._replies = self._replies, None
        self._mine.clear()
        if replies is not None:
            replies.abandon()

    async def close(self) -> None:
        """The last one in a process has the reply queue deleted; pending `wait`s end with None."""
        for waiter in list(self._mine):
            waiter.tell(None)
        replies, self._replies = self._replies, None
        if replies is not None:
            await replies.leave()
