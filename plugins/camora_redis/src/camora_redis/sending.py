"""Publishing to queues of several kinds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from camora.errors import BrokerUnavailable, ConfigurationError
from camora.message import Envelope

from camora_redis.broadcast import broadcast
from camora_redis.errors import Halfway, TooFewCopies
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
    few: list[TooFewCopies] = []  # what they are about is stored, and so the rest is to be
    if stored:
        try:
            for number, job_id in zip(stored, await publish(link, [envelopes[n] for n in stored]), strict=True):
                ids[number] = job_id
        except TooFewCopies as error:
            few.append(error)
    await _push_all(link, pushed, few, done=bool(stored))
    if spoken:
        await broadcast(link, spoken)
    if few:
        raise few[0]
    return ids


async def _push_all(
    link: Link, pushed: Mapping[str, Sequence[Envelope]], few: list[TooFewCopies], *, done: bool
) -> None:
    """Push into several lists. `done`: some of the batch is stored elsewhere."""
    for number, (queue, some) in enumerate(pushed.items()):
        try:
            await push(link, link.store.keys.kinds.lists[queue], some)
        except TooFewCopies as error:
            few.append(error)
        except (BrokerUnavailable, ConfigurationError) as error:
            if not done and not number:
                raise
            # What lies in another list would lie there twice.
            raise Halfway(error, final=number > 0) from error
