"""Receiving with the link that the client keeps to itself.

What the client offers publicly costs a worker dearly: it reads one frame at a time and holds writers up while it waits
for one; it waits 0.2 s for further messages after the first; it leaves credit behind, for which messages are locked for
nobody; each settlement is a frame, and a reader, of its own; and it cannot give a message back uncounted. So here one
coroutine reads, and everybody else waits for what it finds.

Everything in this file knows private parts of azure-servicebus 7.15 (`_pyamqp`). `fits` says whether they are there;
where they are not, `plain.Plain` receives by public means alone, with the costs above. A test holds on to each part.
"""

# ruff: noqa: SLF001 -- that is what it is for

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Coroutine, Iterator, Sequence
from typing import Any, cast

from azure.servicebus.exceptions import (
    MessageLockLostError,
    OperationTimeoutError,
    ServiceBusCommunicationError,
    ServiceBusConnectionError,
    ServiceBusError,
    ServiceBusServerBusyError,
    SessionLockLostError,
)

from camora_servicebus.lent import Lent
from camora_servicebus.receiving import Answer, Came, End, Receiving, Word
from camora_servicebus.swift import Received, read_in_pieces

__all__ = ["Direct", "fits"]

logger = logging.getLogger(__name__)
_quiet = logging.getLogger(f"{__name__}.client")
_quiet.setLevel(logging.CRITICAL)

_READ = 1.0
"""Seconds for which one read waits at most; then the token is looked at, and the peer."""
_BATCH = 200
"""Frames that are read before anything else is looked at."""
_PATIENCE = 2
"""Requests in a row that may stay without an answer before the connection is given up."""
_TOKENS = 100
"""Locks that are renewed in one request."""
_LOST = (b"com.microsoft:message-lock-lost", b"com.microsoft:session-lock-lost")
_BURIED = b"com.microsoft:dead-letter"
_RECEIVER = ("_create_handler", "_build_received_message", "_mgmt_request_response", "_handler", "_running", "_config",
             "_amqp_transport", "_settle_message_via_mgmt_link")  # fmt: skip


def fits(receiver: Any) -> bool:
    """Whether this client is the one that this file knows."""
    try:
        from azure.servicebus._common import mgmt_handlers
        from azure.servicebus._common.constants import REQUEST_RESPONSE_RENEWLOCK_OPERATION
        from azure.servicebus._pyamqp.aio._client_async import ReceiveClientAsync
        from azure.servicebus._pyamqp.aio._connection_async import Connection
        from azure.servicebus._pyamqp.aio._receiver_async import ReceiverLink
        from azure.servicebus._pyamqp.outcomes import Accepted, Modified, Rejected, Released
        from azure.servicebus._pyamqp.performatives import DispositionFrame
        from azure.servicebus.aio._async_utils import create_authentication
    except ImportError:
        return False
    del Accepted, Modified, Rejected, Released, DispositionFrame, create_authentication
    del REQUEST_RESPONSE_RENEWLOCK_OPERATION
    parts = (
        *(hasattr(receiver, name) for name in _RECEIVER),
        hasattr(mgmt_handlers, "message_lock_renew_op"),
        hasattr(Connection, "listen"),
        *(hasattr(ReceiverLink, name) for name in ("flow", "_incoming_flow", "_incoming_disposition")),
        *(hasattr(ReceiveClientAsync, name) for name in ("open_async", "client_ready_async", "close_async")),
    )
    return all(parts)


class _Batch:
    """Deliveries whose end was told, until the service has answered for all of them."""

    def __init__(self, lent: Sequence[Lent]) -> None:
        self.answers: dict[int, Answer] = {}
        self.left = len(lent)
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def answer(self, number: int, answer: Answer) -> None:
        """The service has spoken of this one, or will not any more."""
        if number not in self.answers:
            self.answers[number] = answer
            self.left -= 1
            if not self.left and not self.done.done():
                self.done.set_result(None)


class Direct(Receiving):
    """One receiver of the client, its link worked directly. `receiver` was never opened.

    `quiet` is for how many seconds the peer may say nothing although it was asked for a sign of life.
    """

    def __init__(self, receiver: Any, came: Came, *, quiet: float) -> None:
        self._receiver = receiver
        self._came = came
        self._quiet = quiet
        self._waiting: dict[int, _Batch] = {}
        self._wanted = 0
        self._heard = 0.0
        """Monotonic time of the last frame."""
        self._asked = 0.0
        """Monotonic time at which a sign of life was asked for, since the last frame."""
        self._echoes = False
        """Whether this peer answers when it is asked for one."""
        self._state_told: asyncio.Future[None] | None = None
        self._tasks: set[asyncio.Future[Any]] = set()
        self._unanswered = 0
        """How many requests in a row got no answer."""
        self._over = False

    # Opening

    async def open(self, timeout: float) -> None:
        """Connect and attach, with no credit."""
        try:
            async with asyncio.timeout(timeout):
                await self._open(time.monotonic() + timeout)
        except Exception as error:
            await self.close(0.0)
            raise self._public(error) from error
        except BaseException:
            await self.close(0.0)
            raise

    def _public(self, error: Exception) -> Exception:
        """As the client itself would raise it."""
        if isinstance(error, (TimeoutError, ServiceBusError)):
            return error
        made: Exception = self._receiver._amqp_transport.create_servicebus_exception(_quiet, error)
        return made

    async def _open(self, deadline: float) -> None:
        from azure.servicebus.aio import _async_utils

        receiver, library = self._receiver, cast("Any", _async_utils)
        receiver._create_handler(await library.create_authentication(receiver))
        handler = receiver._handler
        # Nothing to be read beside us, and no credit until somebody wants a message.
        handler._keep_alive_interval = 0
        handler._link_credit = 0
        handler._message_received_async = self._on_message
        await handler.open_async()
        _write_apart(handler._connection._transport)
        while not await handler.client_ready_async():
            if self._over or time.monotonic() > deadline:  # a cancellation may have got lost in the client
                raise TimeoutError("the service does not answer")
        # Not before: until then there are greetings among the frames.
        read_in_pieces(handler._connection._transport)
        link = handler._link
        link._incoming_disposition = self._on_disposition
        link._incoming_flow = self._on_flow
        receiver._running = True  # the client's own calls, such as renewing, use what is open
        self._hear()
        await link.flow(link_credit=0, echo=True)

    # Reading

    async def run(self) -> None:
        """Read until the connection ends, or the link; raises why it did."""
        handler = self._receiver._handler
        connection = handler._connection
        wait = min(_READ, self._quiet / 2)
        try:
            while not self._over:
                before = connection._last_frame_received_time
                # Renews the token when it is time to, and raises what the link has ended of.
                if await handler.client_ready_async():
                    await connection.listen(wait=wait, batch=_BATCH)
                self._check_patience()
                if connection._last_frame_received_time != before:
                    self._hear()
                else:
                    await self._ask_for_life(handler._link)
        except Exception as error:
            raise self._public(error) from error
        finally:
            self._over = True
            for number, batch in list(self._waiting.items()):
                batch.answer(number, Answer.UNKNOWN)
            self._waiting.clear()

    def cease(self) -> None:
        """Read no more."""
        self._over = True

    def _check_patience(self) -> None:
        if self._unanswered >= _PATIENCE:
            raise TimeoutError("the service does not answer what it is asked")

    def _hear(self) -> None:
        self._heard, self._asked = time.monotonic(), 0.0

    async def _ask_for_life(self, link: Any) -> None:
        """The peer has said nothing for a while: it must answer, or it is gone, whatever TCP thinks."""
        now = time.monotonic()
        if self._asked:
            if self._echoes and now - self._asked > self._quiet:
                raise TimeoutError(f"the service has not answered for {now - self._heard:.0f} seconds")
        elif now - self._heard >= self._quiet:
            self._asked = now
            await link.flow(link_credit=link.current_link_credit, echo=True)

    async def _on_message(self, frame: Any, message: Any) -> None:
        self._wanted = max(0, self._wanted - 1)
        receiver = self._receiver
        received = Received(message, lambda: receiver._build_received_message((frame, message)))
        self._came(self, received, frame[1], bytes(frame[2]))

    async def _on_flow(self, frame: Any) -> None:
        del frame
        self._echoes = True
        if self._state_told is not None and not self._state_told.done():
            self._state_told.set_result(None)

    async def _on_disposition(self, frame: Any) -> None:
        # role (True: of a receiver), first, last, settled, state
        if frame[0] or not frame[3] or not self._waiting:
            return
        first, last = frame[1], frame[1] if frame[2] is None else frame[2]
        answer = _answer_of(frame[4])
        if last - first < len(self._waiting):
            numbers: Sequence[int] = range(first, last + 1)
        else:  # what the peer says is not to keep us busy
            numbers = [number for number in self._waiting if first <= number <= last]
        for number in numbers:
            if (batch := self._waiting.pop(number, None)) is not None:
                batch.answer(number, answer)

    # Credit

    @property
    def wanted(self) -> int:
        """How many may still come."""
        return self._wanted

    def want(self, count: int) -> None:
        """Let so many come."""
        if self._over or count == self._wanted:
            return
        self._wanted = count
        self._spawn(self._flow(self._receiver._handler._link))

    async def _flow(self, link: Any) -> None:
        with contextlib.suppress(Exception):  # the reader finds out what is wrong
            if link.current_link_credit != self._wanted:
                await link.flow(link_credit=self._wanted)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def drain(self, timeout: float) -> None:
        """Take the credit back; the answer to that comes behind all that was sent before."""
        if self._over:
            return
        self._wanted = 0
        told = self._state_told = asyncio.get_running_loop().create_future()
        with contextlib.suppress(Exception):
            await self._receiver._handler._link.flow(link_credit=0, drain=True, echo=True)
            await asyncio.wait([told], timeout=timeout)

    # Settling

    async def tell(self, lent: Sequence[Lent], word: Word, timeout: float) -> list[Answer]:
        """One frame for all whose numbers follow each other; then wait for the answers."""
        from azure.servicebus._pyamqp.performatives import DispositionFrame

        if self._over:
            return [Answer.UNKNOWN] * len(lent)
        handler = self._receiver._handler
        link, session = handler._link, handler._session
        batch = _Batch(lent)
        for one in lent:
            self._waiting[one.number] = batch
        state = _state_of(word)
        try:
            for first, last in _runs(sorted(one.number for one in lent)):
                await session._outgoing_disposition(
                    DispositionFrame(role=True, first=first, last=last, settled=False, state=state, batchable=None)
                )
            for one in lent:
                link._received_delivery_tags.discard(one.tag)
            await asyncio.wait([batch.done], timeout=timeout)
        except Exception as error:  # noqa: BLE001 -- whatever it is, nobody knows what was heard
            logger.debug("an end could not be told: %r", error)
        finally:
            for one in lent:
                self._waiting.pop(one.number, None)
            batch.done.cancel()
        self._note(not batch.left)
        answers = [batch.answers.get(one.number, Answer.UNKNOWN) for one in lent]
        for one, answer in zip(lent, answers, strict=True):
            one.doubtful = one.doubtful or answer is Answer.UNKNOWN
        return answers

    def _note(self, answered: bool) -> None:
        self._unanswered = 0 if answered else self._unanswered + 1

    async def tell_by_token(self, lent: Sequence[Lent], word: Word, timeout: float) -> list[Answer]:
        """By requests: one each, for of a request for many that is refused nobody knows what was done."""
        return list(await asyncio.gather(*(self._tell_by_token(one, word, timeout) for one in lent)))

    async def _tell_by_token(self, lent: Lent, word: Word, timeout: float) -> Answer:
        # The service knows no release here: it counts a delivery then.
        end = End.ABANDON if word.end is End.RELEASE else word.end
        receiver = self._receiver
        message = {
            "disposition-status": end.value,
            "lock-tokens": receiver._amqp_transport.AMQP_ARRAY_VALUE([lent.token]),
        }
        if end is End.BURY:
            message |= {"deadletter-reason": word.reason, "deadletter-description": word.description}
        try:
            await self._request(b"com.microsoft:update-disposition", message, "default", timeout)
        except (MessageLockLostError, SessionLockLostError):
            return Answer.LOST
        except Exception as error:  # noqa: BLE001 -- whatever it is, nobody knows what was heard
            logger.debug("an end could not be told by its lock token: %r", error)
            lent.doubtful = lent.doubtful or not _refused(error)
            return Answer.UNKNOWN
        return Answer.DONE

    async def renew(self, lent: Sequence[Lent], timeout: float) -> list[float | Answer]:
        """Many in one request; one by one where that is refused, for then it does not say which is to blame."""
        found: list[float | Answer] = []
        for start in range(0, len(lent), _TOKENS):
            found += await self._renew(lent[start : start + _TOKENS], timeout)
        return found

    async def _renew(self, lent: Sequence[Lent], timeout: float) -> list[float | Answer]:
        array = self._receiver._amqp_transport.AMQP_ARRAY_VALUE
        message = {"lock-tokens": array([one.token for one in lent])}
        try:
            value = await self._request(b"com.microsoft:renew-lock", message, "message_lock_renew_op", timeout)
            moments = value[b"expirations"]
            if len(moments) == len(lent):
                return [moment / 1000 for moment in moments]
        except MessageLockLostError:
            if len(lent) == 1:
                return [Answer.LOST]
        except Exception as error:  # noqa: BLE001 -- whatever it is, it is tried again
            logger.debug("locks could not be renewed: %r", error)
            if len(lent) == 1 or isinstance(error, ServiceBusServerBusyError) or not _refused(error):
                return [Answer.UNKNOWN] * len(lent)
        parts = await asyncio.gather(*(self._renew([one], timeout) for one in lent))
        return [part[0] for part in parts]

    async def _request(self, operation: bytes, message: dict[str, Any], handler: str, timeout: float) -> Any:
        """Ask the management of the entity, once: a try again would open another connection beside this one."""
        from azure.servicebus._common import mgmt_handlers

        if self._over:
            raise _Ended
        try:
            value = await self._receiver._mgmt_request_response(
                operation, message, getattr(mgmt_handlers, handler), timeout=timeout
            )
        except Exception as error:
            self._note(_refused(error))
            raise
        self._note(True)
        return value

    # The end

    async def close(self, timeout: float) -> None:
        """Detach and disconnect; cut it when that takes too long."""
        self._over = True
        handler = self._receiver._handler
        if handler is None:
            return
        connection = handler._connection
        if timeout > 0:
            closing = asyncio.ensure_future(handler.close_async())
            await asyncio.wait([closing], timeout=timeout)
            if not closing.done():
                closing.cancel()
            with contextlib.suppress(BaseException):
                await closing
        transport = None if connection is None else connection._transport
        writer = getattr(transport, "writer", None)
        if writer is not None:
            writer.transport.abort()
        elif transport is not None and getattr(transport, "session", None) is not None:  # over WebSockets
            with contextlib.suppress(Exception):
                await transport.close()
        for task in list(self._tasks):
            task.cancel()
        self._receiver._handler = None
        self._receiver._running = False
        with contextlib.suppress(Exception):
            await self._receiver.close()


class _Ended(Exception):
    """The connection has ended before anything was asked."""


def _refused(error: Exception) -> bool:
    """Whether the service has said no, or was never asked: then nothing has been done."""
    return isinstance(error, (_Ended, ServiceBusError)) and not isinstance(
        error, (OperationTimeoutError, ServiceBusConnectionError, ServiceBusCommunicationError)
    )


def _write_apart(transport: Any) -> None:
    """Let frames be written while one is waited for: the client's own writers wait until the reader's time is over.

    A frame is one write, so no two of them mix.
    """
    lock, write = asyncio.Lock(), transport._write

    async def apart(data: bytes) -> None:
        async with lock:
            try:
                await write(data)
            except OSError:
                transport.connected = False
                raise

    transport.write = apart


def _runs(numbers: Sequence[int]) -> Iterator[tuple[int, int]]:
    """First and last of those that follow each other."""
    first = last = numbers[0]
    for number in numbers[1:]:
        if number != last + 1:
            yield first, last
            first = number
        last = number
    yield first, last


def _state_of(word: Word) -> Any:
    """The outcome of AMQP that means it ("AMQP 1.0 in Azure Service Bus: message settlement")."""
    from azure.servicebus._pyamqp.error import AMQPError
    from azure.servicebus._pyamqp.outcomes import Accepted, Modified, Rejected, Released

    match word.end:
        case End.COMPLETE:
            return Accepted()
        case End.RELEASE:
            return Released()
        case End.ABANDON:
            return Modified(delivery_failed=True, undeliverable_here=False, message_annotations=None)
        case End.DEFER:
            return Modified(delivery_failed=True, undeliverable_here=True, message_annotations=None)
    info = {"DeadLetterReason": word.reason, "DeadLetterErrorDescription": word.description}
    return Rejected(error=AMQPError(condition=_BURIED, description=None, info=info))


def _answer_of(state: Any) -> Answer:
    """What the service says it has done: the outcome that it was told, or `rejected` with an error."""
    rejected = state.get("rejected") if isinstance(state, dict) else None
    error = rejected[0] if rejected else None
    if not error or error[0] == _BURIED:
        return Answer.DONE
    condition = error[0]
    if condition in _LOST:
        return Answer.LOST
    logger.warning("the service refuses the end of a message: %s %s", condition, error[1] if len(error) > 1 else "")
    return Answer.UNKNOWN
