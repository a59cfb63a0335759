"""One session of an entity, as long as it is ours: a connection, a lock, a state, and one message at a time.

The service gives the messages of a session in order, and to nobody else while its lock is held. The lock is the
connection's: with it goes all that was taken ("Message sessions").
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from datetime import UTC, datetime
from typing import Any

import attrs
from azure.servicebus.exceptions import (
    MessageLockLostError,
    MessageSizeExceededError,
    ServiceBusError,
    ServiceBusQuotaExceededError,
    SessionLockLostError,
)

from camora_servicebus.direct import Direct
from camora_servicebus.locks import LockTerm
from camora_servicebus.messages import ADDED, added_of
from camora_servicebus.receiving import Answer, Came, Word
from camora_servicebus.session_record import Kept, Record, packed, unpacked

__all__ = ["Held", "SessionLink", "SessionMessage"]


logger = logging.getLogger(__name__)


class SessionMessage:
    """A message of the client's under a session's lock, perhaps with another body and count than its own."""

    def __init__(self, message: Any, until: float, kept: Kept | None) -> None:
        self._message = message
        self._kept = kept
        self.locked_until_utc = datetime.fromtimestamp(until, UTC)
        self.enqueued_time_utc = None
        """Not told: for a message alone it bounds its lock, which is older here."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._message, name)

    @property
    def body(self) -> Any:
        """That of the next attempt, if there was one before."""
        kept = self._kept
        return self._message.body if kept is None or kept.body is None else kept.body

    @property
    def application_properties(self) -> Any:
        """With the deliveries that are to be added."""
        found = self._message.application_properties
        if self._kept is None or not self._kept.added:
            return found
        return {**(found or {}), ADDED: added_of(self._message) + self._kept.added}


@attrs.define(eq=False)
class Held:
    """The one message of a session that is here; `given` once a worker has it."""

    message: Any
    number: int
    tag: bytes
    due: int = 0
    given: bool = False

    @property
    def deliveries(self) -> int:
        """As the service and its sender count them."""
        return int(self.message.delivery_count or 0) + 1 + added_of(self.message)


class SessionLink(Direct):
    """A session that was accepted. `receiver` is one of the client's for the next session that is free."""

    ordered = True

    def __init__(self, receiver: Any, came: Came, *, quiet: float) -> None:
        super().__init__(receiver, came, quiet=quiet)
        self.session = ""
        self.held: Held | None = None
        self.credit = False
        """Whether the service may send a message."""
        self.since = self.began = time.monotonic()
        """When it had something to do last, and when it was accepted."""
        self.record = Record()
        """What its state says, once it has been read."""
        self._known = False
        self.suspect = False
        """Whether the first message may have killed the worker that had it before."""
        self.until = 0.0
        """The end of its lock by the service's clock, since the epoch."""
        self.reading: asyncio.Future[None] | None = None
        self.leaving = self.renewing = False
        self._term = LockTerm()
        self._renewed = self._lasts = 0.0
        self._writing = asyncio.Lock()
        self._noting: asyncio.Future[Answer] | None = None

    async def accept(self, timeout: float, patience: float) -> None:
        """Wait for a session, and read its state. Raises what the client raises, and `TimeoutError`."""
        asked = time.monotonic()
        await self.open(timeout)
        session = self._receiver.session
        self.session = session.session_id
        self.since = self.began = time.monotonic()
        self.reading = asyncio.ensure_future(self.run())
        until = session.locked_until_utc
        # It may have come long after it was asked for: how old the lock is only the service's clock says.
        self._locked(max(asked, self.began - 1.0), time.time() if until is None else until.timestamp())
        value = await self._request(b"com.microsoft:get-session-state", {}, "default", patience)
        found = value.get(b"session-state")
        self.record = unpacked(None if found is None else bytes(found))
        self._known = True
        self.suspect = self.record.held
        if not self.record.held:
            # The request goes out before any message is asked for: whatever a job does then, this was said before.
            self._noting = asyncio.ensure_future(self.write(patience, held=True))

    @property
    def kept(self) -> Kept | None:
        """What was written down of a message."""
        return self.record.kept

    @property
    def own(self) -> bytes | None:
        """The state that the user's own code has set."""
        return self.record.own

    @property
    def alive(self) -> bool:
        """Whether its connection stands, as far as is known."""
        return not self._over and not self.leaving and self.reading is not None and not self.reading.done()

    async def _request(self, operation: bytes, message: dict[str, Any], handler: str, timeout: float) -> Any:
        return await super()._request(operation, {"session-id": self.session, **message}, handler, timeout)

    # Its lock

    def _locked(self, asked: float, until: float) -> None:
        self.until = until
        self._renewed, self._lasts = asked, self._term.of_renewal(until)

    @property
    def fresh(self) -> bool:
        """Whether less than a third of its lock is over."""
        return time.monotonic() < self._renewed + self._lasts / 3

    @property
    def locked(self) -> bool:
        """Whether it is ours still, as far as is known: a process may have been stopped for a while."""
        return time.monotonic() < self._renewed + self._lasts

    async def renew_session(self, timeout: float) -> float | Answer:
        """Until when it is locked by the service's clock, or why not."""
        asked = time.monotonic()
        try:
            value = await self._request(b"com.microsoft:renew-session-lock", {}, "session_lock_renew_op", timeout)
        except (SessionLockLostError, MessageLockLostError):
            return Answer.LOST
        except Exception:  # noqa: BLE001 -- whatever it is, it is tried again
            return Answer.UNKNOWN
        self._locked(asked, value[b"expiration"] / 1000)
        return self.until

    # Its state

    async def keep(self, word: Word, timeout: float) -> Answer:
        """Write down that the message that is held comes once more, so that this survives us."""
        held = self.held
        if held is None:
            return Answer.LOST
        number = held.message.sequence_number
        before = self.kept if self.kept is not None and self.kept.number == number else None
        body = word.body if word.body is not None else None if before is None else before.body
        kept = Kept(number, word.due, word.deliveries - held.deliveries, body)
        try:
            return await self.write(timeout, kept=kept)
        except ServiceBusError as error:
            logger.warning("session %r: the next try of a job is remembered here alone: %s", self.session, error)
            self.record = attrs.evolve(self.record, kept=kept)
            return Answer.DONE

    async def accuse(self, held: Held, timeout: float) -> None:
        """Count a delivery more of this message: its worker has died, and the service does not count that."""
        kept = self.kept
        if kept is None or kept.number != held.message.sequence_number:
            kept = Kept(held.message.sequence_number)
        await self.write(timeout, kept=attrs.evolve(kept, added=kept.added + 1))

    async def write(self, timeout: float, **changes: Any) -> Answer:
        """Store the record with these changes. `LOST`: the session is not ours any more.

        Raises `ServiceBusError` where the service takes no state of that size.
        """
        async with self._writing:
            record = attrs.evolve(self.record, **changes)
            state = packed(record)
            message = {"session-state": None if state is None else bytearray(state)}
            try:
                await self._request(b"com.microsoft:set-session-state", message, "default", timeout)
            except (SessionLockLostError, MessageLockLostError):
                return Answer.LOST
            except Exception as error:
                if isinstance(error, ServiceBusError) and self.alive and _too_large(error):
                    raise
                return Answer.UNKNOWN
            self.record = record
            return Answer.DONE

    async def give_up(self, timeout: float) -> None:
        """Say that whoever has it next need not suspect its first message, and end the connection. Raises nothing."""
        busy = self.held is not None and self.held.given
        # Of a state that was never read nothing may be written.
        if self._known and self.alive and not busy and self.locked:
            with contextlib.suppress(Exception):
                await self.write(timeout, held=False)
        self.leaving = True
        self.cease()
        await self.close(timeout)
        for task in (self.reading, self._noting):
            if task is not None:
                task.cancel()
                with contextlib.suppress(BaseException):
                    await task


def _too_large(error: Exception) -> bool:
    """Whether the service has no room for so large a state."""
    return isinstance(error, (MessageSizeExceededError, ServiceBusQuotaExceededError)) or "size" in str(error).lower()
