"""A connection that listens to one channel."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from camora.errors import BrokerUnavailable

from camora_redis.errors import ConnectionLost, ServerError, unavailable
from camora_redis.link import Link
from camora_redis.wire import Wire, pack

__all__ = ["Subscription"]

logger = logging.getLogger("camora.redis")


class Subscription:
    """`told` gets each message of the channel; `ended` is called once, however the connection ends.

    Belongs to the event loop in which it is opened.
    """

    def __init__(self, link: Link, channel: str, *, told: Callable[[bytes], None], ended: Callable[[], None]) -> None:
        self._link = link
        self._channel = channel
        self._told = told
        self._ended = ended
        self._heard = True
        self._wire: Wire | None = None
        self._end: asyncio.Task[None] | None = None
        self._confirmed: asyncio.Future[None] | None = None

    @property
    def closed(self) -> bool:
        """True before it is opened, and as soon as its connection is gone."""
        return self._wire is None or self._wire.closed

    async def open(self, key: str) -> None:
        """Listen at the server of a key; from the return on nothing is missed. Raises `BrokerUnavailable`."""
        loop = asyncio.get_running_loop()
        confirmed = self._confirmed = loop.create_future()
        wire = self._wire = await self._link.new_wire(key, self._hear)
        self._end = loop.create_task(wire.ended())
        self._end.add_done_callback(lambda _: self._ended())
        try:
            wire.tell(pack(("SUBSCRIBE", self._channel)))
            await self._confirmation(confirmed)
        except ServerError as error:
            await self.close()
            raise unavailable(self._link.who, error) from error
        except BaseException:
            await self.close()
            raise

    async def _confirmation(self, confirmed: asyncio.Future[None]) -> None:
        assert self._end is not None
        timeout = self._link.store.settings.timeout
        await asyncio.wait((confirmed, self._end), timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        if confirmed.done():
            confirmed.result()
        elif self._end.done():
            raise BrokerUnavailable(f"{self._link.who}: the server closed the connection")
        else:
            raise BrokerUnavailable(f"{self._link.who}: no answer to SUBSCRIBE within {timeout:g} s")

    def check(self) -> None:
        """Ask for a sign of life; where nothing at all was heard since the last time, end the connection.

        Else one that is open on this side only would never be noticed: nothing is awaited on it.
        """
        if self._wire is None:
            return
        if not self._heard:
            self._wire.abort(ConnectionLost("nothing was heard"))
        self._heard = False
        self._wire.tell(pack(("PING",)))

    def _hear(self, said: Any) -> None:
        self._heard = True
        if isinstance(said, list) and len(said) == 3:
            if said[0] == b"message":
                try:
                    self._told(said[2])
                except Exception:
                    # One message, whatever is wrong with it, does not cost the connection.
                    logger.exception("channel %s: a message could not be used", self._channel)
                return
            said = None
        if self._confirmed is None or self._confirmed.done():
            return
        if isinstance(said, ServerError):
            self._confirmed.set_exception(said)
        elif said is None:
            self._confirmed.set_result(None)

    async def close(self) -> None:
        """Close the connection. May be repeated."""
        if self._wire is not None:
            await self._wire.close()
        if self._end is not None:
            # Somebody may have cancelled it, as jobs may do to every task that there is.
            await asyncio.wait([self._end])

    def abandon(self) -> None:
        """Let go of the socket although the event loop is gone."""
        if self._wire is not None:
            self._wire.abandon()
