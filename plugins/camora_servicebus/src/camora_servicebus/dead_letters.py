"""The dead letters: the dead-letter queue that the service keeps beside each queue."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any

from camora.interfaces.dead_letters import DeadLetters
from camora.outcome import DeadLetter

from camora_servicebus.handles import Handles, NoEntity
from camora_servicebus.letters import letter_of
from camora_servicebus.messages import Outgoing, body_of, job_id_of, task_of
from camora_servicebus.peeking import peeked_of
from camora_servicebus.publishing import Publisher
from camora_servicebus.store import Store
from camora_servicebus.taking import take

__all__ = ["ServiceBusDeadLetters"]

_LONGEST = 3600.0
"""Seconds for taking letters, however many there are; each step of it has a limit of its own."""


class ServiceBusDeadLetters(DeadLetters):
    """Looking takes nothing away and locks nothing, whoever looks.

    Taking one letter locks for a moment those that are older. Letters are found in the queues that are known here.
    """

    def __init__(self, store: Store, handles: Handles, publisher: Publisher) -> None:
        self._store = store
        self._handles = handles
        self._publisher = publisher

    async def list(self, *, queue: str | None = None, limit: int = 100, after: str = "") -> Sequence[DeadLetter]:
        """A page: all letters are looked through."""
        found: dict[str, DeadLetter] = {}
        async for letter in self._letters(queue):
            if letter.id > after:
                found[letter.id] = letter
                if len(found) > 4 * limit + 100:
                    found = {one: found[one] for one in sorted(found)[:limit]}
        return [found[one] for one in sorted(found)[:limit]]

    async def get(self, job_id: str) -> DeadLetter | None:
        """One; of several with one id the youngest."""
        found = None
        async for letter in self._letters(None):
            if letter.id == job_id:
                found = letter
        return found

    async def requeue(self, job_id: str, *, body: bytes | None = None) -> bool:
        """Sent to its queue first, under another message id, then taken from the letters; killed between: both."""
        done = False
        for entity in self._entities(None):

            async def send(message: Any, entity: str = entity) -> None:
                nonlocal done
                if done:
                    return  # two letters of one job are one job
                copy = Outgoing.again(message, entity)
                if body is not None:
                    copy.body = body
                await self._publisher.publish([copy])
                done = True

            taken = await self._take(entity, {job_id}, send)
            done = done or taken > 0
            if done:
                break
        return done

    async def purge(self, *, queue: str | None = None, ids: Sequence[str] | None = None) -> int:
        """Delete for good."""
        chosen = None if ids is None else set(ids)
        if chosen is not None and not chosen:
            return 0
        return sum([await self._take(entity, chosen, None) for entity in self._entities(queue)])

    def _entities(self, queue: str | None) -> Iterable[str]:
        names = self._store.names
        return [names.queue(one) for one in ([queue] if queue is not None else known(self._store))]

    async def _letters(self, queue: str | None) -> AsyncIterator[DeadLetter]:
        async for entity, message in peeked_of(self._handles, self._entities(queue), dead=True):
            yield self._letter(entity, message)

    def _letter(self, entity: str, message: Any) -> DeadLetter:
        queue = self._store.names.of_queue(entity)
        return letter_of(message, queue, id=job_id_of(message), task=task_of(message), body=body_of(message))

    async def _take(self, entity: str, ids: set[str] | None, use: Any) -> int:
        def chosen(message: Any) -> bool:
            return ids is None or self._letter(entity, message).id in ids

        async def work(receiver: Any) -> int:
            return await take(
                receiver,
                chosen,
                another=lambda: self._handles.another("dead", entity),
                timeout=self._handles.timeout,
                use=use,
            )

        if ids is not None:
            # Most queues do not have it, and looking is cheap.
            async for _, message in peeked_of(self._handles, [entity], dead=True):
                if chosen(message):
                    break
            else:
                return 0
        try:
            return await self._handles.use("dead", entity, work, seconds=_LONGEST)
        except NoEntity:
            return 0
        finally:
            self._handles.drop("dead", entity)


def known(store: Store) -> list[str]:
    """The names of all queues that are known here."""
    return sorted(store.seen | store.queues.keys())
