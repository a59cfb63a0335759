"""Everything that is not on the path of a job, by aio-pika: declaring, looking, emptying."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections.abc import AsyncIterator
from typing import Any

import aio_pika
import aiormq.exceptions
from aio_pika.abc import AbstractConnection
from camora.errors import BrokerUnavailable, ConfigurationError
from yarl import URL

from camora_amqp.sockets import Opener
from camora_amqp.store import Store

__all__ = ["Control"]

_UNEQUAL = re.compile(
    r"inequivalent arg '([^']+)' for (\w+) '([^']+)' in vhost '[^']*': received (.+?) but current is (.+)"
)

_GOODBYE = 1.0
"""Seconds that the server has to answer a goodbye."""
_OF_QUORUM = ("x-overflow", "x-dead-letter-strategy", "x-delivery-limit")
"""Differences that hide another one: the server names the first that it finds."""

# What these libraries log as errors, for each try and with tracebacks, is raised, too, and said once by whoever asked.
# Who wants to read it sets a level of his own.
for _name in ("aio_pika", "aiormq"):
    if (_logger := logging.getLogger(_name)).level == logging.NOTSET:
        _logger.setLevel(logging.CRITICAL)


class _Connection(aio_pika.Connection):
    """One that does nothing when it is collected: `Control` has closed its socket before, or its loop is gone."""

    def __del__(self) -> None:
        """The library would begin to close it here, in whatever thread and loop this happens to be."""


class Control:
    """A connection of one event loop, there while somebody uses it.

    Not for longer: the library's tasks complain when a program ends and has not closed the app.
    """

    def __init__(self, store: Store, who: str) -> None:
        self._store = store
        self._who = who
        self._connection: AbstractConnection | None = None
        self._opener: Opener | None = None
        self._turn = asyncio.Lock()
        self._users = 0

    @contextlib.asynccontextmanager
    async def channel(self) -> AsyncIterator[Any]:
        """A channel for this purpose alone: aiormq's, under aio-pika's.

        Raises `BrokerUnavailable`, also for what fails inside; `ConfigurationError` for what exists with other
        properties, or may not be done.
        """
        self._users += 1
        try:
            async with asyncio.timeout(self._store.settings.timeout * 3):
                channel = await self._new_channel()
                try:
                    yield await channel.get_underlay_channel()
                finally:
                    if self._users > 1:
                        with contextlib.suppress(Exception):
                            async with asyncio.timeout(_GOODBYE):
                                await channel.close()
        except (BrokerUnavailable, ConfigurationError):
            raise
        except TimeoutError as error:
            await self.close()
            raise BrokerUnavailable(f"{self._who}: the server does not answer") from error
        except aiormq.exceptions.ChannelPreconditionFailed as error:
            raise self._unequal(str(error)) from error
        except aiormq.exceptions.ChannelAccessRefused as error:
            raise ConfigurationError(f"{self._who}: {error}. Let {self._store.address.user!r} do this") from error
        except (
            aiormq.exceptions.AMQPError, aiormq.exceptions.ChannelInvalidStateError, OSError, asyncio.CancelledError
        ) as error:  # fmt: skip
            if isinstance(error, asyncio.CancelledError):
                current = asyncio.current_task()
                if current is not None and current.cancelling():
                    raise
            raise BrokerUnavailable(f"{self._who}: {str(error) or type(error).__name__}") from error
        finally:
            self._users -= 1
            if not self._users:
                await self.close()

    async def _new_channel(self) -> Any:
        while True:
            connection = await self._connected()
            channel = connection.channel(on_return_raises=True)
            try:
                await channel.initialize()
            except RuntimeError:
                # The connection was lost a moment ago, and the library has not got so far as to say so.
                if self._connection is connection:
                    self._connection = None
            else:
                return channel

    def _unequal(self, text: str) -> Exception:
        found = _UNEQUAL.search(text)
        if found is None:
            return ConfigurationError(f"{self._who}: the server refuses: {text}")
        what, kind, name, *sides = found.groups()
        here, there = map(_value, sides)
        hint = ""
        if what in _OF_QUORUM and "none" in (here, there):
            quorum, classic = ("here", "there") if there == "none" else ("there", "here")
            hint = f" (quorum queues have this, classic ones have not: is it quorum {quorum}, and classic {classic}?)"
        return ConfigurationError(
            f"{self._who}: the {kind} {name!r} exists with other properties: {what} is {there} on the server, "
            f"and {here} here{hint}. Declare it as it is there, or delete it there once it is empty, or use another "
            "name"
        )

    async def _connected(self) -> AbstractConnection:
        async with self._turn:
            if self._connection is None or self._connection.is_closed:
                self._connection = await self._connect()
            return self._connection

    async def _connect(self) -> AbstractConnection:
        settings = self._store.settings
        options = {"auth": "external"} if self._store.external else {}
        said: list[str] = []
        for host in self._store.hosts():
            opener = Opener(self._store.context)
            try:
                url = self._store.address.url(host, heartbeat=30, name=f"{settings.name}: control", **options)
                made = _Connection(URL(url), ssl_context=self._store.context)
                made.kwargs |= {"transport_factory": opener, "loop": opener.loop}
                await made.connect(timeout=settings.timeout)
            except BaseException as error:
                await opener.end(_GOODBYE)
                if not isinstance(error, Exception):
                    raise
                # Whatever answers there.
                self._store.passed_by(host)
                said.append(f"{host[0]}:{host[1]}: {str(error) or type(error).__name__}")
            else:
                if self._opener is not None:
                    await self._opener.end(_GOODBYE)
                self._opener = opener
                return made
        raise BrokerUnavailable(f"{self._who}: {'; '.join(said)}")

    async def close(self) -> None:
        """Close it; the next use opens another one. May be repeated."""
        connection, self._connection = self._connection, None
        opener, self._opener = self._opener, None
        try:
            if connection is not None:
                with contextlib.suppress(Exception):
                    async with asyncio.timeout(_GOODBYE):
                        await connection.close()
        finally:
            if opener is not None:
                await opener.end(_GOODBYE)

    def abandon(self) -> None:
        """Let go of the socket of a loop that is gone."""
        self._connection = None
        opener, self._opener = self._opener, None
        if opener is not None:
            opener.let_go()


def _value(text: str) -> str:
    """What the server writes of a value: "the value 'quorum' of type 'longstr'", or "none"."""
    found = re.match(r"the value '(.*)' of type '", text.strip())
    return repr(found[1]) if found else text.strip(" '\"").removeprefix("'")
