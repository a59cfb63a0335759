"""Entries of streams as deliveries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from camora.message import Delivery

from camora_redis.receipt import Receipt

__all__ = ["deliveries_of", "delivery_of"]


def deliveries_of(lanes: Sequence[Any], queues: Sequence[str]) -> list[Delivery]:
    """What the script `take` lends: of each lane the number of its queue from 1, its priority, and its entries."""
    found = []
    for number, priority, entries in lanes:
        queue = queues[number - 1]
        for entry, fields, *taken in entries:
            found.append(delivery_of(queue, priority, entry, fields, taken[0] if taken else 1))
    return found


def delivery_of(queue: str, priority: int, entry: bytes, fields: Any, taken: int) -> Delivery:
    """One entry, taken so often from the stream it lies in."""
    try:
        # As `scripts/common.lua` writes them: id, task and body come first; the rest is rare.
        if len(fields) == 6 and fields[4] == b"b":
            return Delivery(
                id=fields[1].decode(),
                queue=queue,
                body=fields[5],
                deliveries=taken,
                receipt=Receipt(priority, entry.decode(), taken),
            )
        named = dict(zip(fields[::2], fields[1::2], strict=True))
        key = named.get(b"k", b"").decode()
        return Delivery(
            id=named[b"i"].decode(),
            queue=queue,
            body=named[b"b"],
            deliveries=int(named.get(b"n", 0)) + taken,
            receipt=Receipt(priority, entry.decode(), taken, key, float(named.get(b"l", 0))),
        )
    except (KeyError, ValueError):
        # A stranger has written it. Nobody can decode an empty body: it becomes a dead letter, with all its fields.
        name = entry.decode()
        return Delivery(id=name, queue=queue, body=b"", deliveries=taken, receipt=Receipt(priority, name, taken))
