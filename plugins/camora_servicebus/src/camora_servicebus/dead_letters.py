"""The dead letters: the dead-letter queue that the service keeps beside each queue."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

from camora.interfaces.dead_letters import DeadLetters
from camora.outcome import DeadLetter

from camora_servicebus.handles import Handles, NoEntity
from camora_servicebus.letters import letter_of
from camora_servicebus.messages import Outgoing, body_of, copy_of, job_id_of, task_of
from camora_servicebus.peeking import peeked, peeked_at, peeked_of
from camora_servicebus.places import Place, Places
from camora_servicebus.publishing import Publisher
from camora_servicebus.store import Store
from camora_servicebus.taking import Taken, take

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
        self._places: Places | None = None

    async def list(self, *, queue: str | None = None, limit: int = 100, after: str = "") -> Sequence[DeadLetter]:
        """A page. For the first one all letters are looked through; those after it show what was there then."""
        if after and self._places is not None and self._places.serves(queue):
            return await self._later_page(self._places, limit, after)
        found: dict[str, DeadLetter] = {}
        places = Places(queue)
        async for entity, message in peeked_of(self._handles, self._entities(queue), dead=True):
            letter = self._letter(entity, message)
            places.note(letter.id, entity, message.sequence_number)
            if letter.id > after:
                found[letter.id] = letter
                if len(found) > 4 * limit + 100:
                    found = {one: found[one] for one in sorted(found)[:limit]}
        places.end()
        self._places = places
        return [found[one] for one in sorted(found)[:limit]]

    async def _later_page(self, places: Places, limit: int, after: str) -> Sequence[DeadLetter]:
        found: dict[str, DeadLetter] = {}
        for some in places.after(after, limit):
            found |= {letter.id: letter for letter in await self._at(some)}
            if len(found) >= limit:
                break
        return [found[one] for one in sorted(found)[:limit]]

    async def _at(self, places: Sequence[Place]) -> Sequence[DeadLetter]:
        """The letters that still lie there."""
        by_entity: dict[str, list[int]] = {}
        for entity, number in places:
            by_entity.setdefault(entity, []).append(number)
        return [
            self._letter(entity, message)
            for entity, numbers in by_entity.items()
            for message in (await peeked_at(self._handles, entity, numbers, dead=True)).values()
        ]

    async def get(self, job_id: str) -> DeadLetter | None:
        """One; of several with one id the youngest."""
        found = None
        if self._places is not None:
            for letter in await self._at(self._places.of(job_id)):
                found = letter if letter.id == job_id else found
        if found is not None:
            return found
        async for entity, message in peeked_of(self._handles, self._entities(None), dead=True):
            letter = self._letter(entity, message)
            if letter.id == job_id:
                found = letter
        return found

    async def requeue(self, job_id: str, *, body: bytes | None = None) -> bool:
        """Sent to its queue first, under another message id, then taken from the letters; killed between: both."""
        sent = False
        number = 0

        async def send(message: Any) -> None:
            nonlocal sent
            if sent:
                return  # two letters of one job are one job
            copy = Outgoing.again(message, entity)
            copy.copy = number
            if body is not None:
                copy.body = body
            await self._publisher.publish([copy])
            sent = True

        for entity, numbers in [*self._known_places(job_id), *((entity, []) for entity in self._entities(None))]:
            there = await self._letters_of(job_id, entity, numbers)
            # Above all of its letters: an older one may have been sent before, and is what the youngest came of. Under
            # that message id a queue that detects duplicates would drop it, and the youngest is deleted, too.
            number = 1 + max(map(copy_of, there.values()), default=0)
            if there and (await self._take(entity, {job_id}, send, list(there)) or sent):
                return True
        return False

    async def _letters_of(self, job_id: str, entity: str, numbers: Sequence[int]) -> dict[int, Any]:
        """The messages of one job's letters by their sequence numbers, which may be known."""

        def its(message: Any) -> bool:
            return self._letter(entity, message).id == job_id

        if numbers:
            found = await peeked_at(self._handles, entity, numbers, dead=True)
            return {number: one for number, one in found.items() if its(one)}
        return {one.sequence_number: one async for one in peeked(self._handles, entity, dead=True) if its(one)}

    def _known_places(self, job_id: str) -> Sequence[tuple[str, Sequence[int]]]:
        places = () if self._places is None else self._places.of(job_id)
        entities = dict.fromkeys(entity for entity, _ in places)
        return [(entity, [number for where, number in places if where == entity]) for entity in entities]

    async def purge(self, *, queue: str | None = None, ids: Sequence[str] | None = None) -> int:
        """Delete for good."""
        chosen = None if ids is None else set(ids)
        if chosen is not None and not chosen:
            return 0
        return sum([await self._take(entity, chosen) for entity in self._entities(queue)])

    def _entities(self, queue: str | None) -> Iterable[str]:
        names = self._store.names
        return [names.queue(one) for one in ([queue] if queue is not None else known(self._store))]

    def _letter(self, entity: str, message: Any) -> DeadLetter:
        queue = self._store.names.of_queue(entity)
        return letter_of(message, queue, id=job_id_of(message), task=task_of(message), body=body_of(message))

    async def _take(self, entity: str, ids: set[str] | None, use: Any = None, numbers: Collection[int] = ()) -> int:
        """Delete letters, of these jobs or all; where their sequence numbers are known, nobody looks for them."""

        def chosen(message: Any) -> bool:
            return ids is None or self._letter(entity, message).id in ids

        if numbers:
            there = await peeked_at(self._handles, entity, numbers, dead=True)
            numbers = [number for number, message in there.items() if chosen(message)]
            if not numbers:
                return 0
        elif ids is not None:
            # Most queues do not have it, and looking is cheap.
            async for _, message in peeked_of(self._handles, [entity], dead=True):
                if chosen(message):
                    break
            else:
                return 0

        async def work(receiver: Any) -> Taken:
            return await take(
                receiver,
                chosen,
                another=lambda: self._handles.another("dead", entity),
                timeout=self._handles.timeout,
                use=use,
                numbers=numbers,
            )

        clean = False
        try:
            taken = await self._handles.use("dead", entity, work, seconds=_LONGEST)
            clean = taken.clean
        except NoEntity:
            return 0
        finally:
            if not clean:
                self._handles.drop("dead", entity)
        return taken.count


def known(store: Store) -> list[str]:
    """The names of all queues that are known here."""
    return sorted(store.seen | store.queues.keys())
