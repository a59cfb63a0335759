"""Settlements as the server's script wants them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from camora.errors import BrokerUnavailable
from camora.message import Delivery, Envelope
from camora.outcome import Action, Settlement

from camora_redis.batches import LARGE, batches
from camora_redis.calling import answered
from camora_redis.columns import Columns
from camora_redis.errors import ServerError, code_of
from camora_redis.keys import Keys
from camora_redis.link import Link
from camora_redis.publishing import packed_envelope
from camora_redis.records import packed_record
from camora_redis.scripting import script
from camora_redis.sending import send

__all__ = ["given_back", "settle"]

_SETTLE, _EXTEND = script("settle"), script("extend")
_FAILURES = (BrokerUnavailable, ServerError)
_REFUSED = frozenset({"ERR", "WRONGTYPE"})
_ACK, _RETRY, _REJECT = Action.ACK, Action.RETRY, Action.REJECT
_pack = msgspec.msgpack.Encoder().encode


def given_back(delivery: Delivery) -> Settlement:
    """The settlement of what was taken and never handed out."""
    return Settlement(delivery=delivery, action=Action.RELEASE, charged=False)


async def settle(link: Link, consumer: str, settlements: Sequence[Settlement], held: int) -> list[bool | None]:
    """Settle a batch for a consumer that holds so many; one answer each, in order.

    Raises `ValueError` for a settlement that lacks its envelope or letter, `ServerError` where a server refuses one for
    what it is, or `BrokerUnavailable`.
    """
    keys = link.store.keys
    answers: list[bool | None] = [False] * len(settlements)
    over: set[int] = set()
    if keys.clustered or not keys.kinds.plain:
        lost, away = await _publish_first(link, consumer, settlements)
        over = lost | away
        for number in away:
            answers[number] = None
    by_queue: dict[str, list[int]] = {}
    for number, settlement in enumerate(settlements):
        if number not in over:
            by_queue.setdefault(settlement.delivery.queue, []).append(number)
    large = LARGE // max(1, len(by_queue))
    calls = (_settle_queue(link, consumer, numbers, settlements, held, large) for numbers in by_queue.values())
    if len(by_queue) == 1:
        found: list[Any] = [await next(calls)]
    else:
        found = await asyncio.gather(*calls, return_exceptions=True)
    for numbers, one in zip(by_queue.values(), found, strict=True):
        if isinstance(one, BaseException):
            # Another queue's server may be there: what it settled must not wait for this one.
            if not isinstance(one, _FAILURES) or all(isinstance(each, _FAILURES) for each in found):
                raise one
            one = dict.fromkeys(numbers)
        for number, applied in one.items():
            answers[number] = applied
    return answers


async def _settle_queue(
    link: Link, consumer: str, numbers: Sequence[int], settlements: Sequence[Settlement], held: int, large: int
) -> dict[int, bool | None]:
    """Settle some of one queue, batch after batch: the answer to each by its number."""
    answers: dict[int, bool | None] = {}
    for some in batches(numbers, lambda number: _size(settlements[number]), large):
        try:
            answers.update(await _settle_part(link, consumer, some, settlements, held))
        except _FAILURES:
            if not answers:
                raise
            return dict.fromkeys(numbers) | answers
    return answers


def _size(settlement: Settlement) -> int:
    record, envelope = settlement.record, settlement.envelope
    size = 0 if record is None or record.value is None else len(record.value)
    if envelope is not None:
        size += len(envelope.body)
    return size + sum(len(one.body) for one in settlement.successors) if settlement.successors else size


async def _settle_part(
    link: Link, consumer: str, numbers: Sequence[int], settlements: Sequence[Settlement], held: int
) -> dict[int, bool | None]:
    """Settle at once what is of one queue. Without an answer, None, are those behind one that could not be settled."""
    keys = link.store.keys
    chosen = [settlements[number] for number in numbers]
    queue = chosen[0].delivery.queue
    # Where few of many are settled, each is looked up by itself.
    each = len(chosen) * 8 < held
    blobs: list[bytes] = []
    order, packed = _in_columns(keys, numbers, chosen, blobs)
    streams = (keys.of_queue(queue), keys.failures_of(queue))
    window = link.store.settings.dedup_window
    call = link.run(_SETTLE, streams, keys.group, consumer, window, int(each), keys.finished, packed, *blobs)
    try:
        done = await answered(link, call)
    except BrokerUnavailable as error:
        refused = error.__cause__
        if isinstance(refused, ServerError) and code_of(refused) in _REFUSED:
            # It will be refused again: whoever settles one by one finds out which it is.
            raise refused from error
        raise
    settled = {number: applied == 1 for number, applied in zip(order, done, strict=False)}
    return settled if len(done) == len(order) else dict.fromkeys(order) | settled


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


async def _publish_first(link: Link, consumer: str, settlements: Sequence[Settlement]) -> tuple[set[int], set[int]]:
    """Publish successors that the script of their settlement cannot publish.

    Their ids follow from their parents, so a repeat is known. Answers with the numbers of the settlements that will not
    count, because the lease is lost, and of those whose servers are away; the others' leases are made to last.
    """
    keys = link.store.keys
    elsewhere: dict[str, list[int]] = {}
    for number, settlement in enumerate(settlements):
        if any(_goes_first(keys, settlement, one) for one in settlement.successors):
            elsewhere.setdefault(settlement.delivery.queue, []).append(number)
    lost: set[int] = set()
    away: set[int] = set()
    for queue, numbers in elsewhere.items():
        receipts = [settlements[number].delivery.receipt for number in numbers]
        words = [word for one in receipts for word in (one.priority, one.entry, one.taken)]
        try:
            held = await answered(link, link.run(_EXTEND, (keys.of_queue(queue),), keys.group, consumer, *words))
        except BrokerUnavailable:
            away.update(numbers)
            continue
        lost.update(number for number, mine in zip(numbers, held, strict=True) if not mine)
        for number in numbers:
            successors = [one for one in settlements[number].successors if _goes_first(keys, settlements[number], one)]
            if number not in lost:
                try:
                    await answered(link, send(link, successors))
                except BrokerUnavailable:
                    away.add(number)
    return lost, away
