"""The sessions of an entity: who has which, their order of messages, and their state ("Message sessions")."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

import attrs

from tests.servers.servicebus.entities.messages import Stored

__all__ = ["Session", "Sessions"]


@attrs.define(slots=True, eq=False)
class Session:
    """One session: its messages wait in `line`, a heap of sequence numbers."""

    session_id: str
    state: bytes | None = None
    holder: object = None
    held: bool = False
    locked_until: float = 0.0
    line: list[int] = attrs.field(factory=list)
    locked: dict[int, Stored] = attrs.field(factory=dict)
    stored: int = 0
    """How many messages of it there are, whatever their state."""


class Sessions:
    """All sessions that have messages, a state or a holder; and those free to be accepted, longest waiting first."""

    def __init__(self) -> None:
        self._all: dict[str, Session] = {}
        self._free: OrderedDict[str, Session] = OrderedDict()

    def __iter__(self) -> Iterator[Session]:
        return iter(list(self._all.values()))

    def get(self, session_id: str) -> Session | None:
        return self._all.get(session_id)

    def there(self, session_id: str) -> Session:
        """It, made if it is not there."""
        session = self._all.get(session_id)
        if session is None:
            session = self._all[session_id] = Session(session_id)
        return session

    def offer(self, session: Session) -> None:
        """It has messages and no holder."""
        self._free[session.session_id] = session

    def withdraw(self, session: Session) -> None:
        self._free.pop(session.session_id, None)

    def offered(self) -> Session | None:
        return next(iter(self._free.values()), None)

    def tidy(self, session: Session) -> None:
        """Forget it if nothing is left of it."""
        if not session.stored and not session.held and session.state is None:
            self.withdraw(session)
            self._all.pop(session.session_id, None)
