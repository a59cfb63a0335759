"""Messages by their sequence number, to be looked through in order from any number on."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator

from tests.servers.servicebus.entities.messages import Stored

__all__ = ["Shelf"]


class Shelf:
    """A dictionary with an order: putting at the end, taking out and finding are O(1), finding a place O(log n)."""

    __slots__ = ("_order", "_stored")

    def __init__(self) -> None:
        self._stored: dict[int, Stored] = {}
        self._order: list[int] = []  # ascending; may have numbers that are gone

    def __len__(self) -> int:
        return len(self._stored)

    def __iter__(self) -> Iterator[Stored]:
        return self.since(0)

    def get(self, number: int) -> Stored | None:
        return self._stored.get(number)

    def put(self, stored: Stored) -> None:
        number = stored.sequence_number
        if number in self._stored:
            raise AssertionError(f"the sequence number {number} is there already")
        self._stored[number] = stored
        if not self._order or number > self._order[-1]:
            self._order.append(number)
        elif self._order[place := bisect_left(self._order, number)] != number:
            insort(self._order, number, place)  # a dead letter of a message older than the last

    def remove(self, number: int) -> Stored:
        stored = self._stored.pop(number)
        if len(self._order) > 2 * len(self._stored) + 64:
            self._order = sorted(self._stored)
        return stored

    def since(self, number: int) -> Iterator[Stored]:
        """All from this number on, in order. Nothing may be put in or taken out meanwhile."""
        for index in range(bisect_left(self._order, number), len(self._order)):
            stored = self._stored.get(self._order[index])
            if stored is not None:
                yield stored
