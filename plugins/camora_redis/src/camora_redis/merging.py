"""Publications of one moment, merged: while one is on its way, those that come meanwhile travel together after it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from camora.message import Envelope

from camora_redis.batches import batches
from camora_redis.link import Link
from camora_redis.publishing import publish

__all__ = ["Merger"]

Waiting = tuple[Sequence[Envelope], asyncio.Future[list[str]]]


class Merger:
    """Publishes for many callers of one event loop. Who is alone is not delayed; queues do not wait for each other."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._waiting: dict[str, list[Waiting]] = {}
        """For each queue with a publication on its way, who waits for the next one."""
        self._tasks: set[asyncio.Task[None]] = set()

    async def publish(self, envelopes: Sequence[Envelope]) -> list[str]:
        """As `publishing.publish`."""
        # What has wishes of its own, such as copies on replicas, goes alone: the others need not wait for them.
        if len(envelopes) > 1 or envelopes[0].options:
            return await publish(self._link, envelopes)
        queue = envelopes[0].queue
        waiting = self._waiting.get(queue)
        if waiting is not None:
            future: asyncio.Future[list[str]] = asyncio.get_running_loop().create_future()
            waiting.append((envelopes, future))
            return await future
        self._waiting[queue] = []
        try:
            return await publish(self._link, envelopes)
        finally:
            self._go_on(queue)

    def _go_on(self, queue: str) -> None:
        """Send what has come meanwhile; where nothing has, the next one need not wait."""
        waiting = self._waiting[queue] = [one for one in self._waiting[queue] if not one[1].done()]
        if not waiting:
            del self._waiting[queue]
            return
        task = asyncio.get_running_loop().create_task(self._send_waiting(queue))
        self._tasks.add(task)
        # Where somebody cancels every task that there is, this one may end before its first step.
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _: self._go_on(queue))

    async def _send_waiting(self, queue: str) -> None:
        while self._waiting[queue]:
            batch = next(batches(self._waiting[queue], _size))
            self._waiting[queue] = self._waiting[queue][len(batch) :]
            await self._send([one for one in batch if not one[1].done()])

    async def _send(self, batch: Sequence[Waiting]) -> None:
        if not batch:
            return
        try:
            ids = await publish(self._link, [envelopes[0] for envelopes, _ in batch])
        except Exception as error:  # noqa: BLE001 -- each caller is told
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
        except BaseException:
            for _, future in batch:
                future.cancel()
            raise
        else:
            for (_, future), one in zip(batch, ids, strict=True):
                if not future.done():
                    future.set_result([one])


def _size(waiting: Waiting) -> int:
    return len(waiting[0][0].body)
