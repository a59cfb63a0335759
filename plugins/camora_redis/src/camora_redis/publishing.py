"""Publishing: one script for each queue."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec
from camora.message import Envelope

from camora_redis.link import Link, script

__all__ = ["packed_envelope", "publish", "replicas_for"]

_PUBLISH = script("publish")
_BATCH = 500
_pack = msgspec.msgpack.Encoder().encode


def packed_envelope(envelope: Envelope, blobs: list[bytes], *, whole: bool = False) -> tuple[Any, ...]:
    """As the scripts read it: most have nothing but id, task and body, which goes to the blobs."""
    blobs.append(envelope.body)
    if not whole and not (envelope.due or envelope.expires or envelope.priority or envelope.key):
        return (envelope.id, envelope.task, len(blobs))
    return (
        envelope.id,
        envelope.task,
        len(blobs),
        envelope.due,
        envelope.expires or 0,
        envelope.priority,
        envelope.key or "",
        envelope.key_ttl,
    )


def replicas_for(link: Link, envelopes: Sequence[Envelope]) -> int:
    """How many replicas must have these: what the settings ask for, or each task or dispatch by itself."""
    usual = link.store.settings.wait_replicas
    given = [envelope.options for envelope in envelopes if envelope.options is not None]
    if not given:
        return usual
    most: int = max(options.get("wait_replicas", usual) for options in given)
    return most if len(given) == len(envelopes) else max(most, usual)


async def publish(link: Link, envelopes: Sequence[Envelope]) -> list[str]:
    """Store a batch, on replicas too where they are asked for; the ids that stand for the messages.

    Raises as `Link.run`, or `TooFewCopies`.
    """
    keys = link.store.keys
    queue = envelopes[0].queue
    if len(envelopes) <= _BATCH and all(envelope.queue == queue for envelope in envelopes):
        blobs: list[bytes] = []
        packed = _pack([packed_envelope(envelope, blobs) for envelope in envelopes])
        stream = keys.of_queue(queue)
        if replicas := replicas_for(link, envelopes):
            answer = await link.run_copied(replicas, _PUBLISH, (stream,), packed, *blobs)
        else:
            answer = await link.run(_PUBLISH, (stream,), packed, *blobs)
        return [one.decode() for one in answer]
    by_queue: dict[str, list[int]] = {}
    for number, envelope in enumerate(envelopes):
        by_queue.setdefault(envelope.queue, []).append(number)
    ids = [""] * len(envelopes)

    async def part(queue: str, numbers: Sequence[int]) -> None:
        for at in range(0, len(numbers), _BATCH):
            some = numbers[at : at + _BATCH]
            for number, one in zip(some, await publish(link, [envelopes[number] for number in some]), strict=True):
                ids[number] = one

    await asyncio.gather(*(part(queue, numbers) for queue, numbers in by_queue.items()))
    return ids
