"""What is needed of the client library and is not offered by it.

Each with the reason, and with a public way to fall back to where there is one.
All else in this package uses what is documented. `tests/servicebus/test_internals.py` fails when a version of the
client has another inside.
"""

# ruff: noqa: SLF001 -- that is what it is for

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from azure.servicebus import ServiceBusMessageBatch
    from azure.servicebus.aio import ServiceBusClient, ServiceBusSender

    from camora_servicebus.messages import Outgoing

__all__ = [
    "abort",
    "add",
    "alive",
    "authenticate",
    "by_token",
    "close",
    "inside_of",
    "largest_message",
    "open_looker",
    "open_receiver",
    "open_sender",
    "release",
    "schedule",
    "sender_of",
    "silent",
    "socket_of",
]

_CLOSING = 1.0
"""Seconds for a polite end, after which the socket is closed."""


# Opening


def sender_of(
    client: ServiceBusClient, entity: str, name: str, socket_timeout: float | None = None
) -> ServiceBusSender:
    """A sender that keeps no task of its own.

    The client's keep-alive task sleeps for a second at a time, and closing a sender waits until it wakes up. Without it
    whoever owns the sender must call `alive` from time to time, or the service ends the connection.
    """
    return client.get_queue_sender(
        entity,
        client_identifier=name,
        socket_timeout=socket_timeout,
        keep_alive=0,
    )


async def authenticate(client: ServiceBusClient, entity: str, name: str, timeout: float) -> None:
    """Connect, and let the service judge the credentials; then close. Raises what the client raises, or `TimeoutError`.

    No link is made: the entity need not exist, although the service may say that it does not. The public way would be a
    sender, which needs an entity that does.
    """
    sender: Any = sender_of(client, entity, name)

    def handler(auth: Any) -> Any:
        return sender._amqp_transport.create_mgmt_client_async(
            config=sender._config,
            auth=auth,
            properties=sender._properties,
            retry_policy=sender._error_policy,
            client_name=sender._name,
        )

    try:
        await _opened(sender, handler, timeout)
    finally:
        await close(sender)


async def open_sender(sender: ServiceBusSender, timeout: float) -> None:
    """Connect and attach. Raises what the client raises, or `TimeoutError`.

    The public way, entering the sender, sleeps for 50 ms after each of about ten frames.
    """
    inner: Any = sender

    def handler(auth: Any) -> Any:
        inner._create_handler(auth)
        return inner._handler

    if not hasattr(inner, "_create_handler"):
        await asyncio.wait_for(sender.__aenter__(), timeout)
        return
    await _opened(inner, handler, timeout)
    found = inner._amqp_transport
    message = found.get_remote_max_message_size(inner._handler) or _LARGE_BATCH
    batch = found.get_remote_max_message_batch_size(inner._handler)
    inner._max_message_size_on_link = message
    inner._max_batch_size_on_link = batch or (_LARGE_BATCH if message >= _LARGE_BATCH else _BATCH)
    inner._running = True


async def open_receiver(receiver: Any, timeout: float) -> None:
    """The same for a receiver."""

    def handler(auth: Any) -> Any:
        receiver._create_handler(auth)
        return receiver._handler

    if not hasattr(receiver, "_create_handler"):
        await asyncio.wait_for(receiver.__aenter__(), timeout)
        return
    await _opened(receiver, handler, timeout)
    receiver._running = True


async def open_looker(receiver: Any, timeout: float) -> None:
    """The same for a receiver that only makes requests, without a link by which messages could come.

    Queues with sessions refuse the public way, an ordinary receiver.
    """

    def handler(auth: Any) -> Any:
        return receiver._amqp_transport.create_mgmt_client_async(
            config=receiver._config,
            auth=auth,
            properties=receiver._properties,
            retry_policy=receiver._error_policy,
            client_name=receiver._name,
        )

    if not hasattr(receiver, "_error_policy"):
        await open_receiver(receiver, timeout)
        return
    await _opened(receiver, handler, timeout)
    receiver._running = True


_BATCH, _LARGE_BATCH = 256 * 1024, 1024 * 1024
"""Bytes of a batch in the Standard and the Premium tier, where an entity does not say it ("Service Bus quotas")."""


async def _opened(owner: Any, make: Callable[[Any], Any], timeout: float) -> None:
    """Make a handler of the client's and wait until it is ready."""

    async def connect() -> None:
        from azure.servicebus.aio._async_utils import create_authentication  # type: ignore[import-not-found,unused-ignore]

        auth = await create_authentication(owner)  # type: ignore[no-untyped-call,unused-ignore]
        owner._handler = make(auth)
        try:
            await owner._handler.open_async(connection=None)
        finally:
            owner._camora_wire = _wire_of(owner)
        while not await owner._handler.client_ready_async():
            pass  # it has read from the connection for a while

    try:
        await asyncio.wait_for(connect(), timeout)
    except Exception as error:
        raise _as_public(owner, error) from error


def _as_public(owner: Any, error: Exception) -> Exception:
    """As the client itself would raise it; what a credential or the network has raised stays as it is."""
    import logging

    from azure.servicebus._pyamqp.error import AMQPException  # type: ignore[import-not-found,unused-ignore]

    if not isinstance(error, AMQPException):
        return error
    # It logs what it makes, which is to be heard no more than the client's other news.
    made: Exception = owner._amqp_transport.create_servicebus_exception(logging.getLogger("azure.servicebus"), error)
    return made


# What there is


def largest_message(sender: ServiceBusSender) -> int:
    """Bytes of a message that the entity takes, as it said when the link was made; 0 if it has not been made.

    It is more than `create_message_batch` allows where an entity takes large messages.
    """
    return int(getattr(sender, "_max_message_size_on_link", 0) or 0)


def add(batch: ServiceBusMessageBatch, outgoing: Outgoing, raw: bytes) -> bool:
    """Add a message to a batch, unless there is no room. `raw` is the message encoded, which the client does twice.

    The public way is `batch.add_message`.
    """
    inner: Any = batch
    if not all(hasattr(inner, name) for name in ("_message", "_size", "_count", "_amqp_transport")):
        try:
            batch.add_message(outgoing.message())
        except ValueError:
            return False
        return True
    size = inner._size + len(raw) + (5 if len(raw) < 256 else 8)  # a section, and its size
    if size > batch.max_size_in_bytes:
        return False
    if not inner._count:
        # The first one's stand for all of them on the envelope.
        inner._amqp_transport.set_batch_envelope_properties(
            inner._message, outgoing.message_id, outgoing.session, outgoing.more.get("partition_key")
        )
    inner._message[_BODY].append(raw)
    inner._size = size
    inner._count += 1
    return True


_BODY = 5
"""The place of the body among the sections of a message of the client's."""


async def alive(sender: ServiceBusSender, timeout: float) -> bool:
    """Whether a sender can be used: reads what came in meanwhile, answers heartbeats, and renews the token in time.

    The client finds out that its link or connection has ended only in the midst of sending, and then it cannot tell
    whether the message was stored.
    """
    inner: Any = sender
    amqp = inner._handler
    if amqp is None or not inner._running:
        return False

    async def renew() -> None:
        while not await amqp.auth_complete_async():
            pass  # it has read from the connection for a while

    try:
        await asyncio.wait_for(renew(), timeout)
        await amqp._connection.listen(wait=0.001, batch=100)
        return amqp._connection._error is None and amqp._link.get_state().value == _ATTACHED
    except Exception:  # noqa: BLE001 -- whatever it is, the sender is of no use any more
        return False


def silent(sender: ServiceBusSender) -> bool:
    """Whether nothing has come in on its connection, not even its end. Of WebSockets it is not known: False."""
    amqp: Any = getattr(sender, "_handler", None)
    reader = getattr(getattr(getattr(amqp, "_connection", None), "_transport", None), "reader", None)
    if not isinstance(reader, asyncio.StreamReader):
        return False
    waiting = getattr(reader, "_buffer", b"?")
    return not waiting and not reader.at_eof() and reader.exception() is None


_ATTACHED = 3


# Scheduled messages


async def schedule(sender: ServiceBusSender, messages: Sequence[tuple[Outgoing, bytes]], timeout: float) -> list[int]:
    """Schedule messages, each for its own time and encoded as it is, in one request; their sequence numbers.

    The client takes one time for all. The public way is a request for each time.
    """
    inner: Any = sender
    if not hasattr(inner, "_mgmt_request_response_with_retry"):
        return await _schedule_by_time(sender, [one for one, _ in messages], timeout)
    from azure.servicebus._common import mgmt_handlers  # type: ignore[import-not-found,unused-ignore]

    entries = []
    for one, raw in messages:
        named = {
            "message-id": one.message_id,
            "session-id": one.session,
            "partition-key": one.more.get("partition_key"),
        }
        entries.append({name: value for name, value in named.items() if value} | {"message": bytearray(raw)})
    numbers: list[int] = await inner._mgmt_request_response_with_retry(
        b"com.microsoft:schedule-message", {"messages": entries}, mgmt_handlers.schedule_op, timeout=timeout
    )
    return numbers


async def _schedule_by_time(sender: ServiceBusSender, messages: Sequence[Outgoing], timeout: float) -> list[int]:
    numbers: list[int] = []
    for due, group in groupby(messages, key=attrgetter("due")):
        when = datetime.fromtimestamp(due / 1000, UTC)
        numbers += await sender.schedule_messages([one.message() for one in group], when, timeout=timeout)
    return numbers


# Messages that were received


async def release(receiver: Any, message: Any) -> None:
    """Give a message of `receive_messages` back as if it had never been delivered: no delivery is counted.

    Raises what the client raises. The public way is to abandon it, which counts a delivery.
    """
    settle = getattr(getattr(receiver, "_handler", None), "settle_messages_async", None)
    if settle is None or not hasattr(message, "_delivery_tag"):
        await receiver.abandon_message(message)
        return
    await settle(message._delivery_id, message._delivery_tag, "released", await_outcome=True, outcome_timeout=_CLOSING)
    message._settled = True


def by_token(message: Any) -> Any:
    """The same message, to be settled with any receiver by its lock token: its own connection is gone.

    The client goes this way by itself, after it has waited for an answer from a link that never delivered the message.
    """
    message._is_deferred_message = True  # those have no link
    return message


# Ending


async def close(handler: Any, seconds: float = _CLOSING) -> None:
    """Close a sender or receiver of the client's; politely for so many seconds. Raises nothing.

    Closing writes to a peer that may not read, and waits; and after an error the client forgets to close the socket.
    """
    wire = _wire_of(handler)
    closing = asyncio.ensure_future(handler.close())
    await asyncio.wait({closing}, timeout=seconds)
    if not closing.done():
        _cut(_transport_of(wire))
        closing.cancel()
        await asyncio.wait({closing}, timeout=seconds)
    if closing.done() and not closing.cancelled():
        closing.exception()
    _cut(_transport_of(wire))
    session = getattr(wire, "session", None)  # of WebSockets
    if session is not None:
        await session.close()


def abort(handler: Any) -> None:
    """Cut the connection of a sender or receiver of the client's: what waits for it ends at once."""
    _cut(socket_of(handler))


def _cut(transport: Any) -> None:
    if transport is not None:
        with contextlib.suppress(RuntimeError):
            transport.abort()


def inside_of(handler: Any) -> Any:
    """That part of a sender or receiver which owns its connection: None where there is none.

    After an error the client drops it. Who wants to close its socket then must hold it, or it complains when it goes.
    """
    return getattr(handler, "_handler", None)


def socket_of(handler: Any) -> Any:
    """The transport of its connection, of TCP or of WebSockets; None where there is none."""
    return _transport_of(_wire_of(handler))


def _wire_of(handler: Any) -> Any:
    """What the client keeps a socket in. After an error it forgets it: so it was noted when it was made."""
    connection = getattr(getattr(handler, "_handler", None), "_connection", None)
    return getattr(connection, "_transport", None) or getattr(handler, "_camora_wire", None)


def _transport_of(wire: Any) -> Any:
    writer = getattr(wire, "writer", None)
    if writer is not None:
        return writer.transport
    response = getattr(getattr(wire, "sock", None), "_response", None)
    return getattr(getattr(response, "connection", None), "transport", None)
