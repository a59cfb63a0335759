"""Publishing to queues of several kinds."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from camora.message import Envelope

from camora_redis.broadcast import broadcast
from camora_redis.link import Link
from camora_redis.lists import check_body, push
from camora_redis.publishing import publish

__all__ = ["send"]


async def send(link: Link, envelopes: Sequence[Envelope]) -> list[str]:
    """As `publish`, each by its kind of queue.

    Broadcasts come last: they cannot be repeated unheard. Raises as `publish`, and `UnsupportedCapability` for what a
    kind of queue cannot carry; then nothing was sent.
    """
    kinds = link.store.keys.kinds
    if kinds.plain:
        return await publish(link, envelopes)
    kinds.check(envelopes)
    ids = [envelope.id for envelope in envelopes]
    stored: list[int] = []
    spoken: list[Envelope] = []
    pushed: dict[str, list[Envelope]] = {}
    for number, envelope in enumerate(envelopes):
        if envelope.queue in kinds.broadcasts:
            spoken.append(envelope)
        elif envelope.queue in kinds.lists:
            check_body(envelope)
            pushed.setdefault(envelope.queue, []).append(envelope)
        else:
            stored.append(number)
    if stored:
        for number, job_id in zip(stored, await publish(link, [envelopes[n] for n in stored]), strict=True):
            ids[number] = job_id
    if pushed:
        await asyncio.gather(*(push(link, kinds.lists[queue], some) for queue, some in pushed.items()))
    if spoken:
        await broadcast(link, spoken)
    return ids
