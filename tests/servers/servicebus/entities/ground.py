"""What the entities of a namespace stand on: one clock, one journal, one log of events, one list of what is due."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from tests.servers.servicebus.entities.deadlines import Deadlines
from tests.servers.servicebus.entities.journal import Journal

__all__ = ["Ground", "Member"]


class Member(Protocol):
    """Something that changes by itself, and that others wait for."""

    path: str

    def __hash__(self) -> int: ...

    def due(self) -> float | None: ...

    def advance(self) -> float: ...

    def wake(self) -> None: ...


class Ground:
    """Shared by all entities of a namespace."""

    def __init__(self, clock: Callable[[], float], journal: Journal, tell: Callable[[dict[str, Any]], None]) -> None:
        self.clock = clock
        self.journal = journal
        self.tell = tell
        self.deadlines: Deadlines[Member] = Deadlines()
        self._known: dict[Member, float | None] = {}
        self._touched: dict[Member, bool] = {}

    def touch(self, member: Member, woken: bool = False) -> None:
        """It was changed; `woken` if there may be something to receive now."""
        self._touched[member] = woken or self._touched.get(member, False)

    def is_due(self, member: Member, now: float) -> bool:
        """Whether anything of it has come due: as of the end of the last call."""
        first = self._known.get(member)
        return first is not None and first <= now

    def done(self) -> None:
        """What was called is done: write it down, then tell who waits. Every public call of an entity ends here."""
        self.journal.flush()
        if not self._touched:
            return
        touched, self._touched = self._touched, {}
        for member in touched:
            self._note(member)
        for member, woken in touched.items():
            if woken:
                member.wake()

    def forget(self, member: Member) -> None:
        """It is deleted."""
        self._touched.pop(member, None)
        self._known.pop(member, None)
        self.deadlines.drop(member)

    def _note(self, member: Member) -> None:
        first = member.due()
        if first == self._known.get(member):
            return
        self._known[member] = first
        if first is None:
            self.deadlines.drop(member)
        else:
            self.deadlines.set(member, first)
