"""A queue, a subscription, or one of their dead-letter queues: messages that can be received.

Every rule names the page of the service's documentation that it imitates. Nothing here looks through the backlog:
each call costs O(log n) at most for each message that it is about.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from heapq import heappop
from typing import Any
from uuid import UUID

from tests.servers.servicebus.entities.errors import (
    Disabled,
    LockLost,
    MessageNotFound,
    NotAllowed,
    NotFound,
    SessionCannotBeLocked,
    SessionLockLost,
)
from tests.servers.servicebus.entities.messages import Counts, Locked, Stored
from tests.servers.servicebus.entities.movement import Movement
from tests.servers.servicebus.entities.sessions import Session

__all__ = ["Entity"]


class Entity(Movement):
    """What one can receive from. Not safe for threads; every call first applies what has come due by the clock.

    `dead` and `transfer_dead` are its dead-letter queues; they have none themselves.
    """

    # Receiving

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
        seen: list[Stored] = []
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
        """Keep it for who asks by its sequence number ("Message deferral"). Raises `LockLost`.

        The delivery counts; the last one allowed ends in the dead-letter queue (Azure/azure-service-bus#375).
        """
        self.advance()
        stored = self._under(token)
        self._tell("deferred", stored, token=str(token))
        count = self._counted(stored)
        self._free(stored, count, deferred=True, properties=properties)
        self._bury_if_spent(stored)
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
        until: float = now + self.options.lock_duration
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
        # No order among competing consumers is promised. Here newcomers are called first, and who has just got
        # something last.
        self._listeners.insert(0, callback)

    def served(self, callback: Callable[[], None]) -> None:
        """Whoever is called by this has just got something: the next time it is called last."""
        if callback in self._listeners:
            self._listeners.remove(callback)
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

    # What the calls share

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
        self._expire_deferred(found, now)
        return now, found

    def _expire_deferred(self, found: Sequence[Stored], now: float) -> None:
        """Deferred messages expire only when somebody wants to have them (Azure/azure-sdk-for-net#30252)."""
        late = [stored for stored in found if stored.expires <= now]
        for stored in late:
            self._end_life(stored)
        if late:
            self.ground.done()
            raise MessageNotFound(f"{self.path}: the deferred message {late[0].sequence_number} has expired")

    def _check_receivable(self) -> None:
        if self.deleted:
            raise NotFound(f"{self.path}: was deleted")
        if not self.options.can_receive():
            raise Disabled(f"{self.path}: is {self.options.status}; set its status to Active to receive")
        if self.onward is not None:
            raise NotAllowed(f"{self.path}: forwards its messages; receive them where they go")
