"""A network between client and server that fails on demand: a TCP proxy in a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import enum
import socket
import struct
import threading
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Self, TypeVar

from tests.servers.ports import free_port

__all__ = ["Proxy"]

T = TypeVar("T")


class Mode(enum.Enum):
    """What is done with the bytes that come."""

    FORWARD = enum.auto()
    HOLD = enum.auto()
    DROP_REPLIES = enum.auto()


class Proxy:
    """A port in front of another one. Every switch has taken effect when its method returns; all may be called from
    any thread. `address` is where the server listens; when it does not, connections are reset.
    """

    host = "127.0.0.1"

    def __init__(self, address: tuple[str, int]) -> None:
        self.address = address
        self.port = free_port()
        self.mode = Mode.FORWARD
        self.latency = 0.0
        self.trap: Trap | None = None
        self.links: set[Link] = set()
        self._listener: asyncio.Server | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name=f"proxy-{self.port}", daemon=True)
        self._thread.start()
        self._do(self._listen())

    @property
    def connections(self) -> int:
        """How many connections are open through it, held ones too."""
        return len(self.links)

    def cut(self) -> None:
        """Reset every connection, on both sides. New ones are taken."""
        self._do(self._cut())

    def refuse(self) -> None:
        """Refuse new connections until `heal`. Those that are open go on: `cut` them as well for an outage."""
        self._do(self._refuse())

    def hold(self) -> None:
        """Swallow all bytes in both directions until `heal`, and every end of a connection: nobody hears anything."""
        self._do(self._set(mode=Mode.HOLD))

    def drop_replies(self) -> None:
        """Pass what clients send, and swallow what the server answers, until `heal`."""
        self._do(self._set(mode=Mode.DROP_REPLIES))

    def drop_next_reply(self, to: bytes = b"") -> threading.Event:
        """Swallow one reply, then reset its connection: the server did it, and the client does not know.

        What counts is the next thing sent, on any connection, that contains `to`, and what the server says after it on
        that connection. The event is set when it is done. One at a time; `heal` takes it back.
        """
        trap = Trap(to)
        self._do(self._set(trap=trap))
        return trap.done

    def delay(self, seconds: float) -> None:
        """Let everything take so long, each way, in order, until `heal`."""
        self._do(self._set(latency=seconds))

    def heal(self) -> None:
        """Be an ordinary network again. Connections that lost bytes or ends are reset: nothing could repair them."""
        self._do(self._heal())

    def close(self) -> None:
        """Reset all and end."""
        if self._thread.is_alive():
            self._do(self._refuse())
            self._do(self._cut())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(10)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _run(self) -> None:
        with contextlib.closing(self._loop):
            self._loop.run_forever()

    def _do(self, what: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(what, self._loop).result(10)

    async def _listen(self) -> None:
        for _ in range(10):
            with contextlib.suppress(OSError):
                self._listener = await self._loop.create_server(lambda: Link(self).client, self.host, self.port)
                return
            self.port = free_port()
        raise OSError("no free port was found")

    async def _refuse(self) -> None:
        if self._listener:
            self._listener.close()
            self._listener = None

    async def _cut(self) -> None:
        await self._reset(list(self.links))

    async def _reset(self, links: list[Link]) -> None:
        for link in links:
            link.reset()
        while not self.links.isdisjoint(links):
            await asyncio.sleep(0)  # the loop closes sockets in its own time

    async def _set(self, **values: Any) -> None:
        for name, value in values.items():
            setattr(self, name, value)

    async def _heal(self) -> None:
        await self._set(mode=Mode.FORWARD, latency=0.0, trap=None)
        await self._reset([link for link in self.links if link.damaged])
        if not self._listener:
            self._listener = await self._loop.create_server(lambda: Link(self).client, self.host, self.port)


class Trap:
    """Waits for a request with certain bytes in it, then for what the server answers on that connection."""

    def __init__(self, to: bytes) -> None:
        self.to = to
        self.link: Link | None = None
        self.done = threading.Event()

    def sees(self, link: Link, sent: bytes) -> None:
        """Take note of what a client sent; the bytes may have come in pieces."""
        seen = link.sent_last + sent
        link.sent_last = seen[-len(self.to) + 1 :] if len(self.to) > 1 else b""
        if self.link is None and self.to in seen:
            self.link = link

    def forget(self, link: Link) -> None:
        """It ended before the answer came: wait for another."""
        if self.link is link:
            self.link = None


class Link:
    """One client's connection and the one to the server for it."""

    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy
        self.damaged = False
        self.sent_last = b""
        self.client = End(self, self._from_client)
        self.server = End(self, self._from_server)
        self.client.peer, self.server.peer = self.server, self.client
        self._connecting: asyncio.Task[None]

    def opened(self) -> None:
        """The client is there: connect to the server for it."""
        self.proxy.links.add(self)
        self._connecting = asyncio.get_running_loop().create_task(self._connect())

    def ended(self, end: End) -> None:
        """One end was closed: so is the other, unless the network swallows that too."""
        if self._swallows(end):
            self.damaged = True
        else:
            self._connecting.cancel()
            end.peer.later(end.peer.close)
        if self.client.closed and self.server.closed:
            self.proxy.links.discard(self)
            if self.proxy.trap:
                self.proxy.trap.forget(self)

    def reset(self) -> None:
        """End both with a reset."""
        self._connecting.cancel()
        self.client.reset()
        self.server.reset()

    async def _connect(self) -> None:
        self.client.pause()
        try:
            await asyncio.get_running_loop().create_connection(lambda: self.server, *self.proxy.address)
        except OSError:
            self.reset()
        else:
            self.client.resume()

    def _swallows(self, end: End) -> bool:
        modes = (Mode.HOLD,) if end is self.client else (Mode.HOLD, Mode.DROP_REPLIES)
        return self.proxy.mode in modes

    def _from_client(self, data: bytes) -> None:
        if self._swallows(self.client):
            self.damaged = True
            return
        if self.proxy.trap:
            self.proxy.trap.sees(self, data)
        self.server.later(lambda: self.server.write(data))

    def _from_server(self, data: bytes) -> None:
        trap = self.proxy.trap
        if self._swallows(self.server):
            self.damaged = True
        elif trap and trap.link is self:
            self.proxy.trap = None
            self.reset()
            trap.done.set()
        else:
            self.client.later(lambda: self.client.write(data))


class End(asyncio.Protocol):
    """One of the two sockets of a link."""

    peer: End

    def __init__(self, link: Link, received: Callable[[bytes], None]) -> None:
        self._link = link
        self._transport: asyncio.Transport | None = None
        self._received = received
        self._due = 0.0
        self._lost = False

    @property
    def closed(self) -> bool:
        """Whether it has no socket: no more, or not yet."""
        return self._transport is None or self._lost

    def data_received(self, data: bytes) -> None:
        self._received(data)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self is self._link.client:
            self._link.opened()

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = True
        self._link.ended(self)

    def pause_writing(self) -> None:
        self.peer.pause()

    def resume_writing(self) -> None:
        self.peer.resume()

    def pause(self) -> None:
        if self._transport:
            self._transport.pause_reading()

    def resume(self) -> None:
        if self._transport:
            self._transport.resume_reading()

    def later(self, do: Callable[[], None]) -> None:
        """Do it after the network's latency, and after all that was to be done before."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        if not self._link.proxy.latency and self._due <= now:
            do()
            return
        self._due = max(now + self._link.proxy.latency, self._due + 1e-6)  # timers of one moment have no order
        loop.call_at(self._due, do)

    def write(self, data: bytes) -> None:
        if self._transport and not self._transport.is_closing():
            self._transport.write(data)

    def close(self) -> None:
        if self._transport:
            self._transport.close()

    def reset(self) -> None:
        if self._transport and not self.closed:
            # No lingering: the other side is told that the connection is gone, and not that it ended.
            with contextlib.suppress(OSError):
                linger = struct.pack("ii", 1, 0)
                self._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self._transport.abort()
