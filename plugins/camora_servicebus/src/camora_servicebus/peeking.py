"""Looking at messages without taking them: from where they are, in order of their sequence numbers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterable
from typing import Any

from camora_servicebus.handles import Handles, Kind, NoEntity

__all__ = ["peeked", "peeked_at", "peeked_of"]

_PAGE = 200
"""Messages of one answer; the service answers with fewer where they are large."""


async def peeked(
    handles: Handles, entity: str, *, dead: bool = False, start: int = 1, most: int | None = None
) -> AsyncIterator[Any]:
    """The messages of an entity, or its dead letters, from this sequence number on: those that are locked, too.

    Each one says in `state` whether it is active, scheduled or deferred. None where there is no such entity.
    """
    kind: Kind = "dead" if dead else "look"
    left = most
    while left is None or left > 0:
        count = _PAGE if left is None else min(_PAGE, left)

        async def look(receiver: Any, start: int = start, count: int = count) -> list[Any]:
            found: list[Any] = await receiver.peek_messages(count, sequence_number=start, timeout=handles.timeout)
            return found

        try:
            page = await handles.use(kind, entity, look)
        except NoEntity:
            return
        for message in page:
            yield message
        if not page:
            return
        start = page[-1].sequence_number + 1
        left = None if left is None else left - len(page)


async def peeked_of(handles: Handles, entities: Iterable[str], *, dead: bool = False) -> AsyncIterator[tuple[str, Any]]:
    """The same of several, one after the other: entity and message."""
    for entity in entities:
        async for message in peeked(handles, entity, dead=dead):
            yield entity, message


async def peeked_at(handles: Handles, entity: str, numbers: Collection[int], *, dead: bool = False) -> dict[int, Any]:
    """Those of an entity's messages that still lie at these sequence numbers, by these; few answers bring them."""
    found: dict[int, Any] = {}
    left = sorted(numbers)
    while left:
        first = left[0]
        last = max(number for number in left if number < first + _PAGE)
        end = first
        async for message in peeked(handles, entity, dead=dead, start=first, most=last - first + 1):
            end = message.sequence_number
            found[end] = message
            if end >= last:
                break
        else:
            end = last
        left = [number for number in left if number > end]
    return {number: found[number] for number in numbers if number in found}
