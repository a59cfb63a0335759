"""What an entity holds, and the few changes to it that the journal knows: replaying calls the same."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from heapq import heappop, heappush
from typing import Any, Self
from uuid import UUID

from tests.servers.servicebus.entities.browse import Shelf
from tests.servers.servicebus.entities.deadlines import Deadlines
from tests.servers.servicebus.entities.ground import Ground
from tests.servers.servicebus.entities.journal import Record
from tests.servers.servicebus.entities.messages import Incoming, Stored, incoming_from, incoming_values
from tests.servers.servicebus.entities.sessions import Session, Sessions

__all__ = ["State"]

Onward = Callable[[Stored], None]


class State(ABC):
    """Messages, the lines in which they wait, their locks, and the sessions. It has no rules: see `movement`."""

    def __init__(
        self,
        ground: Ground,
        path: str,
        options: Any,
        *,
        dead: Self | None = None,
        transfer_dead: Self | None = None,
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
        self._times: tuple[Deadlines[Any], ...] = (self._lapses, self._expiries, self._schedule, self._session_lapses)
        self._held: dict[object, dict[str, None]] = {}
        self._locked_by: dict[object, dict[int, Stored]] = {}
        self._listeners: list[Callable[[], None]] = []

    def __repr__(self) -> str:
        return f"<Entity {self.path}: {len(self._shelf)} messages>"

    @property
    def with_sessions(self) -> bool:
        """Whether messages are received by sessions. A dead-letter queue has none ("Message sessions")."""
        return self.dead is not None and self.options.requires_session

    def whole_size(self) -> int:
        """Bytes, those of its dead-letter queues too: they count for the same quota."""
        return self.size + sum(sub.size for sub in (self.dead, self.transfer_dead) if sub)

    def due(self) -> float | None:
        """When something changes by itself."""
        soonest = None
        for times in self._times:
            if len(times) and (first := times.first()) is not None and (soonest is None or first < soonest):
                soonest = first
        return soonest

    @abstractmethod
    def advance(self) -> float:
        """Apply what has come due; the time."""

    @abstractmethod
    def wake(self) -> None:
        """Call those who wait."""

    # What is looked up

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

    def _number(self) -> int:
        number = self.next_number
        self.next_number += 1
        return number

    # The changes

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
