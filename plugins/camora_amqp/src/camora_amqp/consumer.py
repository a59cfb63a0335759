"""A worker's hold on queues: what its feed brings, and how it is answered."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Sequence

from camora.errors import BrokerUnavailable, ConfigurationError, DispatchUncertain
from camora.interfaces.broker import Consumer, ConsumerSettings, Leases
from camora.message import Delivery, Envelope
from camora.outcome import Action, Settlement

from camora_amqp.errors import WireLost, unavailable
from camora_amqp.feed import Feed
from camora_amqp.leases import AmqpLeases
from camora_amqp.lent import Lent
from camora_amqp.letters import letter_message
from camora_amqp.messages import Outgoing, identity_of, recounted
from camora_amqp.publishing import Publisher, Unroutable
from camora_amqp.replies import reply_message
from camora_amqp.store import Store

__all__ = ["AmqpConsumer"]

logger = logging.getLogger(__name__)

_NACKED_AT_MOST = 1
"""Deliveries of a message that is given back to its place in the queue, where that counts as another one; a message
that was delivered more often goes to the end of the queue, and its count stays as it is."""


class AmqpConsumer(Consumer):
    """Receives by a connection of its own, and publishes by its broker's."""

    def __init__(self, store: Store, publisher: Publisher, settings: ConsumerSettings, who: str) -> None:
        self._store = store
        self._publisher = publisher
        self._who = who
        self._lease = settings.lease
        self._loop = asyncio.get_running_loop()
        self._news = asyncio.Event()
        self._stopped = False
        self._feed = Feed(
            store,
            settings.queues,
            lease=settings.lease,
            worker=settings.worker,
            arrived=self._on_arrived,
        )
        self._feed.start()

    # Receiving

    def _on_arrived(self) -> None:
        try:
            self._loop.call_soon_threadsafe(self._news.set)
        except RuntimeError:
            return  # the loop has ended

    async def receive(self, limit: int, wait: float) -> Sequence[Delivery]:
        """Take what the server has sent to this worker; while this waits, it may send as many as this asks for."""
        if self._stopped:
            return []
        if taken := self._take(limit):
            return taken
        try:
            return await self._wait(limit, wait)
        finally:
            self._feed.unask()

    async def _wait(self, limit: int, wait: float) -> list[Delivery]:
        deadline = self._loop.time() + wait
        while not self._stopped:
            self._news.clear()
            # Between the last look and this moment something may have come.
            if taken := self._take(limit):
                return taken
            self._feed.ask(limit)
            self._look()
            try:
                async with asyncio.timeout_at(deadline):
                    await self._news.wait()
            except TimeoutError:
                return self._take(limit)
        return []

    def _look(self) -> None:
        error = self._feed.error
        if isinstance(error, ConfigurationError | BrokerUnavailable):
            raise error
        if error is not None:
            raise unavailable(self._who, error)

    def _take(self, limit: int) -> list[Delivery]:
        ready, ledger = self._feed.ready, self._feed.ledger
        deadline = time.monotonic() + self._lease
        taken: list[Delivery] = []
        while ready and len(taken) < limit:
            try:
                one = ready.popleft()
            except IndexError:
                break
            if ledger.take(one, deadline):
                job_id = identity_of(one.properties.message_id, one.message.body)
                if one.properties.reply_to:
                    self._store.running[job_id] = one
                taken.append(
                    Delivery(
                        id=job_id,
                        queue=one.queue,
                        body=one.message.body,
                        deliveries=one.deliveries,
                        receipt=one,
                    )
                )
        return taken

    # Settling

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[bool | None]:
        """Publish what follows, then acknowledge: whatever fails between the two, nothing is lost."""
        answers: list[bool | None] = list(self._feed.ledger.begin(one.delivery.receipt for one in settlements))
        mine = [one for one, held in zip(settlements, answers, strict=True) if held]
        lent = [one.delivery.receipt for one in mine]
        if not mine:
            return answers
        messages: list[Outgoing] = []
        owners: list[Lent] = []
        later: set[int] = set()
        try:
            messages, owners = await self._following(mine)
            if self._publisher.waiting:
                later = {id(one) for one in owners}
            else:
                later = await self._publish(messages, owners)
        except BaseException as error:
            if isinstance(error, DispatchUncertain) and isinstance(error.__cause__, WireLost):
                # What was confirmed is not published again. The rest may be there twice then, or else be lost.
                self._remember(messages, owners, error.__cause__.stored)
            if isinstance(error, BrokerUnavailable | DispatchUncertain) and owners and self._publisher.blocked:
                later = {id(one) for one in owners}
            else:
                self._feed.ledger.undo(lent, time.monotonic() + self._lease)
                if isinstance(error, DispatchUncertain):
                    raise unavailable(self._who, error) from error
                raise
        if later:
            # The server takes none of these for a while; what needs none is settled all the same.
            self._feed.ledger.undo([one for one in lent if id(one) in later], time.monotonic() + self._lease)
            waits = [id(one.delivery.receipt) in later for one in settlements]
            answers = [None if held and put_off else held for held, put_off in zip(answers, waits, strict=True)]
            mine = [one for one in mine if id(one.delivery.receipt) not in later]
            lent = [one.delivery.receipt for one in mine]
        finished = iter(self._feed.ledger.finish(lent))
        for place, held in enumerate(answers):
            if held:
                answers[place] = next(finished)
        gone = {id(one) for one, answer in zip(settlements, answers, strict=True) if answer}
        back = [one for one in mine if id(one) in gone and self._to_its_place(one)]
        self._feed.give_back([one.delivery.receipt for one in back])
        self._feed.acknowledge(
            [one.delivery.receipt for one in mine if id(one) in gone and not self._to_its_place(one)]
        )
        await self._hear(settlements, answers)
        return answers

    async def _hear(self, settlements: Sequence[Settlement], answers: list[bool | None]) -> None:
        """Those whose runs begin after this must not come back: an acknowledgement on its way is not enough."""
        for place, one in enumerate(settlements):
            if one.before and answers[place]:
                answers[place] = await self._feed.heard(one.delivery.receipt)

    def _to_its_place(self, settlement: Settlement) -> bool:
        """Whether it is simply given back: the server counts that as a delivery."""
        if settlement.action is not Action.RELEASE or settlement.delay > 0:
            return False
        return settlement.charged or settlement.delivery.deliveries <= _NACKED_AT_MOST

    async def _following(self, settlements: Sequence[Settlement]) -> tuple[list[Outgoing], list[Lent]]:
        """What is to be stored before these are acknowledged, and to which each belongs."""
        messages: list[Outgoing] = []
        owners: list[Lent] = []
        for one in settlements:
            if one.action is Action.ACK and not one.successors and one.record is None and not one.others:
                continue
            lent: Lent = one.delivery.receipt
            found = await self._publisher.jobs(one.successors, reply_to=lent.properties.reply_to)
            match one.action:
                case Action.RETRY:
                    assert one.envelope is not None
                    found.append(await self._again(one.envelope, one.delivery, lent))
                case Action.REJECT:
                    assert one.letter is not None
                    found.append(letter_message(self._store, one.letter, lent))
                case Action.RELEASE if not self._to_its_place(one):
                    found.append(await self._as_it_was(one, lent))
            if reply_to := lent.properties.reply_to:
                told = (*one.others, *([] if one.record is None else [one.record]))
                found += [reply_message(reply_to, record, self._store.settings) for record in told]
            published = lent.published or ()
            fresh = [message for message in found if (message.id, message.reply) not in published]
            messages += fresh
            owners += [lent] * len(fresh)
        return messages, owners

    async def _again(self, envelope: Envelope, delivery: Delivery, lent: Lent) -> Outgoing:
        # Into the queue it came from: an exchange would give it to others, too, who have copies of their own.
        # That queue may have no priorities, for the exchange or somebody's change has brought it there.
        topology = self._store.topology
        levels = topology.max_priority(topology.queue(delivery.queue))
        queue = Envelope(
            id=envelope.id, task=envelope.task, queue=delivery.queue, body=envelope.body,
            due=envelope.due, priority=envelope.priority if levels else 0,
        )  # fmt: skip
        return await self._publisher.addressed(queue, reply_to=lent.properties.reply_to)

    async def _as_it_was(self, settlement: Settlement, lent: Lent) -> Outgoing:
        delivery = settlement.delivery
        count = delivery.deliveries if settlement.charged else delivery.deliveries - 1
        due = math.ceil((time.time() + settlement.delay) * 1000) if settlement.delay > 0 else 0
        same = Envelope(id=delivery.id, task=lent.properties.type, queue=delivery.queue, body=delivery.body, due=due)
        return await self._publisher.addressed(same, header=recounted(lent.message, lent.properties, count))

    async def _publish(self, messages: Sequence[Outgoing], owners: Sequence[Lent]) -> set[int]:
        """Store them all, or answer with those whose messages could not be stored: by their own `id()`."""
        if not messages:
            return set()
        try:
            await self._publisher.publish(messages)
        except Unroutable as error:
            waiting: set[int] = set()
            for message, lent, reason in zip(messages, owners, error.reasons, strict=True):
                # A reply that nobody waits for any more is no loss.
                if reason is None or message.reply:
                    continue
                waiting.add(id(lent))
                if lent.published is None:
                    lent.published = set()
                    logger.warning(
                        "%s: what follows job %s cannot be stored, trying again: %s (exchange %r, routing key %r)",
                        self._who, identity_of(lent.properties.message_id, lent.message.body), reason, message.exchange,
                        message.routing_key,
                    )  # fmt: skip
            self._remember(messages, owners, [reason is None for reason in error.reasons])
            return waiting
        return set()

    @staticmethod
    def _remember(messages: Sequence[Outgoing], owners: Sequence[Lent], stored: Sequence[bool]) -> None:
        """So that a settlement which is repeated does not publish these again."""
        for message, lent, kept in zip(messages, owners, stored, strict=False):
            if kept:
                lent.published = lent.published or set()
                lent.published.add((message.id, message.reply))

    def leases(self) -> Leases:
        """A keeper: it needs no connection, the feed's heartbeats are the server's measure."""
        return AmqpLeases(self._feed.ledger, self._lease)

    # The end

    async def stop(self) -> None:
        """Take nothing more; what was taken ahead goes back."""
        self._stopped = True
        self._news.set()
        await self._feed.stop()
        ready = self._feed.ready
        back: list[Lent] = []
        while ready:
            back.append(ready.popleft())
        if back:
            await self._return(back)

    async def _return(self, back: Sequence[Lent]) -> None:
        settlements = [
            Settlement(
                delivery=Delivery(
                    id=identity_of(one.properties.message_id, one.message.body),
                    queue=one.queue,
                    body=one.message.body,
                    deliveries=one.deliveries,
                    receipt=one,
                ),
                action=Action.RELEASE,
                charged=False,
            )
            for one in back
        ]
        try:
            async with asyncio.timeout(3.0):
                await self.settle(settlements)
        except (BrokerUnavailable, TimeoutError):
            self._feed.give_back(back)

    async def close(self) -> None:
        """Stop, and end the connection: the server gives what is unsettled to others."""
        await self.stop()
        await self._feed.close()
