"""What a message of Camora's is on the wire: which properties it has, and what is read from them.

The body is the encoded message and nothing else. `message_id` is the job's id, `type` the task's name. A header says
how often it was handed out before it was put into its queue this time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from camora.message import Envelope

from camora_amqp import frames
from camora_amqp.frames import Deliver, Properties

__all__ = ["DELIVERIES", "PARKED", "Outgoing", "count_of", "fitting", "identity_of", "read", "recounted"]

DELIVERIES = "camora-deliveries"
PARKED = "camora-parked"
"""Marks the copy of a message that has been held for long: see `camora_amqp.parking`."""
_COUNT = "x-delivery-count"
_NOT_COPIED = frozenset({DELIVERIES, PARKED, "CC", "BCC"})
"""https://www.rabbitmq.com/docs/sender-selected: the last two are routing keys."""


class Outgoing:
    """A message on its way to the server: encoded, addressed."""

    __slots__ = ("body", "exchange", "header", "id", "mandatory", "reply", "routing_key")

    def __init__(
        self,
        job_id: str,
        exchange: str,
        routing_key: str,
        header: bytes,
        body: bytes,
        *,
        reply: bool = False,
        mandatory: bool = True,
    ) -> None:
        self.id = job_id
        self.exchange = exchange
        self.routing_key = routing_key
        self.header = header
        self.body = body
        self.reply = reply
        """A result on its way to who waits for it: nobody may, any more."""
        self.mandatory = mandatory
        """Whether it comes back if it reaches no queue at once."""

    @classmethod
    def of(
        cls,
        envelope: Envelope,
        exchange: str,
        routing_key: str,
        *,
        priority: int | None,
        reply_to: str,
        headers: Mapping[str, Any] | None = None,
        mandatory: bool = True,
    ) -> Outgoing:
        """A job."""
        header = frames.properties(
            message_id=fitting(envelope.id),
            type=fitting(envelope.task),
            priority=priority,
            reply_to=reply_to,
            headers=headers,
        )
        return cls(envelope.id, exchange, routing_key, header, envelope.body, mandatory=mandatory)


def recounted(message: Deliver, found: Properties, count: int, mark: str = "") -> bytes:
    """The properties of a copy that was handed out so often before; what the server has noted on it is left out.

    So are further queues that its sender named: they have got theirs.
    """
    headers = {name: value for name, value in found.headers.items() if name[:2] != "x-" and name not in _NOT_COPIED}
    if count > 0:
        headers[DELIVERIES] = count
    if mark:
        headers[PARKED] = mark
    if not message.properties:
        return frames.properties(message_id="")
    return frames.with_headers(frames.unsigned(message.properties), headers)


def fitting(text: str) -> str:
    """A text as a property, which has at most 255 bytes; what is longer is cut, and stays different from others."""
    raw = text.encode(errors="surrogatepass")
    if len(raw) <= frames.LONGEST:
        return text
    return f"{raw[:180].decode(errors='ignore')}…{hashlib.sha256(raw).hexdigest()}"


def read(message: Deliver) -> Properties:
    """Its properties; empty ones where somebody sent what cannot be read."""
    try:
        return frames.read_properties(message.properties)
    except Exception:  # noqa: BLE001 -- it came from anywhere; its body is what counts
        return Properties()


def identity_of(message_id: str, body: bytes) -> str:
    """The job's id; of a message that has none, one made of what it is, the same each time that it comes."""
    return message_id or f"amqp-{hashlib.sha256(body).hexdigest()[:24]}"


def count_of(found: Properties, redelivered: bool) -> int:
    """How often it was handed out before: by the header of ours, and by the queue's own count, or its mark."""
    headers = found.headers
    if not headers:
        return 1 if redelivered else 0
    before = _whole(headers.get(DELIVERIES))
    counted = headers.get(_COUNT)
    return before + (_whole(counted) if counted is not None else int(redelivered))


def _whole(value: Any) -> int:
    return value if isinstance(value, int) and value > 0 else 0
