"""A queue, a subscription, or one of their dead-letter queues: messages that can be received.

Every rule names the page of the service's documentation that it imitates. Nothing here looks through the backlog:
each call costs O(log n) at most for each message that it is about.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from heapq import heappop, heappush
from typing import Any
from uuid import UUID

import attrs

from tests.servers.servicebus.entities.browse import Shelf
from tests.servers.servicebus.entities.deadlines import Deadlines
from tests.servers.servicebus.entities.errors import (
    Disabled,
    LockLost,
    MessageNotFound,
    NotAllowed,
    NotFound,
    SessionCannotBeLocked,
    SessionLockLost,
)
from tests.servers.servicebus.entities.ground import Ground
from tests.servers.servicebus.entities.journal import Record
from tests.servers.servicebus.entities.messages import Counts, Incoming, Locked, Stored, incoming_from, incoming_values
from tests.servers.servicebus.entities.sessions import Session, Sessions

__all__ = ["Entity"]

Onward = Callable[[Stored], None]


class Entity:
    """What one can receive from. Not safe for threads; every call first applies what has come due by the clock.

    `dead` and `transfer_dead` are its dead-letter queues; they have none themselves.
    """

    def __init__(
        self,
        ground: Ground,
        path: str,
        options: Any,
        *,
        dead: Entity | None = None,
        transfer_dead: Entity | None = None,
    ) -> None:
        self.ground = ground
        self.path = path
        self.options = options
        self.dead = dead
        self.transfer_dead = transfer_dead
        self.onward: Onward | None = None
        """Where messages go instead of staying: set for topics and for forwarding."""
        self.deleted = False
        self.size = 0
        self.next_number = 1
        self._shelf = Shelf()
        self._line: list[int] = []
        self._locks: dict[UUID, Stored] = {}
        self._lapses: Deadlines[int] = Deadlines()
        self._expiries: Deadlines[int] = Deadlines()
        self._schedule: Deadlines[int] = Deadlines()
        self._deferred = 0
        self._sessions = Sessions()
        self._session_lapses: Deadlines[str] = Deadlines()
        self._held: dict[object, dict[str, None]] = {}
        self._locked_by: dict[object, dict[int, Stored]] = {}
        self._listeners: list[Callable[[], None]] = []

    def __repr__(self) -> str:
        return f"<Entity {self.path}: {len(self._shelf)} messages>"

    # Receiving

    @property
    def with_sessions(self) -> bool:
        """Whether messages are received by sessions. A dead-letter queue has none ("Message sessions")."""
        return self.dead is not None and self.options.requires_session

    def ready(self, session: str | None = None) -> bool:
        """Whether there is something to receive: of the session, or of any session that is free, or without one."""
        self.advance()
        if not self.with_sessions:
            return self._cleared(self._line)
        if session is None:
            return self._next_session() is not None
        found = self._sessions.get(session)
        return found is not None and self._cleared(found.line)

    def lock(
        self, limit: int, holder: object, *, session: str | None = None, seconds: float | None = None
    ) -> list[Locked]:
        """Up to so many messages, oldest first, under locks ("Message transfers, locks, and settlement": PeekLock).

        The holder is whoever settles; `seconds` is the lock's time if not the entity's. Of an entity with sessions,
        those of a session that the holder has accepted: they are under the session's lock. Raises `SessionLockLost`,
        `Disabled`, `NotAllowed`.
        """
        now = self.advance()
        self._check_receivable()
        line, held = self._line_for(session, holder)
        until = held.locked_until if held else now + (self.options.lock_duration if seconds is None else seconds)
        given = []
        for stored in self._from(line, limit):
            token = UUID(int=random.getrandbits(128), version=4)
            self._hold(stored, token, until, holder)
            self._tell("locked", stored, token=str(token), until=until)
            given.append(Locked(stored, token, until, stored.delivery_count))
        self.ground.done()
        return given

    def take(self, limit: int, holder: object = None, *, session: str | None = None) -> list[Stored]:
        """Up to so many messages, oldest first, which are gone with it (the same page: ReceiveAndDelete)."""
        self.advance()
        self._check_receivable()
        line, _ = self._line_for(session, holder)
        taken = []
        for stored in self._from(line, limit):
            self._drop(stored)
            self._tell("taken", stored)
            taken.append(stored)
        self.ground.done()
        return taken

    def by_sequence(
        self, numbers: Sequence[int], holder: object, *, session: str | None = None, seconds: float | None = None
    ) -> list[Locked]:
        """Deferred messages, under locks ("Message deferral"). Raises `MessageNotFound` if one is not there."""
        now, found = self._deferred_ones(numbers, holder, session)
        held = self._sessions.get(session) if session is not None else None
        until = held.locked_until if held else now + (self.options.lock_duration if seconds is None else seconds)
        given = []
        for stored in found:
            token = UUID(int=random.getrandbits(128), version=4)
            self._hold(stored, token, until, holder)
            self._tell("locked", stored, token=str(token), until=until)
            given.append(Locked(stored, token, until, stored.delivery_count))
        self.ground.done()
        return given

    def take_by_sequence(
        self, numbers: Sequence[int], holder: object = None, *, session: str | None = None
    ) -> list[Stored]:
        """Deferred messages, gone with it. Raises `MessageNotFound`."""
        _, found = self._deferred_ones(numbers, holder, session)
        for stored in found:
            self._drop(stored)
            self._tell("taken", stored)
        self.ground.done()
        return found

    def peek(self, from_number: int, limit: int, session: str | None = None) -> list[Stored]:
        """Up to so many messages from a sequence number on, whatever their state ("Message browsing")."""
        self.advance()
        seen = []
        for stored in self._shelf.since(from_number):
            if len(seen) >= limit:
                break
            if session is None or stored.session_id == session:
                seen.append(stored)
        return seen

    # Settling

    def locked(self, token: UUID) -> Stored:
        """The message under this lock. Raises `LockLost`."""
        self.advance()
        return self._under(token)

    def complete(self, token: UUID) -> None:
        """It is done with. Raises `LockLost`."""
        self.advance()
        stored = self._under(token)
        self._drop(stored)
        self._tell("completed", stored, token=str(token))
        self.ground.done()

    def abandon(self, token: UUID, properties: Mapping[str, Any] | None = None) -> None:
        """Another delivery, and it counts. Raises `LockLost`."""
        now = self.advance()
        stored = self._under(token)
        self._tell("abandoned", stored, token=str(token))
        self._back(stored, now, counted=True, properties=properties)
        self.ground.done()

    def release(self, token: UUID) -> None:
        """Another delivery, which does not count: AMQP's `released` (Azure/amqpnetlite#342). Raises `LockLost`."""
        now = self.advance()
        stored = self._under(token)
        self._tell("released", stored, token=str(token))
        self._back(stored, now, counted=False)
        self.ground.done()

    def defer(self, token: UUID, properties: Mapping[str, Any] | None = None) -> None:
        """Keep it for who asks by its sequence number ("Message deferral"). Raises `LockLost`."""
        self.advance()
        stored = self._under(token)
        self._free(stored, stored.delivery_count, deferred=True, properties=properties)
        self._tell("deferred", stored, token=str(token))
        self.ground.done()

    def dead_letter(
        self, token: UUID, reason: str = "", description: str = "", properties: Mapping[str, Any] | None = None
    ) -> None:
        """Move it to the dead-letter queue ("Overview of dead-letter queues"). Raises `LockLost`, `NotAllowed`."""
        self.advance()
        stored = self._under(token)
        if self.dead is None:
            raise NotAllowed(f"{self.path}: what is in a dead-letter queue cannot be dead-lettered")
        self._bury(stored, reason, description, properties)
        self.ground.done()

    def renew(self, token: UUID) -> float:
        """Begin its lock anew; until when it is now. Raises `LockLost`, of a session's message `NotAllowed`."""
        now = self.advance()
        stored = self._under(token)
        if self.with_sessions:
            raise NotAllowed(f"{self.path}: the lock of a session is renewed, not that of its messages")
        until = now + self.options.lock_duration
        self._extend(stored, until)
        self._tell("renewed", stored, token=str(token), until=until)
        self.ground.done()
        return until

    def expire_locks(self) -> int:
        """Let all locks of messages and sessions lapse now: a fault on command. How many messages it were."""
        now = self.advance()
        lapsed = len(self._locks)
        for stored in list(self._locks.values()):
            if not self.with_sessions:
                self._lapse(stored, now)
        for session in self._sessions:
            if session.held:
                self._end_session(session, now, counted=True)
        self.ground.done()
        return lapsed

    # Sessions

    def accept_session(self, session_id: str | None, holder: object, seconds: float | None = None) -> Session | None:
        """A session under a lock: this one, or the next that has messages and no holder ("Message sessions").

        `None` if there is no such yet. Raises `SessionCannotBeLocked` if somebody has it, and `NotAllowed`.
        """
        now = self.advance()
        self._check_receivable()
        if not self.with_sessions:
            raise NotAllowed(f"{self.path}: has no sessions; create it with requires_session")
        if session_id is None:
            session = self._next_session()
            if session is None:
                return None
        else:
            session = self._sessions.there(session_id)
            if session.held:
                raise SessionCannotBeLocked(f"{self.path}: another receiver has the session {session_id!r}")
        self._hold_session(session, now + (self.options.lock_duration if seconds is None else seconds), holder)
        self._tell_session("session_accepted", session, until=session.locked_until)
        self.ground.done()
        return session

    def renew_session(self, session_id: str, holder: object = None) -> float:
        """Begin its lock anew; until when it is now. Raises `SessionLockLost`."""
        now = self.advance()
        session = self._held_session(session_id, holder)
        self._hold_session(session, now + self.options.lock_duration, session.holder)
        self._tell_session("session_renewed", session, until=session.locked_until)
        self.ground.done()
        return session.locked_until

    def get_state(self, session_id: str, holder: object = None) -> bytes | None:
        """The session's state, kept with it until it is set to `None`. Raises `SessionLockLost`."""
        self.advance()
        return self._held_session(session_id, holder).state

    def set_state(self, session_id: str, state: bytes | None, holder: object = None) -> None:
        """Keep this with the session. Raises `SessionLockLost`."""
        self.advance()
        session = self._held_session(session_id, holder)
        self._keep_state(session, state)
        self._tell_session("session_state", session)
        self.ground.done()

    def close_session(self, session_id: str, holder: object = None) -> None:
        """Give the session back, if it is held by this holder; that counts no delivery ("Message sessions")."""
        now = self.advance()
        session = self._sessions.get(session_id)
        if session is not None and session.held and (holder is None or session.holder is holder):
            self._end_session(session, now, counted=False)
        self.ground.done()

    def sessions(self) -> list[str]:
        """The ids of all sessions that have messages or a state."""
        self.advance()
        return [session.session_id for session in self._sessions if session.stored or session.state is not None]

    # Those who wait

    def listen(self, callback: Callable[[], None]) -> None:
        """Call this when something may have become available. It is called at the end of a call, and may call back."""
        self._listeners.append(callback)

    def unlisten(self, callback: Callable[[], None]) -> None:
        if callback in self._listeners:
            self._listeners.remove(callback)

    def wake(self) -> None:
        for callback in list(self._listeners):
            callback()

    def end(self) -> None:
        """It is deleted: those who wait hear of it, and get `NotFound` for whatever they ask."""
        self.deleted = True
        self.wake()

    def holder_gone(self, holder: object, *, locks_too: bool) -> None:
        """A holder is gone. Its sessions end with it; its locks stay until they lapse, or end now, not counted.

        The locks are the broker's, not the connection's: clients settle over another one (notes of azservicebus 1.10).
        """
        now = self.advance()
        for session_id in self._held.pop(holder, {}):
            if (session := self._sessions.get(session_id)) and session.held and session.holder is holder:
                self._end_session(session, now, counted=False)
        for stored in list(self._locked_by.pop(holder, {}).values()):
            stored.holder = None
            if locks_too:
                self._tell("released", stored, token=str(stored.token))
                self._back(stored, now, counted=False)
        self.ground.done()

    def counts(self) -> Counts:
        """How many there are ("Message counters")."""
        self.advance()
        dead, transfer = self.dead, self.transfer_dead
        return Counts(
            active=len(self._shelf) - len(self._schedule),
            dead=len(dead._shelf) if dead else 0,
            scheduled=len(self._schedule),
            deferred=self._deferred,
            transfer_dead=len(transfer._shelf) if transfer else 0,
            size=self.whole_size(),
        )

    def whole_size(self) -> int:
        """Bytes, those of its dead-letter queues too: they count for the same quota."""
        return self.size + sum(sub.size for sub in (self.dead, self.transfer_dead) if sub)

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

    def due(self) -> float | None:
        """When something changes by itself."""
        firsts = (queue.first() for queue in (self._lapses, self._expiries, self._schedule, self._session_lapses))
        return min((first for first in firsts if first is not None), default=None)

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
        if stored.token is not None or stored.deferred:
            return
        if self.options.dead_lettering_on_message_expiration and self.dead is not None:
            text = "The message expired and was dead lettered."
            self._bury(stored, "TTLExpiredException", text)
        else:
            self._drop(stored)
            self._tell("expired", stored)

    # Inside: what is looked up

    def _there(self, number: int) -> Stored:
        stored = self._shelf.get(number)
        assert stored is not None
        return stored

    def _available(self, stored: Stored) -> bool:
        return stored.token is None and not stored.deferred and not stored.scheduled

    def _cleared(self, line: list[int]) -> bool:
        """Whether anything waits in the line; takes out of its head what does not."""
        while line:
            stored = self._shelf.get(line[0])
            if stored is not None and self._available(stored):
                return True
            heappop(line)
        return False

    def _from(self, line: list[int], limit: int) -> Iterator[Stored]:
        while limit > 0 and self._cleared(line):
            limit -= 1
            yield self._there(heappop(line))

    def _line_for(self, session: str | None, holder: object) -> tuple[list[int], Session | None]:
        if not self.with_sessions:
            return self._line, None
        if session is None:
            raise NotAllowed(f"{self.path}: requires sessions; accept one first")
        held = self._held_session(session, holder)
        return held.line, held

    def _next_session(self) -> Session | None:
        while (session := self._sessions.offered()) is not None:
            if self._cleared(session.line):
                return session
            self._sessions.withdraw(session)
        return None

    def _held_session(self, session_id: str, holder: object) -> Session:
        session = self._sessions.get(session_id)
        if session is None or not session.held or (holder is not None and session.holder is not holder):
            raise SessionLockLost(f"{self.path}: the lock of the session {session_id!r} has lapsed; accept it again")
        return session

    def _under(self, token: UUID) -> Stored:
        if self.deleted:
            raise NotFound(f"{self.path}: was deleted")
        stored = self._locks.get(token)
        if stored is not None:
            return stored
        if self.with_sessions:
            raise SessionLockLost(f"{self.path}: the session lock of the message has lapsed, or it was settled before")
        raise LockLost(f"{self.path}: the lock {token} has lapsed, or the message was settled before")

    def _deferred_ones(self, numbers: Sequence[int], holder: object, session: str | None) -> tuple[float, list[Stored]]:
        now = self.advance()
        self._check_receivable()
        if self.with_sessions:
            self._line_for(session, holder)
        found = []
        for number in numbers:
            stored = self._shelf.get(number)
            if stored is None or not stored.deferred or stored.token is not None:
                raise MessageNotFound(f"{self.path}: no deferred message has the sequence number {number}")
            if self.with_sessions and stored.session_id != session:
                raise MessageNotFound(f"{self.path}: the message {number} is of another session")
            found.append(stored)
        return now, found

    def _check_receivable(self) -> None:
        if self.deleted:
            raise NotFound(f"{self.path}: was deleted")
        if not self.options.can_receive():
            raise Disabled(f"{self.path}: is {self.options.status}; set its status to Active to receive")
        if self.onward is not None:
            raise NotAllowed(f"{self.path}: forwards its messages; receive them where they go")

    def _number(self) -> int:
        number = self.next_number
        self.next_number += 1
        return number

    # Inside: how messages move

    def _back(self, stored: Stored, now: float, *, counted: bool, properties: Mapping[str, Any] | None = None) -> None:
        """Its lock has ended without it being settled; over the maximum it is dead-lettered.

        In a dead-letter queue deliveries are not counted (Azure/azure-sdk-for-net#53437).
        """
        count = stored.delivery_count + (counted and self.dead is not None)
        self._free(stored, count, deferred=stored.deferred, properties=properties)
        if counted and self.dead is not None and count >= self.options.max_delivery_count:
            text = f"Message could not be consumed after {self.options.max_delivery_count} delivery attempts."
            self._bury(stored, "MaxDeliveryCountExceeded", text)
        elif stored.expires <= now:
            self._expire(stored)
        elif self.onward is not None and self._available(stored):
            self._drop(stored)  # it was locked when forwarding was set
            self.onward(stored)

    def _bury(self, stored: Stored, reason: str, description: str, properties: Mapping[str, Any] | None = None) -> None:
        assert self.dead is not None
        self._drop(stored)
        self._dead_letter_of(self.dead, stored, reason, description, properties)

    def _dead_letter_of(
        self,
        dead: Entity,
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

    # Inside: the changes that the journal knows; replaying calls the same

    def _put(self, stored: Stored) -> None:
        self._shelf.put(stored)
        self.size += stored.incoming.size
        number = stored.sequence_number
        self.next_number = max(self.next_number, number + 1)
        if self.with_sessions and stored.session_id is not None:
            self._sessions.there(stored.session_id).stored += 1
        if stored.scheduled:
            self._schedule.set(number, stored.locked_until)
        elif stored.expires != math.inf:
            self._expiries.set(number, stored.expires)
        self._deferred += stored.deferred
        if self._available(stored):
            self._queue(stored)
        self.ground.touch(self)
        self.ground.journal.append(self._record_of(stored))

    def _drop(self, stored: Stored) -> None:
        number = stored.sequence_number
        self._shelf.remove(number)
        self.size -= stored.incoming.size
        self._unlock(stored)
        self._expiries.drop(number)
        self._schedule.drop(number)
        self._deferred -= stored.deferred
        if self.with_sessions and stored.session_id is not None:
            session = self._sessions.there(stored.session_id)
            session.stored -= 1
            self._sessions.tidy(session)
        self.ground.touch(self)
        self.ground.journal.append(("drop", self.path, number))

    def _hold(self, stored: Stored, token: UUID, until: float, holder: object) -> None:
        stored.token = token
        stored.locked_until = until
        stored.holder = holder
        self._locks[token] = stored
        if holder is not None:
            self._locked_by.setdefault(holder, {})[stored.sequence_number] = stored
        if self.with_sessions and stored.session_id is not None:
            self._sessions.there(stored.session_id).locked[stored.sequence_number] = stored
        else:
            self._lapses.set(stored.sequence_number, until)
        self.ground.touch(self)
        self.ground.journal.append(("hold", self.path, stored.sequence_number, token.bytes, until))

    def _extend(self, stored: Stored, until: float) -> None:
        assert stored.token is not None
        self._hold(stored, stored.token, until, stored.holder)

    def _free(
        self,
        stored: Stored,
        delivery_count: int,
        *,
        deferred: bool,
        properties: Mapping[str, Any] | None = None,
    ) -> None:
        self._unlock(stored)
        stored.delivery_count = delivery_count
        self._deferred += deferred - stored.deferred
        stored.deferred = deferred
        if properties:
            stored.properties = {**stored.properties, **properties}
        if self._available(stored):
            self._queue(stored)
        self.ground.touch(self)
        changed = dict(properties) if properties else None
        self.ground.journal.append(("free", self.path, stored.sequence_number, delivery_count, deferred, changed))

    def _hold_session(self, session: Session, until: float, holder: object) -> None:
        self._sessions.withdraw(session)
        session.held = True
        session.locked_until = until
        session.holder = holder
        if holder is not None:
            self._held.setdefault(holder, {})[session.session_id] = None
        for stored in session.locked.values():
            stored.locked_until = until
        self._session_lapses.set(session.session_id, until)
        self.ground.touch(self)
        self.ground.journal.append(("session", self.path, session.session_id, until))

    def _free_session(self, session: Session) -> None:
        """The session has no holder any more. Its locked messages are freed one by one, by who calls this."""
        self._session_lapses.drop(session.session_id)
        if session.holder is not None:
            of_holder = self._held.get(session.holder, {})
            of_holder.pop(session.session_id, None)
            if not of_holder:
                self._held.pop(session.holder, None)
        session.held = False
        session.holder = None
        if self._cleared(session.line):
            self._sessions.offer(session)
            self.ground.touch(self, woken=True)
        self.ground.touch(self)
        self.ground.journal.append(("session", self.path, session.session_id, None))

    def _keep_state(self, session: Session, state: bytes | None) -> None:
        session.state = state
        self.ground.touch(self)
        self.ground.journal.append(("state", self.path, session.session_id, state))

    def _unlock(self, stored: Stored) -> None:
        number = stored.sequence_number
        if stored.token is None:
            return
        del self._locks[stored.token]
        self._lapses.drop(number)
        if stored.holder is not None:
            of_holder = self._locked_by.get(stored.holder, {})
            of_holder.pop(number, None)
            if not of_holder:
                self._locked_by.pop(stored.holder, None)
        if self.with_sessions and stored.session_id is not None:
            self._sessions.there(stored.session_id).locked.pop(number, None)
        stored.token = None
        stored.holder = None

    def _queue(self, stored: Stored) -> None:
        """It waits to be received, at the place in the order that its number gives it."""
        if self.with_sessions and stored.session_id is not None:
            session = self._sessions.there(stored.session_id)
            heappush(session.line, stored.sequence_number)
            if not session.held:
                self._sessions.offer(session)
        else:
            heappush(self._line, stored.sequence_number)
        self.ground.touch(self, woken=True)

    # The journal

    def replay(self, record: Record) -> None:
        """Do again what a record says."""
        kind, _, key, *rest = record
        if kind == "put":
            self._put(_stored_from(key, rest))
        elif kind == "drop":
            self._drop(self._there(key))
        elif kind == "hold":
            token, until = rest
            stored = self._there(key)
            self._hold(stored, UUID(bytes=token), until, None)
        elif kind == "free":
            delivery_count, deferred, properties = rest
            self._free(self._there(key), delivery_count, deferred=deferred, properties=properties)
        elif kind == "session":
            session = self._sessions.there(key)
            if rest[0] is None:
                self._free_session(session)
                self._sessions.tidy(session)
            else:
                self._hold_session(session, rest[0], None)
        elif kind == "state":
            self._keep_state(self._sessions.there(key), rest[0])
        elif kind == "next":
            self.next_number = key

    def records(self) -> Iterator[Record]:
        """What brings an empty entity to where this one is."""
        yield ("next", self.path, self.next_number)
        for session in self._sessions:
            if session.held:
                yield ("session", self.path, session.session_id, session.locked_until)
            if session.state is not None:
                yield ("state", self.path, session.session_id, session.state)
        for stored in self._shelf:
            yield self._record_of(stored)
            if stored.token is not None:
                yield ("hold", self.path, stored.sequence_number, stored.token.bytes, stored.locked_until)

    def _record_of(self, stored: Stored) -> Record:
        return (
            "put", self.path, stored.sequence_number, incoming_values(stored.incoming), stored.enqueued,
            stored.enqueued_sequence, stored.expires, stored.delivery_count, stored.scheduled, stored.deferred,
            stored.properties, stored.dead_letter_source, stored.hops, stored.locked_until,
        )  # fmt: skip

    # The log

    def tell_of(self, message: Incoming, event: str) -> None:
        """Something happened to a message that is not stored."""
        about = {"message_id": message.message_id, "session": message.session_id}
        self.ground.tell({"event": event, "at": self.ground.clock(), "entity": self.path, "sequence": 0, **about})

    def _tell(self, event: str, stored: Stored, **more: Any) -> None:
        incoming = stored.incoming
        self.ground.tell(
            {
                "event": event,
                "at": self.ground.clock(),
                "entity": self.path,
                "sequence": stored.sequence_number,
                "message_id": incoming.message_id,
                "session": incoming.session_id,
                "delivery_count": stored.delivery_count,
                **more,
            }
        )

    def _tell_session(self, event: str, session: Session, **more: Any) -> None:
        at = self.ground.clock()
        self.ground.tell({"event": event, "at": at, "entity": self.path, "session": session.session_id, **more})


def _stored_from(number: int, values: Sequence[Any]) -> Stored:
    incoming, enqueued, first, expires, count, scheduled, deferred, properties, source, hops, until = values
    return Stored(
        number, incoming_from(incoming), enqueued, first, expires, count, scheduled, deferred, properties, source,
        hops, locked_until=until,
    )  # fmt: skip
