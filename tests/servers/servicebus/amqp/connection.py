"""Connections: headers, SASL, open, heartbeats, close ("OASIS AMQP 1.0, part 2: transport", 2.2 to 2.4)."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Callable
from typing import Any, Protocol

import attrs

from tests.servers.servicebus.amqp import performatives
from tests.servers.servicebus.amqp.frames import AMQP_HEADER, EMPTY, SASL, SASL_HEADER, Frames, frame
from tests.servers.servicebus.amqp.link import Link
from tests.servers.servicebus.amqp.performatives import (
    Attach,
    Begin,
    Close,
    Detach,
    Disposition,
    End,
    Flow,
    Open,
    Performative,
    SaslInit,
    SaslMechanisms,
    SaslOutcome,
    Transfer,
)
from tests.servers.servicebus.amqp.session import Session
from tests.servers.servicebus.amqp.types import Array, DecodeError, Symbol

__all__ = ["Connection", "Container", "Limits"]

_MECHANISMS = ("MSSBCBS", "PLAIN", "ANONYMOUS", "EXTERNAL")
_numbers = itertools.count(1)


@attrs.frozen
class Limits:
    """How a connection is set up: sizes in bytes, times in seconds."""

    max_frame: int = 65536
    idle: float = 240.0
    """A client that says nothing for so long is gone; it is told half of it ("2.4.5 idle time out")."""
    channel_max: int = 4999


class Container(Protocol):
    """What a server does with its connections."""

    limits: Limits

    def opened(self, connection: Connection) -> None:
        """A client is there."""

    def attached(self, link: Link) -> None:
        """A client begins a link: accept it or refuse it, now or later."""

    def closed(self, connection: Connection) -> None:
        """A client is gone, and all its links before it."""

    def logged_in(self, mechanism: str, response: bytes) -> bool:
        """Whether somebody who says so may come in."""

    def before_writing(self) -> None:
        """Something is about to be answered: what it says must not be lost any more."""


class Connection(asyncio.Protocol):
    """One client's connection."""

    def __init__(self, container: Container, clock: Callable[[], float]) -> None:
        self.container = container
        self.clock = clock
        self.number = next(_numbers)
        self.name = ""
        self.sessions: dict[int, Session] = {}
        self.remote_max_frame = 512
        self.writable = True
        self.state: dict[str, Any] = {}
        """What the container keeps with it."""
        self.heard = clock()
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._frames = Frames(container.limits.max_frame)
        self._header = b""
        self._layer = ""
        self._open = False
        self._closed = False
        self._muted = False
        self._held: list[bytes] = []
        self._out: list[bytes] = []
        self._scheduled = False
        self._to_flush: set[Session] = set()
        self._beat: asyncio.TimerHandle | None = None
        self._remote_idle: float | None = None
        self._said = self.heard

    @property
    def links(self) -> list[Link]:
        """All that are there."""
        return [link for session in self.sessions.values() for link in session.links.values()]

    # --- of asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._transport.set_write_buffer_limits(high=1 << 20)
        self.container.opened(self)

    def data_received(self, data: bytes) -> None:
        if self._muted:
            self._held.append(data)
            return
        self.heard = self.clock()
        try:
            self._read(data)
        except DecodeError as error:
            self.close("amqp:decode-error", str(error))
        self.flush()

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._closed = True
        self._transport = None
        if self._beat is not None:
            self._beat.cancel()
        for session in list(self.sessions.values()):
            session.end()
        self.sessions.clear()
        self.container.closed(self)

    def pause_writing(self) -> None:
        self.writable = False

    def resume_writing(self) -> None:
        self.writable = True
        for session in list(self.sessions.values()):
            session.flowing()
        self.flush()

    # --- reading

    def _read(self, data: bytes) -> None:
        if len(self._header) < 8:
            data = self._read_header(data)
            if not data:
                return
        self._frames.feed(data)
        while not self._muted and not self._closed and (one := self._frames.next()):
            kind, channel, body = one
            if kind == SASL:
                self._login(body)
            elif body:
                said, at = performatives.read(body)
                self._hear(channel, said, body[at:])

    def _read_header(self, data: bytes) -> bytes:
        self._header += data
        if len(self._header) < 8:
            return b""
        header, rest = self._header[:8], self._header[8:]
        if header == SASL_HEADER and self._layer == "":
            self._layer = "sasl"
            offered = SaslMechanisms(Array(0xB3, [Symbol(name) for name in _MECHANISMS]))
            self.write(SASL_HEADER + frame(0, offered.encode(), SASL))
        elif header == AMQP_HEADER:
            self._layer = "amqp"
            self.write(AMQP_HEADER)
        else:
            # Whoever speaks another protocol is told which one is spoken here (2.2).
            self.write(SASL_HEADER)
            self.flush()
            self.cut()
            return b""
        self._header = header
        return rest

    def _login(self, body: bytes) -> None:
        said, _ = performatives.read(body)
        if not isinstance(said, SaslInit):
            raise DecodeError("a client answers with sasl-init")
        known = str(said.mechanism) in _MECHANISMS
        welcome = known and self.container.logged_in(str(said.mechanism), bytes(said.initial_response or b""))
        self.write(frame(0, SaslOutcome(0 if welcome else 1).encode(), SASL))
        if not welcome:
            self.flush()
            self.end_stream()
            return
        rest = self._frames.take_rest()
        self._layer = "between"
        self._header = b""
        if rest:
            self._read(rest)

    def _hear(self, channel: int, said: Performative, rest: bytes) -> None:
        session = self.sessions.get(channel)
        match said:
            case Transfer() if session is not None:
                session.transfer_received(said, rest)
            case Disposition() if session is not None:
                session.disposition_received(said)
            case Flow() if session is not None:
                session.flow_received(said)
            case Attach() if session is not None:
                self.container.attached(session.attach(said))
            case Detach() if session is not None:
                session.detach_received(said)
            case End() if session is not None:
                del self.sessions[channel]
                session.end()
                session.send(End())
            case Open():
                self._opened(said)
            case Begin():
                self.sessions[channel] = Session(self, channel, said)
            case Close():
                self.write(frame(0, Close().encode()))
                self.flush()
                self.end_stream()
            case _:
                raise DecodeError(f"{type(said).__name__} on a channel without a session: {channel}")

    def _opened(self, said: Open) -> None:
        self.name = str(said.container_id)
        self.remote_max_frame = min(said.max_frame_size or 0xFFFFFFFF, self.container.limits.max_frame)
        self._open = True
        limits = self.container.limits
        self.write(
            frame(
                0,
                Open(
                    container_id="camora-servicebus-emulator",
                    max_frame_size=limits.max_frame,
                    channel_max=limits.channel_max,
                    idle_time_out=int(limits.idle * 500),
                ).encode(),
            )
        )
        self._remote_idle = said.idle_time_out / 1000 if said.idle_time_out else None
        self._schedule_beat()

    # --- heartbeats

    def _schedule_beat(self) -> None:
        wait = min(self.container.limits.idle / 4, (self._remote_idle or 240) / 3)
        self._beat = self._loop.call_later(wait, self._on_beat)

    def _on_beat(self) -> None:
        if self._closed:
            return
        if not self._muted:
            if self.clock() - self.heard > self.container.limits.idle:
                self.close(
                    "amqp:resource-limit-exceeded", "The client said nothing for the time-out of the connection."
                )
                return
            if self._remote_idle is not None:
                self.write(EMPTY)
                self.flush()
        self._schedule_beat()

    # --- writing

    def write(self, data: bytes) -> None:
        """Say something; it goes out when all is said that there is to say now."""
        self._out.append(data)
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._on_soon)

    def soon(self, session: Session) -> None:
        """A session has something that it would say together with more."""
        self._to_flush.add(session)
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._on_soon)

    def _on_soon(self) -> None:
        self._scheduled = False
        self.flush()

    def flush(self) -> None:
        """Let out what was said."""
        for session in self._to_flush:
            session.flush()
        self._to_flush.clear()
        if self._out and not self._muted:
            self.container.before_writing()
            data = b"".join(self._out)
            self._out.clear()
            if self._transport is not None:
                self._transport.write(data)

    # --- ends

    def mute(self) -> None:
        """Answer nothing any more; what arrives waits."""
        self._muted = True

    def unmute(self) -> None:
        """Hear what waited, and go on."""
        if self._muted:
            self._muted = False
            held, self._held = b"".join(self._held), []
            self.data_received(held)

    def close(self, condition: str, description: str) -> None:
        """End it with an error."""
        if not self._closed:
            error = performatives.error(condition, description)
            self.write(frame(0, Close(error).encode()) if self._open else b"")
            self.flush()
            self.end_stream()

    def end_stream(self) -> None:
        """Close the socket when all is written."""
        self._closed = True
        if self._transport is not None:
            self._transport.close()

    def cut(self) -> None:
        """Reset the socket: what was not sent yet is lost."""
        self._closed = True
        self._out.clear()
        self._to_flush.clear()
        if self._transport is not None:
            with contextlib.suppress(OSError):
                self._transport.abort()
