"""One entity's sender, and what waits to be sent by it."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import attrs
from camora.errors import BrokerUnavailable, DispatchUncertain, MessageTooLarge
from camora.sockets import let_go

from camora_servicebus import internals
from camora_servicebus.client import Connector
from camora_servicebus.errors import Cause, Judged, judge
from camora_servicebus.messages import Outgoing

if TYPE_CHECKING:
    from azure.servicebus import ServiceBusMessage, ServiceBusMessageBatch
    from azure.servicebus.aio import ServiceBusSender

__all__ = ["Line", "denied", "too_large"]

logger = logging.getLogger(__name__)

_MOST = 1000
"""Messages of one batch: a larger one would keep the event loop busy for too long."""
_REQUEST, _ENTRY = 1024, 300
"""Bytes that a request to schedule has at most around all of its messages, and around each."""
_FRESH = 1.0
"""Seconds for which a connection that has just answered is believed to stand."""
_IDLE = 300.0
"""Seconds after which a connection that nobody uses is closed: a namespace has 5,000 at most ("Service Bus quotas")."""
_REST = (2.0, 4.0)
"""Seconds of rest when the service throttles: "wait 2 seconds" ("Throttling operations on Azure Service Bus")."""
_LATER = (0.05, 0.5)
"""Seconds before what is in doubt is sent again, under the same message id."""


@attrs.define(eq=False)
class _Item:
    """A message that waits, until a moment of the loop's clock."""

    outgoing: Outgoing
    future: asyncio.Future[int | None]
    deadline: float
    doubt: Judged | None = None
    """It was sent, and nobody knows what became of it."""


def _group(item: _Item) -> tuple[object, object]:
    """What all messages of a batch must have in common.

    "When an app sends a batch to a partition-enabled entity, all messages must have the same PartitionKey; of a
    session-enabled one, the same SessionId" (troubleshooting guide of the service's clients).
    """
    return item.outgoing.session, item.outgoing.more.get("partition_key")


class Line:
    """What is sent to one entity. Belongs to one event loop.

    One batch at a time is on its way; what comes meanwhile gathers for the next one. Messages that wait for their time
    go by requests of their own, which answer with their sequence numbers.
    """

    def __init__(self, connector: Connector, entity: str, who: str) -> None:
        self._connector = connector
        self._entity = entity
        self._timeout = connector.store.settings.timeout
        self._queue = connector.store.names.of_queue(entity)
        kind = "topic" if self._queue in connector.store.topics else "queue"
        self._who = f"{who}: {kind} {self._queue!r}"
        self._loop = asyncio.get_running_loop()
        self._now: deque[_Item] = deque()
        self._later: deque[_Item] = deque()
        self._sender: ServiceBusSender | None = None
        self._answered = 0.0
        self._most = _MOST
        self._runner: asyncio.Task[None] | None = None
        self._closed = False

    def put(self, outgoing: Outgoing) -> asyncio.Future[int | None]:
        """Have a message sent; the future ends when the service has it, or with the reason why not."""
        item = _Item(outgoing, self._loop.create_future(), self._loop.time() + self._timeout)
        if self._closed:
            item.future.set_exception(BrokerUnavailable(f"{self._who}: the broker is closed"))
            return item.future
        (self._later if outgoing.due else self._now).append(item)
        if self._runner is None:
            self._runner = self._loop.create_task(self._run(), name=f"camora-servicebus-send-{self._entity}")
        return item.future

    # Sending

    async def _run(self) -> None:
        try:
            while self._now or self._later:
                for waiting, send in ((self._now, self._send), (self._later, self._schedule)):
                    self._leave_out(waiting)
                    if waiting:
                        await self._step(waiting, send)
        finally:
            self._runner = None

    @staticmethod
    def _leave_out(waiting: deque[_Item]) -> None:
        """What nobody waits for any more is not sent, unless it may have been already."""
        while waiting and waiting[0].future.cancelled():
            waiting.popleft()

    async def _step(self, waiting: deque[_Item], send: Any) -> None:
        try:
            sender = await self._ready()
            batch = await sender.create_message_batch()
        except Exception as error:  # noqa: BLE001 -- whatever the client or a credential raises
            await self._discard()
            self._not_sent(waiting, judge(error), error)
            return
        items: list[_Item] = []
        try:
            await send(sender, batch, items)
        except Exception as error:
            # Not the service: a mistake of ours, or a client that is another inside. Nobody is to wait for ever.
            logger.exception("%s: sending failed", self._who)
            await self._discard()
            for item in items:
                self._end(item, self._uncertain(item, str(error) or type(error).__name__), error)

    async def _ready(self) -> ServiceBusSender:
        """A sender whose connection stands. Raises what the client raises."""
        sender = self._sender
        if sender is not None and not await self._stands(sender):
            await self._discard()
            sender = None
        if sender is None:
            sender = internals.sender_of(self._connector.client(), self._entity, self._connector.name())
            self._sender = sender
            await internals.open_sender(sender, self._timeout)
            self._answered = self._loop.time()
        return sender

    async def _stands(self, sender: ServiceBusSender) -> bool:
        await asyncio.sleep(0)  # what has come in is read by the loop, and so is the end of the connection
        fresh = self._loop.time() - self._answered < _FRESH
        if fresh and internals.silent(sender):
            return True
        if not await internals.alive(sender, self._timeout):
            return False
        self._answered = self._loop.time()
        return True

    def _not_sent(self, waiting: deque[_Item], judged: Judged, error: BaseException) -> None:
        """Nothing of all that waits can be sent now."""
        items = list(waiting)
        waiting.clear()
        for item in items:
            self._fail(item, judged, error, stored=False)

    async def _send(self, sender: ServiceBusSender, batch: ServiceBusMessageBatch, items: list[_Item]) -> None:
        others: list[_Item] = []
        try:
            alone = self._fill(sender, batch, items, others)
        finally:
            self._now.extendleft(reversed(others))
        if items:
            await self._transmit(self._now, items, sender.send_messages(alone or batch, timeout=self._timeout))

    def _fill(
        self, sender: ServiceBusSender, batch: ServiceBusMessageBatch, items: list[_Item], others: list[_Item]
    ) -> ServiceBusMessage | None:
        """Take what goes into a batch from what waits, and aside what may not be in the same one.

        Returns a message that is larger than any batch, and goes by itself.
        """
        while self._now and len(items) < self._most and len(others) < _MOST:
            item = self._now.popleft()
            if item.future.cancelled():
                continue
            if items and _group(item) != _group(items[0]):
                others.append(item)
                continue
            items.append(item)
            raw = item.outgoing.encoded()
            if internals.add(batch, item.outgoing, raw):
                continue
            if len(items) > 1:
                others.append(items.pop())
                break
            if self._small_enough(item, len(raw), internals.largest_message(sender)):
                return item.outgoing.message()
            items.pop()
        return None

    async def _schedule(self, sender: ServiceBusSender, batch: ServiceBusMessageBatch, items: list[_Item]) -> None:
        left = batch.max_size_in_bytes - _REQUEST
        messages: list[tuple[Outgoing, bytes]] = []
        while self._later and len(items) < self._most:
            item = self._later.popleft()
            if item.future.cancelled():
                continue
            items.append(item)
            raw = item.outgoing.encoded()
            size = len(raw) + _ENTRY
            if size <= left:
                left -= size
                messages.append((item.outgoing, raw))
                continue
            items.pop()
            if items:
                self._later.appendleft(item)
                break
            self._small_enough(item, size, left)
        if items:
            await self._transmit(self._later, items, internals.schedule(sender, messages, self._timeout))

    def _small_enough(self, item: _Item, size: int, limit: int) -> bool:
        if size > limit:
            self._end(item, too_large(item.outgoing, size, limit))
        return size <= limit

    async def _transmit(self, waiting: deque[_Item], items: Sequence[_Item], sending: Any) -> None:
        """Send, and tell each message's waiter; what may be sent again goes back to the front."""
        task = asyncio.ensure_future(sending)
        # The client has waits without any limit: on a mute peer it is cut off, with the connection.
        try:
            await asyncio.wait({task}, timeout=self._timeout + 1)
        except asyncio.CancelledError:
            await self._cut(task)
            for item in items:
                self._end(item, self._uncertain(item, "the broker was closed"))
            raise
        if not task.done():
            await self._cut(task)
            error: BaseException = TimeoutError(f"no answer within {self._timeout:g} s")
        else:
            found = task.exception()
            if found is None:
                self._answered = self._loop.time()
                for place, item in enumerate(items):
                    if not item.future.done():
                        item.future.set_result(None if task.result() is None else task.result()[place])
                return
            error = found
        await self._failed(waiting, items, error)

    async def _cut(self, task: asyncio.Task[Any]) -> None:
        if self._sender is not None:
            internals.abort(self._sender)
        task.cancel()
        await asyncio.wait({task}, timeout=1.0)

    async def _failed(self, waiting: deque[_Item], items: Sequence[_Item], error: BaseException) -> None:
        judged = judge(error)
        if judged.cause is Cause.TOO_LARGE and len(items) > 1:
            # The entity takes less than it said: smaller batches, down to single messages.
            self._most = max(1, len(items) // 2)
            waiting.extendleft(reversed(items))
            return
        if judged.cause is not Cause.TOO_LARGE:
            await self._discard()
        pause = 0.0
        again = []
        for item in items:
            rest = self._rest(item, judged)
            if rest is None:
                self._fail(item, judged, error, stored=None)
            else:
                pause = max(pause, rest)
                again.append(item)
        waiting.extendleft(reversed(again))
        if again:
            await asyncio.sleep(pause)

    def _rest(self, item: _Item, judged: Judged) -> float | None:
        """Seconds after which to send it once more; None: not again."""
        if item.future.done():
            return None
        if judged.sure and judged.cause is Cause.BUSY:
            rest = random.uniform(*_REST)  # noqa: S311 -- jitter
        elif not judged.sure and self._connector.store.detects_duplicates(self._queue):
            item.doubt = judged
            rest = random.uniform(*_LATER)  # noqa: S311 -- jitter
        else:
            return None
        return rest if self._loop.time() + rest < item.deadline else None

    # Endings

    def _fail(self, item: _Item, judged: Judged, error: BaseException, *, stored: bool | None) -> None:
        """`stored`: False where it is sure that this try has stored nothing; None: as the judgement says."""
        if judged.cause is Cause.TOO_LARGE:
            size = len(item.outgoing.encoded())
            limit = self._connector.store.settings.max_message_size
            self._end(item, too_large(item.outgoing, size, min(size, limit)), error)
        elif item.doubt is not None or (stored is None and not judged.sure):
            self._end(item, self._uncertain(item, judged.text), error)
        else:
            self._end(item, BrokerUnavailable(f"{self._who}: {self._explained(judged)}"), error)

    def _uncertain(self, item: _Item, text: str) -> DispatchUncertain:
        again = "so dispatching it again may run it twice"
        if self._connector.store.detects_duplicates(self._queue):
            again = "and dispatching it again under the same id does not double it"
        return DispatchUncertain(
            f"{self._who}: {text}. The job may be enqueued, {again} (job_id={item.outgoing.job_id!r} keeps its id)",
            job_id=item.outgoing.job_id,
        )

    def _explained(self, judged: Judged) -> str:
        store = self._connector.store
        if judged.cause is Cause.MISSING:
            return (
                f"there is no entity {self._entity!r} in {store.label}: `camora servicebus apply` makes it, or make it "
                "in the portal"
            )
        if judged.cause is Cause.DENIED:
            return denied(store.address.by_key, judged.text)
        if judged.cause is Cause.FULL:
            return f"it has no room left ({judged.text})"
        if judged.cause is Cause.DISABLED:
            return f"it is disabled ({judged.text}); enable it in the portal"
        return judged.text

    @staticmethod
    def _end(item: _Item, error: Exception, cause: BaseException | None = None) -> None:
        error.__cause__ = cause
        if not item.future.done():
            item.future.set_exception(error)
            item.future.exception()  # whoever waits may have been cancelled

    # The connection

    async def beat(self) -> None:
        """Look after a connection that has nothing to do. Raises nothing."""
        sender = self._sender
        if self._runner is not None or sender is None:
            return
        if self._loop.time() - self._answered > _IDLE:
            await self._discard()
            return
        # As the runner, so that nothing is sent beside it.
        self._runner = self._loop.create_task(self._look(sender))
        await asyncio.wait({self._runner})

    async def _look(self, sender: ServiceBusSender) -> None:
        try:
            if not await internals.alive(sender, self._timeout):
                # The service ends links that were idle for ten minutes: no news to anybody.
                await self._discard()
        finally:
            self._runner = None
            if (self._now or self._later) and not self._closed:
                self._runner = self._loop.create_task(self._run())

    async def _discard(self) -> None:
        sender, self._sender = self._sender, None
        if sender is not None:
            await internals.close(sender)

    async def close(self) -> None:
        """Close the connection; what waits is refused, and what is on its way in doubt."""
        self._closed = True
        runner = self._runner
        if runner is not None:
            await asyncio.wait({runner}, timeout=self._timeout)
            runner.cancel()
            await asyncio.wait({runner})
        for item in (*self._now, *self._later):
            self._end(item, BrokerUnavailable(f"{self._who}: the broker is closed"))
        await self._discard()

    def abandon(self) -> None:
        """Let go of the socket of a loop that is gone: from any thread, without waiting."""
        sender, self._sender = self._sender, None
        transport = None if sender is None else internals.socket_of(sender)
        if transport is not None:
            let_go(transport, self._loop)


def too_large(message: Outgoing, size: int, limit: int) -> MessageTooLarge:
    """The error for a message that no queue takes."""
    return MessageTooLarge(
        f"{message.task}: the message has {size} bytes with its properties; the queue takes at most {limit}. Store the "
        "data elsewhere and send where it is, or raise max_message_size where the namespace's tier takes more",
        size=size,
        limit=limit,
    )


def denied(by_key: bool, text: str) -> str:
    """What to do about credentials that are not accepted."""
    if text.startswith("DefaultAzureCredential failed to retrieve"):
        # It goes on with a page about each way that it tried.
        return (
            "there are no credentials: run az login, give the machine a managed identity, set AZURE_CLIENT_ID, "
            "AZURE_TENANT_ID and AZURE_CLIENT_SECRET, or put a key into the URL (DefaultAzureCredential found none)"
        )
    if by_key:
        fix = "look at the name and the key of the shared access policy; it needs Send and Listen"
    else:
        fix = "the identity needs the roles Azure Service Bus Data Sender and Azure Service Bus Data Receiver"
    return f"the credentials are not accepted: {fix} ({text})"
