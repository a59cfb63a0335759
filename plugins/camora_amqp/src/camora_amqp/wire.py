"""One connection to one node: frames in, frames out, in one event loop, without a task for each message.

The client library costs a task and several futures for each message that comes or goes. Here what goes out in one turn
of the loop is written at once, and what comes in is handed over by plain calls. When the server falls silent, the
connection is cut: nothing is ever left waiting on a dead one.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import platform
import ssl
import struct
from collections.abc import Callable, Sequence
from typing import Any, cast

from camora.sockets import let_go
from pamqp import commands, exceptions, frame, header
from pamqp.base import Frame

from camora_amqp import frames
from camora_amqp.errors import Refused, WireLost
from camora_amqp.refusals import in_words
from camora_amqp.settings import Address

__all__ = ["Channel", "Wire"]

logger = logging.getLogger(__name__)

_LEAST_FRAME = 4096
_LARGEST_FRAME = 131_072
"""Bytes: what a server proposes if nobody has told it otherwise. Larger ones only delay what shares the connection."""
_MOST_CHANNELS = 2047
_GOODBYE = 1.0
"""Seconds that the server has to answer a goodbye."""
_UNREADABLE = (exceptions.PAMQPException, struct.error, ValueError, LookupError, TypeError)
"""What reading bytes raises that are no AMQP."""


class Channel:
    """A channel of a wire. What comes is given to `on_deliver`, `on_confirm` and so on, which do not wait."""

    def __init__(self, wire: Wire, number: int) -> None:
        self.wire = wire
        self.number = number
        self.error: Exception | None = None
        """Why it is closed, once it is."""
        self.on_deliver: Callable[[frames.Deliver], None] | None = None
        self.on_confirm: Callable[[int, bool, bool], None] | None = None
        """Gets a tag, whether it stands for all before it, and whether the server has the message."""
        self.on_return: Callable[[str, frames.Deliver], None] | None = None
        """Gets the reason, and a message that no queue took."""
        self.on_cancel: Callable[[str], None] | None = None
        """Gets the consumer that the server has ended."""
        self.on_close: Callable[[Exception], None] | None = None
        self._reply: asyncio.Future[Frame] | None = None
        self._turn = asyncio.Lock()
        self._incoming: frames.Deliver | None = None
        self._returned = ""
        self._missing = 0
        self._pieces: list[bytes] = []

    async def call(self, request: Frame, timeout: float | None = None) -> Any:
        """Ask, and wait for the answer. Raises `Refused`, after which the channel is closed, or `WireLost`."""
        async with self._turn:
            if self.error is not None:
                raise self.error
            self._reply = asyncio.get_running_loop().create_future()
            self.wire.write(frame.marshal(request, self.number))
            try:
                async with asyncio.timeout(timeout or self.wire.timeout):
                    return await self._reply
            except TimeoutError:
                error = WireLost(f"no answer to {request.name} within {timeout or self.wire.timeout:g} s", sent=True)
                self.wire.fail(error)
                raise error from None
            except asyncio.CancelledError:
                # The answer would be taken for that of the next question.
                if not self._reply.done() or self._reply.cancelled():
                    self.wire.fail(WireLost(f"{request.name} was cancelled before its answer came", sent=True))
                raise
            finally:
                self._reply = None

    def retire(self) -> None:
        """Close it, and do not wait for that: nobody is to use it any more."""
        if self.error is None:
            self.wire.write(frame.marshal(commands.Channel.Close(200, "", 0, 0), self.number))

    def fail(self, error: Exception) -> None:
        """Closed: by the server, or with its connection."""
        if self.error is not None:
            return
        self.error = error
        self.wire.channels.pop(self.number, None)
        if self._reply is not None and not self._reply.done():
            self._reply.set_exception(error)
        if self.on_close is not None:
            self.on_close(error)

    # What comes

    def method(self, payload: bytes) -> None:
        """A frame of a method."""
        kind = payload[:4]
        if kind == frames.DELIVER:
            self._incoming = frames.read_deliver(payload[4:])
        elif kind in (frames.ACK, frames.NACK):
            tag, bits = frames.CONFIRM.unpack_from(payload, 4)
            if self.on_confirm is not None:
                self.on_confirm(tag, bool(bits & 1), kind == frames.ACK)
        elif kind == frames.RETURN:
            reason, exchange, routing_key = frames.read_returned(payload[4:])
            self._returned = reason or "returned"
            self._incoming = frames.Deliver(b"", 0, False, exchange, routing_key)
        else:
            self._other(frame.unmarshal(frames.FRAME.pack(1, self.number, len(payload)) + payload + b"\xce")[2])

    def _other(self, found: Any) -> None:
        if isinstance(found, commands.Channel.Close):
            self.wire.write(frame.marshal(commands.Channel.CloseOk(), self.number))
            self.fail(Refused(found.reply_code or 0, found.reply_text or ""))
        elif isinstance(found, commands.Basic.Cancel):
            if self.on_cancel is not None:
                self.on_cancel(found.consumer_tag or "")
        elif isinstance(found, commands.Channel.Flow):
            self.wire.write(frame.marshal(commands.Channel.FlowOk(active=found.active), self.number))
        elif self._reply is not None and not self._reply.done():
            self._reply.set_result(found)
        elif isinstance(found, commands.Channel.CloseOk):
            self.fail(WireLost("closed"))

    def header(self, payload: bytes) -> None:
        """A frame of a content's header."""
        if self._incoming is None:
            raise ValueError("a content without its method")
        self._incoming.properties = payload[12:]
        self._missing = int.from_bytes(payload[4:12], "big")
        if not self._missing:
            self._complete(b"")

    def body(self, payload: bytes) -> None:
        """A frame of a content's body."""
        self._missing -= len(payload)
        if self._incoming is None or self._missing < 0:
            raise ValueError("more of a content than was announced")
        if self._missing > 0:
            self._pieces.append(payload)
        elif self._pieces:
            pieces, self._pieces = self._pieces, []
            self._complete(b"".join((*pieces, payload)))
        else:
            self._complete(payload)

    def _complete(self, body: bytes) -> None:
        message, self._incoming = self._incoming, None
        assert message is not None
        message.body = body
        if self._returned:
            reason, self._returned = self._returned, ""
            if self.on_return is not None:
                self.on_return(reason, message)
        elif self.on_deliver is not None:
            self.on_deliver(message)


class Wire(asyncio.Protocol):
    """A connection that is open. Belongs to one event loop; `closed` is set with the reason when it is gone."""

    def __init__(self, label: str, timeout: float) -> None:
        self.label = label
        self.timeout = timeout
        self.channels: dict[int, Channel] = {}
        self.blocked = ""
        """Why the server takes no messages at this moment; empty when it does."""
        self.on_blocked: Callable[[], None] | None = None
        self.error: Exception | None = None
        self.closed: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()
        self.heard = 0.0
        """The loop's time of the last bytes from the server."""
        self.largest = _LEAST_FRAME - 8
        self.server: dict[str, Any] = {}
        """What it says of itself."""
        self._secured = False
        self.external = False
        """Whether the certificate said who we are."""
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._out: list[bytes] = []
        self._writable = asyncio.Event()
        self._writable.set()
        self._greeting: asyncio.Queue[Any] | None = asyncio.Queue()
        self._beating: asyncio.TimerHandle | None = None
        self._wrote = 0.0
        self._most_channels = _MOST_CHANNELS

    # Opening

    @classmethod
    async def connect(
        cls,
        address: Address,
        host: tuple[str, int],
        *,
        timeout: float,
        heartbeat: float,
        name: str,
        context: ssl.SSLContext | None = None,
    ) -> Wire:
        """Connect and log in. Raises `WireLost`, or `Refused` for what no waiting mends."""
        loop = asyncio.get_running_loop()
        where = f"{host[0]}:{host[1]}"
        wire = cls(where, timeout)
        try:
            async with asyncio.timeout(timeout):
                await loop.create_connection(
                    lambda: wire, host[0], host[1], ssl=context, server_hostname=host[0] if context else None
                )
                await wire._greet(address, heartbeat, name)
        except TimeoutError:
            reason: Exception = WireLost(f"{where} does not answer within {timeout:g} s")
        except (OSError, WireLost, Refused) as error:
            reason = in_words(error, address, where)
        except BaseException:
            wire.fail(WireLost(f"{where}: given up"))
            raise
        else:
            return wire
        wire.fail(reason)
        raise reason

    async def _greet(self, address: Address, heartbeat: float, name: str) -> None:
        self._write_now(header.ProtocolHeader().marshal())
        start = await self._greeted(commands.Connection.Start)
        self.server = dict(start.server_properties or {})
        self.external = external = _external(address, (start.mechanisms or "").split())
        self._tell(
            commands.Connection.StartOk(
                client_properties={
                    "product": "camora",
                    "platform": f"Python {platform.python_version()}",
                    "connection_name": name,
                    "capabilities": {
                        "authentication_failure_close": True,
                        "basic.nack": True,
                        "connection.blocked": True,
                        "consumer_cancel_notify": True,
                        "publisher_confirms": True,
                    },
                },
                mechanism="EXTERNAL" if external else "PLAIN",
                response="" if external else f"\0{address.user}\0{address.password}",
            )
        )
        tune = await self._greeted(commands.Connection.Tune)
        beat = max(1, min(65_535, round(heartbeat)))
        frame_max = min(tune.frame_max or _LARGEST_FRAME, _LARGEST_FRAME)
        self.largest = frame_max - 8
        self._most_channels = tune.channel_max or _MOST_CHANNELS
        self._tell(commands.Connection.TuneOk(channel_max=self._most_channels, frame_max=frame_max, heartbeat=beat))
        self._tell(commands.Connection.Open(virtual_host=address.vhost))
        await self._greeted(commands.Connection.OpenOk)
        self._greeting = None
        self._beat(beat, self._loop.time())

    def _tell(self, request: Frame) -> None:
        self._write_now(frame.marshal(request, 0))

    async def _greeted(self, kind: type[Any]) -> Any:
        assert self._greeting is not None
        found = await self._greeting.get()
        if isinstance(found, Exception):
            raise found
        if not isinstance(found, kind):
            raise Refused(0, f"{self.label} answers {found.name} where {kind.name} was due; is it a RabbitMQ server?")
        return found

    async def channel(self, *, confirms: bool = False) -> Channel:
        """Open a channel. Raises `WireLost` or `Refused`."""
        if self.error is not None:
            raise self.error
        number = next(number for number in itertools.count(1) if number not in self.channels)
        if number > self._most_channels:
            raise Refused(0, f"{self.label} allows {self._most_channels} channels on a connection (its channel_max)")
        made = self.channels[number] = Channel(self, number)
        await made.call(commands.Channel.Open())
        if confirms:
            await made.call(commands.Confirm.Select())
        return made

    # Writing

    def write(self, data: bytes) -> None:
        """Send, together with all else of this turn of the loop."""
        if self.error is not None:
            return
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(data)

    def _flush(self) -> None:
        out, self._out = self._out, []
        if self._transport is not None and not self._transport.is_closing():
            self._write_now(b"".join(out))

    def _write_now(self, data: bytes) -> None:
        assert self._transport is not None
        self._wrote = self._loop.time()
        self._transport.write(data)

    async def writable(self) -> None:
        """Wait until the network takes more. Raises what ended the connection."""
        await self._writable.wait()
        if self.error is not None:
            raise self.error

    def pause_writing(self) -> None:
        """The network is slower than we are."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """It has caught up."""
        self._writable.set()

    # Reading

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connected."""
        transport = cast("asyncio.Transport", transport)  # uvloop's are of classes of their own
        self._transport = transport
        self._secured = transport.get_extra_info("ssl_object") is not None
        transport.set_write_buffer_limits(high=1_000_000)
        self.heard = self._loop.time()

    def data_received(self, data: bytes) -> None:
        """Bytes: whole frames are handed over, the rest is kept."""
        self.heard = self._loop.time()
        if self._buffer:
            self._buffer += data
            data = bytes(self._buffer)
            self._buffer.clear()
        try:
            at = self._frames(data)
        except _UNREADABLE as error:
            self._unreadable(data, error)
            return
        if at < len(data):
            self._buffer += data[at:]

    def _frames(self, data: bytes) -> int:
        at, size = 0, len(data)
        unpack = frames.FRAME.unpack_from
        while size - at >= 8:
            kind, number, length = unpack(data, at)
            if length > _LARGEST_FRAME or kind > frames.BEAT:
                raise ValueError("no frame begins like this")
            end = at + 7 + length
            if end >= size:
                break
            if data[end] != frames.END:
                raise ValueError("a frame without its end")
            payload = data[at + 7 : end]
            at = end + 1
            if number:
                channel = self.channels.get(number)
                if channel is None:
                    continue  # it was closed here, and the server had not heard of that yet
                if kind == frames.METHOD:
                    channel.method(payload)
                elif kind == frames.HEADER:
                    channel.header(payload)
                else:
                    channel.body(payload)
            elif kind == frames.METHOD:
                self._of_connection(frame.unmarshal(data[end - 7 - length : at])[2])
        return at

    def _unreadable(self, data: bytes, error: Exception) -> None:
        if self._greeting is None:
            logger.error("%s sent what cannot be read", self.label, exc_info=error)
            self.fail(WireLost(f"{self.label} sent what cannot be read: {error}", sent=True))
        else:
            self.fail(Refused(0, f"{self.label}: {_stranger(data)}"))

    def _of_connection(self, found: Any) -> None:
        if isinstance(found, commands.Connection.Close):
            with contextlib.suppress(Exception):
                self._tell(commands.Connection.CloseOk())
            text = found.reply_text or "the server has closed the connection"
            self.fail(Refused(found.reply_code or 0, text), gently=True)
        elif isinstance(found, commands.Connection.Blocked | commands.Connection.Unblocked):
            self.blocked = (found.reason or "an alarm") if isinstance(found, commands.Connection.Blocked) else ""
            if self.on_blocked is not None:
                self.on_blocked()
        elif self._greeting is not None:
            self._greeting.put_nowait(found)
        elif isinstance(found, commands.Connection.CloseOk):
            self.fail(WireLost("closed"))

    # Heartbeats

    def _beat(self, interval: int, due: float) -> None:
        """Show a sign of life twice in an interval, and look for the server's.

        https://www.rabbitmq.com/docs/heartbeats: each side sends every half interval, and gives up after two.
        """
        now = self._loop.time()
        if now - due > interval / 4:
            # The loop stood still: what has come meanwhile may not be read yet.
            self._beating = self._loop.call_later(0.01, self._beat, interval, now + 0.01)
            return
        if now - self.heard > interval * 1.5 + 0.5:
            self.fail(WireLost(f"{self.label} has been silent for {now - self.heard:.1f} s", sent=True))
            return
        if now - self._wrote >= interval / 2 - 0.05:
            self._write_now(frames.HEARTBEAT)
        self._beating = self._loop.call_later(interval / 4, self._beat, interval, now + interval / 4)

    # The end

    def connection_lost(self, error: Exception | None) -> None:
        """The network says so."""
        if self._greeting is not None and not self.server and self.error is None:
            hint = (
                "asks for a certificate of yours (certfile and keyfile in the query)"
                if self._secured
                else "speaks TLS (amqps)"
            )
            self.fail(WireLost(f"{self.label} ends the connection before any greeting: perhaps it {hint}"))
            return
        text = f"{self.label} closed the connection" if error is None else f"{self.label}: {error}"
        self.fail(WireLost(text, sent=True))

    def fail(self, error: Exception, *, gently: bool = False) -> None:
        """Cut it; everybody who waits hears of it. May be repeated: the first reason counts.

        `gently`: what the network has taken already still goes to the server.
        """
        if self.error is not None:
            return
        self.error = error
        if self._beating is not None:
            self._beating.cancel()
        for channel in list(self.channels.values()):
            channel.fail(error)
        self._writable.set()
        if self._greeting is not None:
            self._greeting.put_nowait(error)
        if not self.closed.done():
            self.closed.set_result(error)
        if self._transport is not None:
            if gently and not self._transport.get_write_buffer_size():
                self._transport.close()
            else:
                self._transport.abort()

    async def close(self) -> None:
        """Say goodbye, and wait for a moment that the server has heard it: what was written before counts."""
        if self.error is not None or self._transport is None:
            return
        self.write(frame.marshal(commands.Connection.Close(200, "bye", 0, 0), 0))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(self.timeout, _GOODBYE)):
                await asyncio.shield(self.closed)
        self.fail(WireLost("closed"), gently=True)

    def abandon(self) -> None:
        """Close the socket although the loop may be gone: from any thread, without waiting. May be repeated."""
        error = WireLost(f"{self.label}: abandoned")
        if not self._loop.is_closed():
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self.fail, error)
            return
        transport, self._transport = self._transport, None
        self.error = self.error or error
        if transport is not None:
            let_go(transport, self._loop)


def _external(address: Address, mechanisms: Sequence[str]) -> bool:
    """Whether the certificate says who we are: where the URL names no user, or the server takes nothing else."""
    if "EXTERNAL" not in mechanisms or not (address.tls and "certfile" in address.tls):
        return False
    return not address.named or "PLAIN" not in mechanisms


def _stranger(data: bytes) -> str:
    """Who talks like this."""
    if data.startswith(b"AMQP"):
        return "it speaks another version of AMQP than 0-9-1"
    if data[:2] == b"\x15\x03":
        return "it speaks TLS: write amqps for amqp in the URL"
    begin = data[:24].decode(errors="replace")
    return f"what listens there is no RabbitMQ, it says {begin!r}: correct host and port"
