"""Links on which clients receive one session ("Message sessions"; "AMQP 1.0 protocol guide": session filter)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from tests.servers.servicebus.amqp.link import Link, ToClient
from tests.servers.servicebus.amqp.performatives import error
from tests.servers.servicebus.amqp.types import Described, Symbol
from tests.servers.servicebus.entities import Entity, EntityError
from tests.servers.servicebus.receiving import Receiving

if TYPE_CHECKING:
    from tests.servers.servicebus.service import Service

__all__ = ["FILTER", "ReceivingSession", "session_filter"]

FILTER = "com.microsoft:session-filter"
_TIMEOUT = "com.microsoft:timeout"
_LOCKED_UNTIL = "com.microsoft:locked-until-utc"
_DEFAULT_WAIT = 60.0
# What the service says a time in: steps of 100 ns since the year 1.
_EPOCH_TICKS = 621355968000000000


def session_filter(source: Any) -> tuple[bool, str | None]:
    """Whether a source asks for a session, and for which: None is the next one that is free."""
    filters = source.value[7] if isinstance(source, Described) and len(source.value) > 7 else None
    if not isinstance(filters, dict) or FILTER not in filters:
        return False, None
    wanted = filters[FILTER]
    wanted = wanted.value if isinstance(wanted, Described) else wanted
    return True, None if wanted is None else str(wanted)


class ReceivingSession(Receiving):
    """The server's end of one. The link is not attached before there is a session."""

    def __init__(self, service: Service, entity: Entity, link: ToClient, wanted: str | None) -> None:
        super().__init__(service, entity, link)
        self._wanted = wanted
        self._until: asyncio.TimerHandle | None = None
        self._held: Any = None
        link.node = self  # it may go while it waits

    def begin(self) -> None:
        """Take a session now, or wait for one."""
        asked = (self.link.attach.properties or {}).get(_TIMEOUT)
        seconds = _DEFAULT_WAIT if asked is None else asked / 1000
        self._try()
        if self._held is None and not self.link.ended:
            self._until = asyncio.get_running_loop().call_later(seconds, self._late)

    def pump(self) -> None:
        if self._held is None:
            self._try()
        elif self.still():
            super().pump()

    def still(self) -> bool:
        """Whether the session is its own still; else the link ends, as in the service."""
        if self._held is not None and self._held.holder is not self and not self.link.ended:
            self.detach(
                "com.microsoft:session-lock-lost",
                "The session lock has expired on the MessageSession. Accept a new MessageSession.",
            )
        return not self.link.ended

    def gone(self, link: Link) -> None:
        if self._until is not None:
            self._until.cancel()
        self._service.sessions.discard(self)
        super().gone(link)

    def _try(self) -> None:
        if self.link.ended:
            return
        try:
            held = self.entity.accept_session(self._wanted, self)
        except EntityError as failure:
            self.link.refuse(error(failure.condition, str(failure)))
            return
        if held is None:
            return
        if self._until is not None:
            self._until.cancel()
        self._held = held
        self.session = held.session_id
        self._service.sessions.add(self)
        source = self.link.attach.source
        fields = list(source.value)
        fields[7] = {Symbol(FILTER): held.session_id}
        ticks = _EPOCH_TICKS + int(held.locked_until * 10_000_000)
        self.link.accept(self, source=Described(source.descriptor, fields), properties={Symbol(_LOCKED_UNTIL): ticks})
        self._service.told("session_attached", entity=self.path, session=held.session_id, link=self.link.name)

    def _late(self) -> None:
        self.link.refuse(
            error(_TIMEOUT, "The operation did not complete within the allotted timeout: no session is available.")
        )
