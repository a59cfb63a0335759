"""Signals to jobs: posted into the job's journal, and the job woken up if it waits."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, TypeVar

from camora.binding import Binding
from camora.clock import Clock, seconds
from camora.connections import Connection, Connections
from camora.errors import BrokerUnavailable, ConfigurationError, UnsupportedCapability
from camora.interfaces.broker import JobState
from camora.interfaces.codec import Codec
from camora.interfaces.journal import Journal, is_awaited, signal_entry

__all__ = ["KEPT", "Posting"]

T = TypeVar("T")

KEPT = 7 * 86400.0
"""Seconds for which a signal waits for its job at least."""
_MOMENT = 0.5
"""Seconds for which a running job is watched, because it may be about to wait. It looks by itself soon after that."""


class Posting:
    """Tells jobs what they wait for."""

    def __init__(
        self,
        *,
        connections: Connections,
        result_codec: Codec,
        binding: Binding,
        clock: Clock,
        ids: Callable[[], str],
        timeout: float,
    ) -> None:
        self._connections = connections
        self._codec = result_codec
        self._binding = binding
        self._clock = clock
        self._ids = ids
        self._timeout = timeout

    async def signal(self, job_id: str, name: str, payload: Any, keep: float | timedelta) -> bool:
        """See `Camora.signal`."""
        if not name:
            raise ConfigurationError(f"signal to job {job_id}: its name is a text that is not empty; it got {name!r}")
        value = self._codec.encode_value(self._binding.value_out(Any, payload))
        post_id, kept = self._ids(), seconds(keep)

        async def post() -> tuple[Connection, bool]:
            connection = self._connections.ready() or await self._connections.get()
            journal = await _journal_of(connection)
            number = await journal.post(job_id, signal_entry(name), value, kept, post_id)
            return connection, is_awaited(await journal.read(job_id), name, number)

        connection, awaited = await self._retrying(post)
        if not awaited:
            return False  # what it is suspended or delayed for is something else
        try:
            return await self._wake(connection, job_id)
        except (UnsupportedCapability, BrokerUnavailable):
            return False  # it is posted, and the job looks by itself

    async def _wake(self, connection: Connection, job_id: str) -> bool:
        queues = connection.broker.queues
        loop = asyncio.get_running_loop()
        deadline, pause = loop.time() + _MOMENT, 0.02
        while True:
            if await queues.reschedule(job_id, self._clock.now_ms()):
                return True
            found = await queues.find(job_id)
            if found is None or found.state == JobState.DEAD or loop.time() + pause > deadline:
                return False
            await asyncio.sleep(pause)
            pause *= 2

    async def _retrying(self, step: Callable[[], Awaitable[T]]) -> T:
        loop = asyncio.get_running_loop()
        deadline, tries = loop.time() + self._timeout, 0
        while True:
            try:
                async with asyncio.timeout_at(deadline):
                    return await step()
            except TimeoutError as error:
                raise BrokerUnavailable(
                    f"the store did not answer within {self._timeout:g} s; the signal may have been posted"
                ) from error
            except BrokerUnavailable:
                pause = random.uniform(0, min(1.0, 0.05 * 2**tries))  # noqa: S311 -- jitter
                if loop.time() + pause >= deadline:
                    raise
                tries += 1
                await asyncio.sleep(pause)


async def _journal_of(connection: Connection) -> Journal:
    journal = await connection.journal()
    if journal is None:
        raise UnsupportedCapability(
            f"signals are kept in a journal, and neither {connection.broker!r} nor the result backend has one. Give "
            'the app a store beside its broker: Camora(…, results="redis://…"), or a database such as '
            'results="sqlite:///results.db"'
        )
    return journal
