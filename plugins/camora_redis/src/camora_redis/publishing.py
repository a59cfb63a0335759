"""Publishing: one script for each queue."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec
from camora.message import Envelope

from camora_redis.batches import LARGE, batches
from camora_redis.errors import ConnectionLost, Halfway, TooFewCopies
from camora_redis.link import Link
from camora_redis.scripting import script

__all__ = ["packed_envelope", "publish", "replicas_for"]

_PUBLISH, _ONE = script("publish"), script("publish_one")
_PLAIN = 3
"""How long `packed_envelope` is for a message without wishes."""
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

    Raises as `Link.run`, `TooFewCopies` where all of it is stored, or `Halfway`.
    """
    if len(envelopes) == 1:
        return await _store(link, envelopes)
    by_queue: dict[str, list[int]] = {}
    for number, envelope in enumerate(envelopes):
        by_queue.setdefault(envelope.queue, []).append(number)
    ids = [""] * len(envelopes)
    errors: list[Exception] = []

    async def part(numbers: Sequence[int]) -> None:
        # One after the other: together they would not get through either.
        for some in batches(numbers, lambda number: len(envelopes[number].body), LARGE // len(by_queue)):
            try:
                found = await _store(link, [envelopes[number] for number in some])
            except TooFewCopies as error:
                errors.append(error)  # they are stored, and so the rest is to be
                found = [envelopes[number].id for number in some]
            for number, one in zip(some, found, strict=True):
                ids[number] = one

    answers = await asyncio.gather(*(part(numbers) for numbers in by_queue.values()), return_exceptions=True)
    _raise_worst([*_errors(answers), *errors], some=any(ids))
    return ids


def _errors(answers: Sequence[BaseException | None]) -> list[Exception]:
    found: list[Exception] = []
    for answer in answers:
        if isinstance(answer, Exception):
            found.append(answer)
        elif answer is not None:
            raise answer
    return found


def _raise_worst(errors: Sequence[Exception], *, some: bool) -> None:
    """Raise the first error; `some` of the batch is stored, which must not be taken for nothing."""
    if not errors:
        return
    if some and not isinstance(errors[0], ConnectionLost):
        raise Halfway(errors[0]) from errors[0]
    raise errors[0]


async def _store(link: Link, envelopes: Sequence[Envelope]) -> list[str]:
    """Of one queue, at once."""
    blobs: list[bytes] = []
    packed = [packed_envelope(envelope, blobs) for envelope in envelopes]
    stream = link.store.keys.of_queue(envelopes[0].queue)
    if len(packed) == 1 and len(packed[0]) == _PLAIN:
        what, words = _ONE, (*packed[0][:2], blobs[0])
    else:
        what, words = _PUBLISH, (_pack(packed), *blobs)
    if replicas := replicas_for(link, envelopes):
        answer = await link.run_copied(replicas, what, (stream,), *words)
    else:
        answer = await link.run(what, (stream,), *words)
    return [one.decode() for one in answer]
