"""Nodes that are asked and answer: `$cbs` and `$management` ("AMQP management, working draft 9": request, response)."""

from __future__ import annotations

import uuid
from collections import deque
from collections.abc import Callable
from typing import Any

import attrs

from tests.servers.servicebus.amqp.link import Arrived, FromClient, Link, ToClient
from tests.servers.servicebus.amqp.session import ACCEPTED
from tests.servers.servicebus.amqp.types import DecodeError, Int, Symbol
from tests.servers.servicebus.message import Request, message, read_request

__all__ = ["Answer", "Names", "Requests"]


@attrs.frozen
class Answer:
    """What is answered. `condition` names an error."""

    status: int
    description: str = "OK"
    value: Any = None
    condition: str | None = None


@attrs.frozen
class Names:
    """How an answer's properties are called."""

    status: str
    description: str
    condition: str


Handler = Callable[[Request, FromClient], Answer | None]
"""What does a request; None if nobody is to be answered."""


class Requests:
    """Both halves of such a node, on one connection: links with requests, and links for the answers."""

    def __init__(self, handle: Handler, names: Names) -> None:
        self._handle = handle
        self._names = names
        self._answers: list[ToClient] = []
        self._waiting: deque[tuple[str | None, bytes]] = deque()

    def join(self, link: Link) -> None:
        """Take a link of a client's, of either half."""
        if isinstance(link, ToClient):
            self._answers.append(link)
        link.accept(self)

    def received(self, link: FromClient, arrived: Arrived) -> None:
        link.settle(arrived, ACCEPTED)
        try:
            request = read_request(arrived.payload)
        except DecodeError as error:
            link.connection.close("amqp:decode-error", str(error))
            return
        answer = self._handle(request, link)
        if answer is not None:
            self.answer(request, answer)

    def answer(self, request: Request, answer: Answer) -> None:
        """Answer a request, now or as soon as there is credit for it."""
        said: dict[str, Any] = {
            self._names.status: Int(answer.status),
            self._names.description: answer.description,
        }
        if answer.condition is not None:
            said[self._names.condition] = Symbol(answer.condition)
        payload = message(answer.value, said, correlation_id=request.message_id, to=request.reply_to)
        self._waiting.append((request.reply_to, payload))
        self._send()

    def flowing(self, link: ToClient) -> None:
        del link
        self._send()

    def settling(self, link: ToClient, first: int, deliveries: list[Any], state: Any, *, settled: bool) -> None:
        if not settled:
            link.session.settle_sent(first, first + len(deliveries) - 1, state)

    def gone(self, link: Link) -> None:
        if isinstance(link, ToClient):
            self._answers.remove(link)

    def _send(self) -> None:
        for _ in range(len(self._waiting)):
            reply_to, payload = self._waiting.popleft()
            link = self._link_for(reply_to)
            if link is not None and link.room:
                link.send(uuid.uuid4().bytes_le, payload, None)
            else:
                self._waiting.append((reply_to, payload))

    def _link_for(self, reply_to: str | None) -> ToClient | None:
        named = [link for link in self._answers if reply_to is not None and _target(link) == reply_to]
        found = named or self._answers
        return found[-1] if found else None


def _target(link: ToClient) -> str | None:
    target = link.attach.target
    address = target.value[0] if target is not None and target.value else None
    return None if address is None else str(address)
