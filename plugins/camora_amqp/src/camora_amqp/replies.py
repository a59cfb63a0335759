"""Results as messages on their way to whoever dispatched the job."""

from __future__ import annotations

import msgspec
from camora.outcome import JobRecord

from camora_amqp import frames
from camora_amqp.messages import Outgoing, fitting
from camora_amqp.settings import AmqpSettings

__all__ = ["LONGEST_TTL", "read_reply", "reply_message"]

LONGEST_TTL = 2**32 - 1
"""Milliseconds: no message and no queue can be given more."""


def reply_message(queue: str, record: JobRecord, settings: AmqpSettings) -> Outgoing:
    """A record for a reply queue."""
    ttl = min(round(min(record.ttl, settings.result_ttl) * 1000), LONGEST_TTL)
    header = frames.properties(
        message_id=fitting(record.id),
        correlation=fitting(record.id),
        type="camora-record",
        expiration=str(ttl),
    )
    return Outgoing(record.id, "", queue, header, msgspec.msgpack.encode(record), reply=True)


def read_reply(body: bytes) -> JobRecord:
    """The record. Raises `msgspec.DecodeError`."""
    return msgspec.msgpack.decode(body, type=JobRecord)
