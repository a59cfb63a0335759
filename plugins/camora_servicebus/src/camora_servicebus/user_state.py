"""The state of a session, for the jobs of that session: some bytes that the service keeps with it."""

from __future__ import annotations

import asyncio
from typing import Any

from camora.context import Context
from camora.dependencies import dependency
from camora.errors import BrokerUnavailable, ConfigurationError

from camora_servicebus.lent import Lent
from camora_servicebus.receiving import Answer
from camora_servicebus.sessions import Sessions

__all__ = ["SessionState", "session_state"]

_TIMEOUT = 30.0


class SessionState:
    """Of the session whose job runs; nobody else reads or changes it meanwhile.

    It outlives jobs and messages, until it is set to None: the service counts it in the size of the queue. It is no
    part of a job's end: a job that sets it and then fails finds it at its next attempt.
    """

    def __init__(self, sessions: Sessions, tag: bytes) -> None:
        self._sessions = sessions
        self._tag = tag
        self.session = sessions.session_of(tag)
        """The session."""

    def get(self) -> bytes | None:
        """What was set last; None: nothing. Does no I/O. Raises `BrokerUnavailable` when the session is lost."""
        try:
            return self._sessions.own_state(self._tag)
        except LookupError:
            raise self._lost() from None

    async def set(self, state: bytes | None) -> None:
        """Store it; None: forget it. Raises `BrokerUnavailable` when it is not known that it was stored."""
        self._check(await asyncio.wrap_future(self._sessions.set_own_state(self._tag, state, _TIMEOUT)))

    def set_sync(self, state: bytes | None) -> None:
        """The same for functions that run in threads: blocks for up to 30 seconds."""
        self._check(self._sessions.set_own_state(self._tag, state, _TIMEOUT).result(2 * _TIMEOUT))

    def _check(self, answer: Answer) -> None:
        if answer is Answer.LOST:
            raise self._lost()
        if answer is not Answer.DONE:
            raise BrokerUnavailable(f"session {self.session!r}: the service has not confirmed its state")

    def _lost(self) -> BrokerUnavailable:
        return BrokerUnavailable(f"session {self.session!r} is not this worker's any more")


def _of(context: Context) -> SessionState:
    receipt: Any = context.delivery.receipt
    if not isinstance(receipt, Lent) or not isinstance(receipt.by, Sessions):
        raise ConfigurationError(
            f"{context.task.name}: it asks for the state of its session, and queue {context.queue!r} has no sessions: "
            "declare it as ServiceBusQueue(…, sessions=True)"
        )
    return SessionState(receipt.by, receipt.tag)


session_state = dependency(_of, scope="job", provides=SessionState)
"""`Camora(dependencies=[session_state])`: then a task has a parameter `state: SessionState`."""
