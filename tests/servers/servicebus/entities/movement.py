"""How messages move by themselves: in, onward, back when a lock ends, and into the dead-letter queue.

Every rule names the page of the service's documentation that it imitates.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, Self

import attrs

from tests.servers.servicebus.entities.errors import MessageNotFound
from tests.servers.servicebus.entities.messages import Incoming, Stored
from tests.servers.servicebus.entities.sessions import Session
from tests.servers.servicebus.entities.state import State

__all__ = ["Movement"]


class Movement(State):
    """The rules of what happens to a message that nobody has just asked for."""

    # What comes in, from targets and other entities

    def admit(self, incoming: Incoming, now: float, time_to_live: float = math.inf, like: Stored | None = None) -> int:
        """Store it, or send it on; its sequence number here. The message lives `time_to_live` seconds at most.

        `like` is what it was where it came from.
        """
        number = self._number()
        alive = math.inf if incoming.time_to_live is None else incoming.time_to_live
        expires = now + min(time_to_live, self.options.default_time_to_live, alive)
        stored = Stored(number, incoming, now, number, expires=expires)
        if like is not None:
            stored.enqueued_sequence = like.enqueued_sequence
            stored.hops = like.hops
            stored.properties = like.properties
            stored.dead_letter_source = like.dead_letter_source
        self._tell("stored", stored)
        if self.onward is None:
            self._put(stored)
        else:
            self.ground.journal.append(("next", self.path, self.next_number))
            self.onward(stored)
        return number

    def admit_scheduled(self, incoming: Incoming, now: float, when: float) -> int:
        """Keep it until then ("Message sequencing and timestamps": scheduled messages); the number to cancel it by."""
        number = self._number()
        stored = Stored(number, incoming, now, number, scheduled=True)
        stored.locked_until = when  # not locked: this is when it becomes active
        self._put(stored)
        self._tell("scheduled", stored, when=when)
        return number

    def cancel_scheduled(self, numbers: Iterable[int]) -> None:
        """Take scheduled messages back. Raises `MessageNotFound`, and takes none, if one is not there (any more)."""
        found = [stored for number in numbers if (stored := self._shelf.get(number)) and stored.scheduled]
        missing = set(numbers) - {stored.sequence_number for stored in found}
        if missing:
            raise MessageNotFound(f"{self.path}: no scheduled message has the sequence number {min(missing)}")
        for stored in found:
            self._drop(stored)
            self._tell("cancelled", stored)

    def admit_dead(self, stored: Stored, source: str) -> None:
        """A message from the entity that this is a dead-letter queue of, under the sequence number that it had.

        Time to live does not count here ("Overview of dead-letter queues").
        """
        stored.token = None
        stored.holder = None
        stored.locked_until = 0.0
        stored.scheduled = stored.deferred = False
        stored.expires = math.inf
        stored.dead_letter_source = source
        if self.onward is None:
            self._put(stored)
        else:
            self.onward(stored)

    def numbered(self, stored: Stored) -> Stored:
        """A copy of a message of another entity, under a number of this one."""
        return attrs.evolve(stored, sequence_number=self._number())

    def refuse(self, stored: Stored, reason: str, description: str) -> None:
        """What came in, or was to be forwarded, and cannot be: it becomes a dead letter without having been here."""
        assert self.dead is not None
        self._dead_letter_of(self.dead, stored, reason, description)

    def refuse_transfer(self, stored: Stored, reason: str, description: str) -> None:
        """The same for what could not be forwarded (the page on dead-letter queues: dead-lettering in auto-forward)."""
        assert self.transfer_dead is not None
        self._dead_letter_of(self.transfer_dead, stored, reason, description)

    def send_all_on(self) -> None:
        """Forwarding has just been set: what waits goes on as well."""
        assert self.onward is not None
        for stored in [stored for stored in self._shelf if self._available(stored)]:
            self._drop(stored)
            self.onward(stored)

    # What comes due

    def advance(self) -> float:
        """Apply all that has come due; the time."""
        now = self.ground.clock()
        if not self.ground.is_due(self, now):
            return now
        for number in self._schedule.due(now):
            self._activate(self._there(number), now)
        for number in self._lapses.due(now):
            self._lapse(self._there(number), now)
        for session_id in self._session_lapses.due(now):
            session = self._sessions.there(session_id)
            self._tell_session("session_lapsed", session)
            self._end_session(session, now, counted=True)
        for number in self._expiries.due(now):
            self._expire(self._there(number))
        self.ground.touch(self)
        self.ground.done()
        return now

    def _activate(self, stored: Stored, now: float) -> None:
        """A scheduled message is appended under a new sequence number when it is due."""
        self._drop(stored)
        self._tell("due", stored)
        self.admit(stored.incoming, now)

    def _lapse(self, stored: Stored, now: float) -> None:
        self._tell("lapsed", stored, token=str(stored.token))
        self._back(stored, now, counted=True)

    def _expire(self, stored: Stored) -> None:
        """Its time to live is over ("Message expiration"): dropped, or dead-lettered if the entity says so.

        What is locked or deferred stays meanwhile; it is looked at again when its lock ends.
        """
        if stored.token is None and not stored.deferred:
            self._end_life(stored)

    def _end_life(self, stored: Stored) -> None:
        if self.options.dead_lettering_on_message_expiration and self.dead is not None:
            text = "The message expired and was dead lettered."
            self._bury(stored, "TTLExpiredException", text)
        else:
            self._drop(stored)
            self._tell("expired", stored)

    # What ends

    def _back(self, stored: Stored, now: float, *, counted: bool, properties: Mapping[str, Any] | None = None) -> None:
        """Its lock has ended without it being settled; over the maximum it is dead-lettered."""
        count = self._counted(stored) if counted else stored.delivery_count
        self._free(stored, count, deferred=stored.deferred, properties=properties)
        if counted and self._bury_if_spent(stored):
            return
        if stored.expires <= now:
            self._expire(stored)
        elif self.onward is not None and self._available(stored):
            self._drop(stored)  # it was locked when forwarding was set
            self.onward(stored)

    def _counted(self, stored: Stored) -> int:
        """With one more delivery. In a dead-letter queue they are not counted (Azure/azure-sdk-for-net#53437)."""
        return stored.delivery_count + (self.dead is not None)

    def _bury_if_spent(self, stored: Stored) -> bool:
        """Dead-letter it if it was delivered often enough (the page on dead-letter queues: maximum delivery count)."""
        if self.dead is None or stored.delivery_count < self.options.max_delivery_count:
            return False
        text = f"Message could not be consumed after {self.options.max_delivery_count} delivery attempts."
        self._bury(stored, "MaxDeliveryCountExceeded", text)
        return True

    def _bury(self, stored: Stored, reason: str, description: str, properties: Mapping[str, Any] | None = None) -> None:
        assert self.dead is not None
        self._drop(stored)
        self._dead_letter_of(self.dead, stored, reason, description, properties)

    def _dead_letter_of(
        self,
        dead: Self,
        stored: Stored,
        reason: str,
        description: str,
        properties: Mapping[str, Any] | None = None,
    ) -> None:
        stored.properties = {**stored.properties, **(properties or {})}
        if reason:
            stored.properties["DeadLetterReason"] = reason
        if description:
            stored.properties["DeadLetterErrorDescription"] = description
        self._tell("dead_lettered", stored, reason=reason, into=dead.path)
        dead.admit_dead(stored, self.path)

    def _end_session(self, session: Session, now: float, *, counted: bool) -> None:
        locked = list(session.locked.values())
        self._free_session(session)
        for stored in locked:
            self._tell("lapsed" if counted else "released", stored, token=str(stored.token))
            self._back(stored, now, counted=counted)
        if not session.stored:
            self._sessions.tidy(session)
