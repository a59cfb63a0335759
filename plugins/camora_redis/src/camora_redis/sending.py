"""Publishing to queues of several kinds."""

from __future__ import annotations

from collections.abc import Sequence

from camora.message import Envelope

from camora_redis.broadcast import broadcast
from camora_redis.link import Link
from camora_redis.publishing import publish

__all__ = ["send"]


async def send(link: Link, envelopes: Sequence[Envelope]) -> list[str]:
    """As `publish`, each by its kind of queue. Broadcasts come last: they cannot be taken back, nor be told apart."""
    kinds = link.store.keys.kinds
    broadcasts = [one for one in envelopes if one.queue in kinds.broadcasts]
    if not broadcasts:
        return await publish(link, envelopes)
    stored = [one for one in envelopes if one.queue not in kinds.broadcasts]
    ids = {one.id: one_id for one, one_id in zip(stored, await publish(link, stored), strict=True)} if stored else {}
    await broadcast(link, broadcasts)
    return [ids.get(one.id, one.id) for one in envelopes]
