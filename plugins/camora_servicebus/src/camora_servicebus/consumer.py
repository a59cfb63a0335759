"""A worker's hold on queues: what its feed brings, and how it is answered."""

from __future__ import annotations

import asyncio
import functools
import logging
import re
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Protocol

from azure.servicebus import NEXT_AVAILABLE_SESSION
from camora.errors import BrokerUnavailable, ConfigurationError, DispatchUncertain
from camora.interfaces.broker import Consumer, ConsumerSettings, Leases
from camora.message import Delivery
from camora.outcome import Settlement

from camora_servicebus.client import Connector
from camora_servicebus.direct import Direct, fits
from camora_servicebus.errors import Cause, judge
from camora_servicebus.feed import Feed, Opener
from camora_servicebus.leases import ServiceBusLeases
from camora_servicebus.lent import Lent
from camora_servicebus.line import denied
from camora_servicebus.messages import Outgoing, body_of
from camora_servicebus.plain import Plain
from camora_servicebus.receiving import Answer, Came, Receiving
from camora_servicebus.routes import astray
from camora_servicebus.session_link import SessionLink
from camora_servicebus.sessions import Sessions
from camora_servicebus.settling import following, word_for
from camora_servicebus.store import Store

__all__ = ["Sender", "ServiceBusConsumer"]

logger = logging.getLogger(__name__)

_RECEIVERS = 1
"""Connections for each queue: one brings more messages than a worker of one process can run."""
_POLL = 0.02
"""Seconds after which the client's own calls look again whether what they wait for has come."""
_OF_SESSIONS = re.compile(r"requires? sessions")
"""How the service says no to a link of the other sort."""


class Sender(Protocol):
    """What a consumer needs of a publisher."""

    async def outcomes(self, messages: Sequence[Outgoing]) -> Sequence[int | BaseException | None]:
        """Store them; of each what came of it, or why it is not stored, or not for sure."""


class ServiceBusConsumer(Consumer):
    """Receives by connections of its own, and sends by its broker's."""

    def __init__(self, store: Store, publisher: Sender, settings: ConsumerSettings, who: str) -> None:
        self._store = store
        self._publisher = publisher
        self._who = who
        self._lease = settings.lease
        self._loop = asyncio.get_running_loop()
        self._news = asyncio.Event()
        self._stopped = False
        self._feed = Feed(
            self._opener,
            settings.queues,
            receivers=store.settings.receivers or _RECEIVERS,
            lease=settings.lease,
            timeout=store.settings.timeout,
            worker=settings.worker,
            arrived=self._on_arrived,
            explain=self._explained,
            astray=lambda queue, message: astray(store.names.queue(queue), message),
        )
        self._feed.start()

    def _opener(self) -> tuple[Opener, Callable[[], Coroutine[Any, Any, None]]]:
        """In the feed's thread: how it connects, and what closes its client at the end."""
        connector = Connector(self._store, home=self._loop)
        names, quiet = self._store.names, max(0.3, min(5.0, self._lease / 3))

        def session(queue: str, came: Came, wait: float) -> SessionLink:
            receiver = connector.client().get_queue_receiver(
                names.queue(queue), prefetch_count=0, client_identifier=connector.name(), socket_timeout=_POLL,
                session_id=NEXT_AVAILABLE_SESSION, max_wait_time=wait,
            )  # fmt: skip
            if not fits(receiver):
                raise ConfigurationError(
                    f"{self._who}: queue {queue!r} has sessions, which this version of azure-servicebus does not let a "
                    "worker receive as it must: install azure-servicebus 7.15"
                )
            return SessionLink(receiver, came, quiet=quiet)

        def connect(queue: str, came: Came) -> Receiving:
            if self._store.has_sessions(queue):
                make = functools.partial(session, queue)
                return Sessions(make, came, lost=lambda: self._feed.ledger.doubt(queue))
            receiver = connector.client().get_queue_receiver(
                names.queue(queue), prefetch_count=0, client_identifier=connector.name(), socket_timeout=_POLL
            )
            return Direct(receiver, came, quiet=quiet) if fits(receiver) else Plain(receiver, came)

        return connect, connector.close

    # Receiving

    def _on_arrived(self) -> None:
        try:
            self._loop.call_soon_threadsafe(self._news.set)
        except RuntimeError:
            return  # the loop has ended

    async def receive(self, limit: int, wait: float) -> Sequence[Delivery]:
        """Take what the service has sent to this worker; while this waits, it may send as many as this asks for."""
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
        if (error := self._feed.error) is not None:
            raise error

    def _explained(self, error: Exception, queue: str) -> BrokerUnavailable | ConfigurationError:
        """What keeps messages from coming, and what can be done about it."""
        if isinstance(error, BrokerUnavailable | ConfigurationError):
            return error
        judged, store = judge(error), self._store
        text = judged.text
        if judged.cause is Cause.MISSING:
            name = store.names.queue(queue)
            text = f"there is no entity {name!r} in {store.label}: `camora servicebus apply` makes it, or the portal"
        elif judged.cause is Cause.DENIED:
            text = denied(store.address.by_key, text)
        elif judged.cause is Cause.DISABLED:
            text = f"it is disabled ({text}); enable it in the portal"
        elif _OF_SESSIONS.search(text):
            text = f"it has sessions on one side alone ({text}); declare it as it is there: camora doctor says how"
        return BrokerUnavailable(f"{self._who}: queue {queue!r}: {text}")

    def _take(self, limit: int) -> list[Delivery]:
        ready, ledger = self._feed.ready, self._feed.ledger
        deadline = time.monotonic() + self._lease
        taken: list[Delivery] = []
        while ready and len(taken) < limit:
            try:
                one = ready.popleft()
            except IndexError:
                break  # the feed takes from the same end
            if ledger.take(one, deadline):
                taken.append(_delivery(one))
        return taken

    # Settling

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[bool | None]:
        """Send what follows, then end the messages: whatever fails between the two, nothing is lost.

        None for one whose end the service has not confirmed: it is asked again. Raises `BrokerUnavailable` when that is
        all of them. Where what follows one of them can never be stored, it is None with the others at first, and raised
        before anything is done when it is asked again.
        """
        for one in settlements:
            lent = one.delivery.receipt
            if isinstance(lent, Lent) and lent.refused is not None and (one.successors or one.envelope is not None):
                raise lent.refused
        answers: list[bool | None] = list(self._feed.ledger.begin(one.delivery.receipt for one in settlements))
        mine = [place for place, held in enumerate(answers) if held]
        if not mine:
            return answers
        unfinished = [settlements[place].delivery.receipt for place in mine]
        try:
            waiting, error = await self._send([settlements[place] for place in mine])
            orders = [
                (place, settlements[place].delivery.receipt, word_for(settlements[place]))
                for place in mine
                if settlements[place].delivery.receipt not in waiting
            ]
            said = await self._feed.tell([(lent, word) for _, lent, word in orders])
            for (place, lent, _), answer in zip(orders, said, strict=True):
                answers[place] = self._verdict(lent, answer)
                if answer is not Answer.UNKNOWN:
                    unfinished.remove(lent)
                    self._feed.ledger.finish([lent])
        finally:
            # Also when this was cancelled: whoever tries again finds them as they were.
            self._feed.ledger.undo(unfinished, time.monotonic() + self._lease)
        for place in mine:
            if settlements[place].delivery.receipt in unfinished:
                answers[place] = None
        if len(unfinished) == len(answers):
            raise error or BrokerUnavailable(
                f"{self._who}: the service has not confirmed how {len(mine)} jobs ended"
                f"{f': {self._feed.error}' if self._feed.error else ''}"
            )
        return answers

    async def _send(self, settlements: Sequence[Settlement]) -> tuple[set[Lent], Exception | None]:
        """Store what follows. Answers with those whose followers could not be stored, and why.

        What is stored is noted for each message: a settlement that has to be repeated does not send it again.
        """
        messages: list[Outgoing] = []
        owners: list[Lent] = []
        for one in settlements:
            lent: Lent = one.delivery.receipt
            found = [message for message in following(one, self._store) if message.message_id not in lent.published]
            messages += found
            owners += [lent] * len(found)
        if not messages:
            return set(), None
        waiting: set[Lent] = set()
        why: Exception | None = None
        for message, lent, outcome in zip(messages, owners, await self._publisher.outcomes(messages), strict=True):
            if not isinstance(outcome, BaseException):
                lent.published.add(message.message_id)
                continue
            waiting.add(lent)
            if isinstance(outcome, BrokerUnavailable | DispatchUncertain):
                why = why or (outcome if isinstance(outcome, BrokerUnavailable) else BrokerUnavailable(str(outcome)))
            elif isinstance(outcome, Exception):
                lent.refused = why = outcome
            else:
                raise outcome
        return waiting, why

    def _verdict(self, lent: Lent, answer: Answer) -> bool | None:
        if answer is Answer.DONE:
            return True
        if answer is Answer.UNKNOWN:
            return None
        if lent.doubtful and lent.locked_until > time.monotonic():
            # The first word was heard, as it seems, and only its answer was lost: nobody else can hold that lock.
            logger.info("%s: the answer for job %s was lost; its message is not there any more", self._who, lent.job_id)
            return True
        return False

    def leases(self) -> Leases:
        """A keeper: it needs no connection, the feed renews."""
        return ServiceBusLeases(self._feed, self._lease, self._who)

    # The end

    async def stop(self) -> None:
        """Take nothing more; what was taken ahead goes back, and is not counted as delivered."""
        self._stopped = True
        self._news.set()
        await self._feed.stop()

    async def close(self) -> None:
        """Stop, and end the connections."""
        await self.stop()
        await self._feed.close()


def _delivery(lent: Lent) -> Delivery:
    return Delivery(
        id=lent.job_id, queue=lent.queue, body=body_of(lent.message), deliveries=lent.deliveries, receipt=lent,
        sequence_number=lent.message.sequence_number or 0,
    )  # fmt: skip
