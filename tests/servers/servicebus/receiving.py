"""Links on which clients receive ("Message transfers, locks, and settlement"; "AMQP 1.0 protocol guide": receiver)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.servers.servicebus.amqp.link import Arrived, FromClient, Link, ToClient
from tests.servers.servicebus.amqp.performatives import error
from tests.servers.servicebus.amqp.types import Described, ULong
from tests.servers.servicebus.entities import Entity, EntityError
from tests.servers.servicebus.message import delivered
from tests.servers.servicebus.sending import rejected

if TYPE_CHECKING:
    from tests.servers.servicebus.service import Service

__all__ = ["Receiving"]

# How many messages are locked at once for one link: more would leave the others waiting for the loop.
_AT_ONCE = 256


class Receiving:
    """The server's end of one, without a session."""

    session: str | None = None

    def __init__(self, service: Service, entity: Entity, link: ToClient) -> None:
        self._service = service
        self.entity = entity
        self.link = link
        self.path = entity.path
        entity.listen(self.awake)

    def awake(self) -> None:
        """Something may have become available."""
        self._service.later(self)

    def flowing(self, link: ToClient) -> None:
        del link
        self.pump()

    def pump(self) -> None:
        """Send what there is, as far as there is credit."""
        if not self.entity.options.can_receive():
            return
        try:
            sent = self._send_all()
        except EntityError as failure:  # the session's lock has lapsed just now
            self.detach(failure.condition, str(failure))
            return
        if sent and not self.link.ended:
            self.entity.served(self.awake)

    def _send_all(self) -> int:
        link, sent = self.link, 0
        while (room := min(link.room, _AT_ONCE)) and not link.ended:
            count = self._send_settled(room) if link.settled else self._send_locked(room)
            sent += count
            if count < room:
                break
        return sent

    def _send_locked(self, room: int) -> int:
        locked = self.entity.lock(room, self, session=self.session)
        for one in locked:
            payload = delivered(one.stored, delivery_count=one.delivery_count, locked_until=one.locked_until)
            self.link.send(one.token.bytes_le, payload, one.token)
        return len(locked)

    def _send_settled(self, room: int) -> int:
        taken = self.entity.take(room, self, session=self.session)
        for stored in taken:
            payload = delivered(stored, delivery_count=stored.delivery_count, locked_until=None)
            self.link.send(self._service.tag(), payload, None)
        return len(taken)

    def settling(self, link: ToClient, first: int, deliveries: list[Any], state: Any, *, settled: bool) -> None:
        for number, token in enumerate(deliveries, first):
            self._settle(link, number, token, state, settled=settled)

    def _settle(self, link: ToClient, number: int, token: Any, state: Any, *, settled: bool) -> None:
        faults = self._service.faults
        answer = state
        if fault := faults.take("settle_lost", self.path):
            self._service.lose(link, fault)
            return
        if fault := faults.take("settle_refused", self.path):
            answer = rejected(fault.condition, fault.description)
        elif token is not None:
            try:
                self._apply(token, state)
            except EntityError as failure:
                answer = rejected(failure.condition, str(failure))
            else:
                if isinstance(state, Described) and state.descriptor == 0x25:
                    answer = Described(ULong(0x25), [])  # with an error it would say that it was not done
        if fault := faults.take("settle_answer_lost", self.path):
            self._service.lose(link, fault)
        elif not settled and not link.ended:
            link.session.settle_sent(number, number, answer)

    def _apply(self, token: Any, state: Any) -> None:
        """Do what an outcome says ("Message transfers, locks, and settlement": settling receive operations)."""
        fields = state.value if isinstance(state, Described) and isinstance(state.value, list) else []
        match state.descriptor if isinstance(state, Described) else None:
            case 0x24:
                self.entity.complete(token)
            case 0x25:
                condition = fields[0].value if fields and isinstance(fields[0], Described) else []
                info = dict((condition[2] if len(condition) > 2 else None) or {})
                reason = info.pop("DeadLetterReason", None)
                description = info.pop("DeadLetterErrorDescription", None)
                self.entity.dead_letter(
                    token, reason=reason or "", description=description or "",
                    properties={str(name): value for name, value in info.items()},
                )  # fmt: skip
            case 0x26:
                self.entity.release(token)
            case 0x27:
                changes = {str(name): value for name, value in ((fields[2] if len(fields) > 2 else None) or {}).items()}
                if len(fields) > 1 and fields[1]:
                    self.entity.defer(token, properties=changes)
                else:
                    self.entity.abandon(token, properties=changes)

    def received(self, link: FromClient, message: Arrived) -> None:
        """Nothing comes on it."""

    def detach(self, condition: str, description: str) -> None:
        """End the link with an error."""
        self.link.detach(error(condition, description))

    def gone(self, link: Link) -> None:
        del link
        self.entity.unlisten(self.awake)
        self.entity.holder_gone(self, locks_too=self._service.options.locks_die_with_link)
