"""The way of messages to the service: gathered into batches, and sent until the service has them, or has said no."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

from camora.errors import BrokerUnavailable, ConfigurationError, DispatchUncertain, MessageTooLarge

from camora_servicebus import internals
from camora_servicebus.client import Connector
from camora_servicebus.errors import Cause, judge
from camora_servicebus.line import Line, denied, too_large
from camora_servicebus.messages import Outgoing

__all__ = ["Publisher"]

_PULSE = 10.0
"""Seconds between two looks at connections that have nothing to do: the service ends those that say nothing."""


class Publisher:
    """All that one event loop sends: a connection for each entity, made when it is first needed.

    `who` begins the texts of errors. Making one does no I/O.
    """

    def __init__(self, connector: Connector, who: str) -> None:
        self._connector = connector
        self._who = who
        self._lines: dict[str, Line] = {}
        self._pulse: asyncio.Task[None] | None = None

    async def open(self, entity: str) -> None:
        """Let the service judge the credentials, for this entity; it need not exist.

        Raises `BrokerUnavailable`, or `ConfigurationError` for credentials that are not accepted.
        """
        store = self._connector.store
        client = self._connector.client()
        try:
            await internals.authenticate(client, entity, self._connector.name(), store.settings.timeout)
        except ConfigurationError:
            raise
        except Exception as error:
            judged = judge(error)
            if judged.cause is Cause.MISSING:
                return
            if judged.cause is Cause.DENIED:
                raise ConfigurationError(f"{self._who}: {denied(store.address.by_key, judged.text)}") from error
            raise BrokerUnavailable(f"{self._who}: {judged.text}") from error

    async def publish(self, messages: Sequence[Outgoing]) -> list[int | None]:
        """Store them all, in order; for each its sequence number if it is one that waits for its time, else None.

        Concurrent calls share batches. Cancelled, it leaves out what is not on its way yet. Raises `BrokerUnavailable`
        when nothing was stored, `DispatchUncertain` when it cannot be known, or when only some were, and
        `MessageTooLarge`.
        """
        self._check(messages)
        found = await self.outcomes(messages)
        failed = [(one, error) for one, error in zip(messages, found, strict=True) if isinstance(error, BaseException)]
        if failed:
            raise self._failure(messages, failed)
        return [one for one in found if not isinstance(one, BaseException)]

    async def outcomes(self, messages: Sequence[Outgoing]) -> list[int | BaseException | None]:
        """The same, but for each message apart: its sequence number, None, or the error that `publish` would raise."""
        futures = [self._line(message.target).put(message) for message in messages if self._refusal(message) is None]
        if futures:
            try:
                await asyncio.wait(futures)
            except asyncio.CancelledError:
                for future in futures:
                    future.cancel()
                raise
        ended = iter(futures)
        return [self._refusal(message) or _outcome(next(ended)) for message in messages]

    def _check(self, messages: Sequence[Outgoing]) -> None:
        """What is too large for every queue is refused before anything of the batch is sent."""
        for message in messages:
            if (error := self._refusal(message)) is not None:
                raise error

    def _refusal(self, message: Outgoing) -> MessageTooLarge | None:
        size, limit = len(message.body), self._connector.store.settings.max_message_size
        return too_large(message, size, limit) if size > limit else None

    def _failure(self, messages: Sequence[Outgoing], failed: Sequence[tuple[Outgoing, BaseException]]) -> BaseException:
        message, error = failed[0]
        if len(messages) == 1:
            return error
        doubtful = next(((one, why) for one, why in failed if isinstance(why, DispatchUncertain)), None)
        if doubtful is None and len(failed) == len(messages):
            return error
        message, error = doubtful or failed[0]
        stored = len(messages) - len(failed)
        return DispatchUncertain(
            f"{error}. {stored} of the {len(messages)} messages of this batch were enqueued",
            job_id=message.job_id,
            final=True,
        )

    def _line(self, entity: str) -> Line:
        line = self._lines.get(entity)
        if line is None:
            line = self._lines[entity] = Line(self._connector, entity, self._who)
            if self._pulse is None:
                self._pulse = asyncio.create_task(self._beat(), name="camora-servicebus-pulse")
        return line

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(_PULSE)
            for line in list(self._lines.values()):
                await line.beat()

    async def close(self) -> None:
        """Close all connections; what waits to be sent is refused."""
        lines, self._lines = list(self._lines.values()), {}
        pulse, self._pulse = self._pulse, None
        if pulse is not None:
            pulse.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await pulse
        await asyncio.gather(*(line.close() for line in lines))

    def abandon(self) -> None:
        """Let go of the sockets of a loop that is gone: from any thread, without waiting."""
        lines, self._lines = list(self._lines.values()), {}
        self._pulse = None
        for line in lines:
            line.abandon()


def _outcome(done: asyncio.Future[int | None]) -> int | BaseException | None:
    return done.exception() or done.result()
