"""The dead letters, as an app's users meet them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

from camora.connections import Connections
from camora.errors import DecodeError
from camora.extensions import Extensions
from camora.interfaces.broker import Broker
from camora.interfaces.codec import Codec
from camora.outcome import DeadLetter

__all__ = ["Letters"]

_PAGE = 100


class Letters:
    """Lists, requeues and purges, over any broker; those of the outbox stand behind the broker's."""

    def __init__(self, connections: Connections, codec: Codec, extensions: Extensions) -> None:
        self._connections = connections
        self._codec = codec
        self._extensions = extensions

    async def list(self, queue: str | None) -> AsyncIterator[DeadLetter]:
        """All letters, oldest first, a page at a time."""
        connection = await self._connections.get()
        async for letter in _all(connection.broker, queue):
            yield letter
        if (outbox := await connection.outbox()) is not None:
            async for letter in _all(outbox, queue):
                yield letter

    async def get(self, job_id: str) -> DeadLetter | None:
        """One letter."""
        connection = await self._connections.get()
        found = await connection.broker.dead_letters.get(job_id)
        if found is None and (outbox := await connection.outbox()) is not None:
            found = await outbox.dead_letters.get(job_id)
        return found

    async def requeue(self, job_id: str) -> bool:
        """Back into its queue under the same id, as a first attempt; False when there is no such letter."""
        connection = await self._connections.get()
        letter = await connection.broker.dead_letters.get(job_id)
        if letter is None:
            # One that could not leave the outbox sets out again as it was.
            outbox = await connection.outbox()
            return outbox is not None and await outbox.dead_letters.requeue(job_id)
        body = await self._as_new(letter)
        if connection.results is not None and not connection.atomic:
            # The failed record stands for good (first writer wins), and would hide the new run's result. One that is
            # younger than the letter belongs to a run that somebody else has requeued meanwhile.
            [record] = await connection.results.fetch([job_id])
            if record is not None and record.finished <= letter.died:
                await connection.results.forget([job_id])
        return await connection.broker.dead_letters.requeue(job_id, body=body)

    async def _as_new(self, letter: DeadLetter) -> bytes:
        """The message as a first attempt, of another life than the one that has failed."""
        try:
            message = self._codec.decode(letter.body)
        except DecodeError:
            return letter.body  # somebody may have mended the codec; the bytes stay as they are
        changes: dict[str, Any] = {"attempt": 1, "misses": 0, "due": 0, "expires": None, "life": message.life + 1}
        if self._extensions.concern(message):
            [message] = await self._extensions.requeued([message])
            changes["headers"] = dict(message.headers)
        return self._codec.evolve(letter.body, changes)

    async def purge(self, queue: str | None, ids: Sequence[str] | None) -> int:
        """Delete for good; returns how many."""
        connection = await self._connections.get()
        count = await connection.broker.dead_letters.purge(queue=queue, ids=ids)
        if (outbox := await connection.outbox()) is not None:
            count += await outbox.dead_letters.purge(queue=queue, ids=ids)
        return count


async def _all(broker: Broker, queue: str | None) -> AsyncIterator[DeadLetter]:
    after = ""
    while page := await broker.dead_letters.list(queue=queue, limit=_PAGE, after=after):
        for letter in page:
            yield letter
        after = page[-1].id
