"""`$management` of an entity ("AMQP 1.0 in Azure Service Bus: request-response-based operations")."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from tests.servers.servicebus.amqp.link import FromClient
from tests.servers.servicebus.amqp.types import Array, DecodeError
from tests.servers.servicebus.entities import Entity, EntityError
from tests.servers.servicebus.message import Request, delivered, milliseconds, read_message
from tests.servers.servicebus.receiving import Receiving
from tests.servers.servicebus.requests import Answer, Names
from tests.servers.servicebus.rules import add_rule, enumerate_rules, remove_rule
from tests.servers.servicebus.sending import BUSY

if TYPE_CHECKING:
    from tests.servers.servicebus.service import Service

__all__ = ["NAMES", "Management"]

NAMES = Names("statusCode", "statusDescription", "errorCondition")
_VENDOR = "com.microsoft:"

Operation = Callable[["Management", dict[str, Any], object], Answer]


class Management:
    """What one entity is asked."""

    def __init__(self, service: Service, path: str) -> None:
        self.service = service
        self.path = path

    @property
    def entity(self) -> Entity:
        """Raises `NotFound` for a topic: one receives from its subscriptions."""
        return self.service.namespace.entity(self.path)

    def __call__(self, request: Request, link: FromClient) -> Answer | None:
        """Do what is asked. None if a fault keeps the answer back."""
        operation = str(request.application.get("operation", "")).removeprefix(_VENDOR)
        faults = self.service.faults
        if fault := faults.take("management_silent", self.path, operation):
            self.service.told("kept_silent", entity=self.path, operation=operation)
            return None
        if faults.take("throttled", self.path):
            return Answer(503, BUSY[1], condition=BUSY[0])
        if fault := faults.take("management_refused", self.path, operation):
            return Answer(fault.status, fault.description, condition=fault.condition)
        answer = self._do(operation, request, self._holder(request, link))
        if fault := faults.take("management_answer_lost", self.path, operation):
            self.service.lose(link, fault)
            return None
        return answer

    def _do(self, operation: str, request: Request, holder: object) -> Answer:
        found = _OPERATIONS.get(operation)
        if found is None:
            return Answer(501, f"no such operation: {operation!r}", condition="amqp:not-implemented")
        fields = request.value if isinstance(request.value, dict) else {}
        try:
            return found(self, {str(name): value for name, value in fields.items()}, holder)
        except EntityError as failure:
            return Answer(failure.status, str(failure), condition=failure.condition)
        except (KeyError, TypeError, DecodeError) as failure:
            return Answer(400, f"{operation}: {failure!r}", condition=f"{_VENDOR}argument-error")

    def _holder(self, request: Request, link: FromClient) -> object:
        # Who has the session's lock is the link that the request names, or else whoever uses the same connection.
        name = request.application.get("associated-link-name")
        for other in link.connection.links:
            if name is not None and other.name == name and isinstance(other.node, Receiving):
                return other.node
        return None


def _schedule(at: Management, fields: dict[str, Any], holder: object) -> Answer:
    del holder
    messages = [read_message(bytes(one["message"]), message_id=one.get("message-id")) for one in fields["messages"]]
    numbers = at.service.namespace.target(at.path).schedule(messages)
    return Answer(200, value={"sequence-numbers": Array(0x81, numbers)})


def _cancel(at: Management, fields: dict[str, Any], holder: object) -> Answer:
    del holder
    at.service.namespace.target(at.path).cancel(_numbers(fields))
    return Answer(200)


def _renew(at: Management, fields: dict[str, Any], holder: object) -> Answer:
    del holder
    until = [milliseconds(at.entity.renew(token)) for token in _tokens(fields)]
    return Answer(200, value={"expirations": Array(0x83, until)})


def _peek(at: Management, fields: dict[str, Any], holder: object) -> Answer:
    del holder
    found = at.entity.peek(fields["from-sequence-number"], fields["message-count"], fields.get("session-id"))
    if not found:
        return Answer(204, "No messages are available.", value={"messages": []})
    messages = [
        {"message": delivered(one, delivery_count=one.delivery_count, locked_until=None, peeked=True)} for one in found
    ]
    return Answer(200, value={"messages": messages})


def _by_sequence(at: Management, fields: dict[str, Any], holder: object) -> Answer:
    numbers, session = _numbers(fields), fields.get("session-id")
    if fields.get("receiver-settle-mode") == 0:  # gone with the answer: receive and delete
        taken = at.entity.take_by_sequence(numbers, holder, session=session)
        messages = [{"message": delivered(one, delivery_count=one.delivery_count, locked_until=None)} for one in taken]
    else:
        locked = at.entity.by_sequence(numbers, holder, session=session)
        messages = [
            {
                "message": delivered(one.stored, delivery_count=one.delivery_count, locked_until=one.locked_until),
                "lock-token": one.token,
            }
            for one in locked
        ]
    return Answer(200, value={"messages": messages})


def _settle(at: Management, fields: dict[str, Any], holder: object) -> Answer:
    del holder
    entity, status = at.entity, fields["disposition-status"]
    changes = {str(name): value for name, value in (fields.get("properties-to-modify") or {}).items()}
    for token in _tokens(fields):
        match status:
            case "completed":
                entity.complete(token)
            case "abandoned":
                entity.abandon(token, properties=changes)
            case "defered" | "deferred":  # the service's own spelling is the first
                entity.defer(token, properties=changes)
            case "suspended":
                reason, description = fields.get("deadletter-reason"), fields.get("deadletter-description")
                entity.dead_letter(token, reason=reason or "", description=description or "", properties=changes)
            case _:
                return Answer(400, f"no disposition-status: {status!r}", condition=f"{_VENDOR}argument-error")
    return Answer(200)


def _renew_session(at: Management, fields: dict[str, Any], holder: object) -> Answer:
    return Answer(200, value={"expiration": milliseconds(at.entity.renew_session(fields["session-id"], holder))})


def _get_state(at: Management, fields: dict[str, Any], holder: object) -> Answer:
    return Answer(200, value={"session-state": at.entity.get_state(fields["session-id"], holder)})


def _set_state(at: Management, fields: dict[str, Any], holder: object) -> Answer:
    state = fields.get("session-state")
    at.entity.set_state(fields["session-id"], None if state is None else bytes(state), holder)
    return Answer(200)


def _sessions(at: Management, fields: dict[str, Any], holder: object) -> Answer:
    del holder
    skip, top = int(fields.get("skip") or 0), int(fields.get("top") or 100)
    found = sorted(at.entity.sessions())[skip : skip + top]
    if not found:
        return Answer(204, "No sessions match.", condition=f"{_VENDOR}session-not-found")
    return Answer(200, value={"skip": skip + len(found), "sessions-ids": Array(0xB1, found)})


def _add_rule(at: Management, fields: dict[str, Any], holder: object) -> Answer:
    del holder
    add_rule(at.service.namespace, at.path, fields["rule-name"], fields["rule-description"])
    return Answer(200)


def _remove_rule(at: Management, fields: dict[str, Any], holder: object) -> Answer:
    del holder
    remove_rule(at.service.namespace, at.path, fields["rule-name"])
    return Answer(200)


def _enumerate_rules(at: Management, fields: dict[str, Any], holder: object) -> Answer:
    del holder
    found = enumerate_rules(at.service.namespace, at.path, int(fields.get("skip") or 0), int(fields.get("top") or 100))
    if not found:
        return Answer(204, "No rules.")
    return Answer(200, value={"rules": [{"rule-description": rule} for rule in found]})


_OPERATIONS: dict[str, Operation] = {
    "schedule-message": _schedule,
    "cancel-scheduled-message": _cancel,
    "renew-lock": _renew,
    "peek-message": _peek,
    "receive-by-sequence-number": _by_sequence,
    "update-disposition": _settle,
    "renew-session-lock": _renew_session,
    "get-session-state": _get_state,
    "set-session-state": _set_state,
    "get-message-sessions": _sessions,
    "add-rule": _add_rule,
    "remove-rule": _remove_rule,
    "enumerate-rules": _enumerate_rules,
}


def _numbers(fields: dict[str, Any]) -> Sequence[int]:
    return [int(number) for number in fields["sequence-numbers"]]


def _tokens(fields: dict[str, Any]) -> list[uuid.UUID]:
    return [token if isinstance(token, uuid.UUID) else uuid.UUID(str(token)) for token in fields["lock-tokens"]]
