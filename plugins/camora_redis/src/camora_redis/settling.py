"""Settlements as the server's script wants them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from camora.message import Delivery, Envelope
from camora.outcome import Action, Settlement

from camora_redis.calling import answered
from camora_redis.columns import Columns
from camora_redis.keys import Keys
from camora_redis.link import Link, script
from camora_redis.publishing import packed_envelope
from camora_redis.records import packed_record
from camora_redis.sending import send

__all__ = ["given_back", "settle"]

_SETTLE, _EXTEND = script("settle"), script("extend")
_BATCH = 500
_ACK, _RETRY, _REJECT = Action.ACK, Action.RETRY, Action.REJECT
_pack = msgspec.msgpack.Encoder().encode


def given_back(delivery: Delivery) -> Settlement:
    """The settlement of what was taken and never handed out."""
    return Settlement(delivery=delivery, action=Action.RELEASE, charged=False)


async def settle(link: Link, consumer: str, settlements: Sequence[Settlement], held: int) -> list[bool]:
    """Settle a batch for a consumer that holds so many; one answer each, in order.

    Raises `ValueError` for a settlement that lacks its envelope or letter, or `BrokerUnavailable`.
    """
    keys = link.store.keys
    lost = await _publish_first(link, consumer, settlements) if keys.clustered or not keys.kinds.plain else ()
    by_queue: dict[str, list[int]] = {}
    for number, settlement in enumerate(settlements):
        if number not in lost:
            by_queue.setdefault(settlement.delivery.queue, []).append(number)
    parts = [
        (queue, numbers[at : at + _BATCH])
        for queue, numbers in by_queue.items()
        for at in range(0, len(numbers), _BATCH)
    ]
    answers = [False] * len(settlements)

    async def part(queue: str, numbers: Sequence[int]) -> None:
        chosen = [settlements[number] for number in numbers]
        # Where few of many are settled, each is looked up by itself.
        each = len(chosen) * 8 < held
        blobs: list[bytes] = []
        order, packed = _in_columns(keys, numbers, chosen, blobs)
        done = await answered(
            link,
            link.run(
                _SETTLE,
                (keys.of_queue(queue), keys.failures_of(queue)),
                keys.group,
                consumer,
                link.store.settings.dedup_window,
                int(each),
                keys.finished,
                packed,
                *blobs,
            ),
        )
        for number, applied in zip(order, done, strict=True):
            answers[number] = applied == 1

    if len(parts) == 1:
        await part(*parts[0])
    else:
        await asyncio.gather(*(part(*one) for one in parts))
    return answers


def _in_columns(
    keys: Keys, numbers: Sequence[int], settlements: Sequence[Settlement], blobs: list[bytes]
) -> tuple[list[int], bytes]:
    """In which order the answers come, and all of it packed: most are plain acknowledgements, which go in columns."""
    plain: dict[int, Columns] = {}
    rest: list[tuple[int, Settlement]] = []
    for number, settlement in zip(numbers, settlements, strict=True):
        receipt = settlement.delivery.receipt
        record = settlement.record
        if (
            settlement.action is not _ACK
            or settlement.successors
            or receipt.key
            or not (record is None or record.status.finished)
        ):
            rest.append((number, settlement))
            continue
        columns = plain.get(receipt.priority)
        if columns is None:
            columns = plain[receipt.priority] = Columns(receipt.priority)
        columns.add(number, settlement)
    order = [number for columns in plain.values() for number in columns.numbers]
    order += [number for number, _ in rest]
    acknowledged = [columns.packed(keys, blobs) for columns in plain.values()]
    return order, _pack((acknowledged, [_packed(keys, settlement, blobs) for _, settlement in rest]))


def _packed(keys: Keys, settlement: Settlement, blobs: list[bytes]) -> tuple[Any, ...]:
    delivery, action = settlement.delivery, settlement.action
    receipt = delivery.receipt
    head = (action.value, receipt.priority, receipt.entry, receipt.taken, delivery.id, receipt.key, receipt.key_ttl)
    if action is _ACK and settlement.record is None and not settlement.successors:
        return head
    record = None if settlement.record is None else packed_record(keys, settlement.record, blobs)
    here = [one for one in settlement.successors if not _goes_first(keys, settlement, one)]
    successors = _by_stream(keys, here, blobs) if here else None
    return (*head, [record or False, successors or False, *_particular(settlement, blobs)])


def _particular(settlement: Settlement, blobs: list[bytes]) -> tuple[Any, ...]:
    action, job_id = settlement.action, settlement.delivery.id
    if action is _RETRY:
        if settlement.envelope is None or settlement.envelope.id != job_id:
            raise ValueError(f"the retry of {job_id} needs an envelope with the same id")
        return (packed_envelope(settlement.envelope, blobs, whole=True),)
    if action is _REJECT:
        letter = settlement.letter
        if letter is None or letter.id != job_id:
            raise ValueError(f"the rejection of {job_id} needs a letter with the same id")
        line = "" if letter.error is None else letter.error.line
        # Text, for those who read the stream. The body has a field of its own there, where a requeueing finds it.
        blobs.append(msgspec.json.encode(msgspec.structs.replace(letter, body=b"")))
        shown = (len(blobs), letter.task, letter.queue, letter.reason, line, str(letter.attempts))
        return (False, shown)
    if action is _ACK:
        return ()
    deliveries = settlement.delivery.deliveries
    return (False, False, settlement.delay, deliveries if settlement.charged else deliveries - 1)


def _by_stream(keys: Keys, envelopes: Iterable[Envelope], blobs: list[bytes]) -> list[Any]:
    found: dict[str, list[Any]] = {}
    for envelope in envelopes:
        found.setdefault(keys.of_queue(envelope.queue), []).append(packed_envelope(envelope, blobs))
    return list(found.items())


def _goes_first(keys: Keys, settlement: Settlement, successor: Envelope) -> bool:
    """Whether the script cannot publish it: it may belong to another node, or goes into no stream."""
    queue = successor.queue
    return (keys.clustered and queue != settlement.delivery.queue) or keys.kinds.special(queue)


async def _publish_first(link: Link, consumer: str, settlements: Sequence[Settlement]) -> set[int]:
    """Publish successors that the script of their settlement cannot publish.

    Their ids follow from their parents, so a repeat is known. Answers with the numbers of the settlements that will not
    count, because the lease is lost; the others' is made to last until they are settled.
    """
    keys = link.store.keys
    elsewhere: dict[str, list[int]] = {}
    for number, settlement in enumerate(settlements):
        if any(_goes_first(keys, settlement, one) for one in settlement.successors):
            elsewhere.setdefault(settlement.delivery.queue, []).append(number)
    lost: set[int] = set()
    for queue, numbers in elsewhere.items():
        receipts = [settlements[number].delivery.receipt for number in numbers]
        words = [word for one in receipts for word in (one.priority, one.entry, one.taken)]
        held = await answered(link, link.run(_EXTEND, (keys.of_queue(queue),), keys.group, consumer, *words))
        lost.update(number for number, mine in zip(numbers, held, strict=True) if not mine)
        chosen = [settlements[number] for number in numbers if number not in lost]
        successors = [one for each in chosen for one in each.successors if _goes_first(keys, each, one)]
        if successors:
            await answered(link, send(link, successors))
    return lost
