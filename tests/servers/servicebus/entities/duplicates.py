"""Which message ids were sent lately ("Duplicate detection")."""

from __future__ import annotations

from collections.abc import Iterator

from tests.servers.servicebus.entities.deadlines import Deadlines

__all__ = ["History", "Identity"]

Identity = tuple[str, str]
"""Partition key (empty where the entity is not partitioned) and message id."""


class History:
    """The ids of a window of time. It counts from the first message of an id: a duplicate does not lengthen it."""

    __slots__ = ("_until", "_whens")

    def __init__(self) -> None:
        self._until: Deadlines[Identity] = Deadlines()
        self._whens: dict[Identity, float] = {}

    def knows(self, identity: Identity, now: float) -> bool:
        self.forget(now)
        return identity in self._until

    def remember(self, identity: Identity, until: float) -> None:
        self._until.set(identity, until)
        self._whens[identity] = until

    def forget(self, now: float) -> None:
        for identity in self._until.due(now):
            del self._whens[identity]

    def __iter__(self) -> Iterator[tuple[Identity, float]]:
        return iter(self._whens.items())
