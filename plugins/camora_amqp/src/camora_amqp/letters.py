"""Dead letters as messages: the job's own bytes as the body, what is known of its end in a header."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from camora.outcome import DeadLetter, ErrorInfo

from camora_amqp import frames, ladder
from camora_amqp.lent import Lent
from camora_amqp.messages import Outgoing, count_of, fitting, identity_of
from camora_amqp.store import Store

__all__ = ["LETTER", "letter_message", "letter_of"]

LETTER = "camora-letter"
_MOST = 60_000
"""Bytes of that header: all headers of a message must fit into one frame."""

_NATIVE = {"delivery_limit": "poison", "expired": "expired", "maxlen": "refused", "rejected": "refused"}
"""Reasons of the server's own, in words of ours."""


class _Told(msgspec.Struct, omit_defaults=True):
    """A letter without its body."""

    id: str
    queue: str
    task: str = ""
    reason: str = "failed"
    error: ErrorInfo | None = None
    attempts: int = 0
    deliveries: int = 0
    died: int = 0


def letter_message(store: Store, letter: DeadLetter, lent: Lent) -> Outgoing:
    """The message that keeps a letter."""
    names = store.names
    header = frames.properties(
        message_id=fitting(letter.id),
        type=fitting(letter.task),
        reply_to=lent.properties.reply_to,
        headers={LETTER: _told(letter)},
    )
    return Outgoing(letter.id, names.dead, names.queue(letter.queue), header, letter.body)


def _told(letter: DeadLetter) -> str:
    told = _Told(
        id=letter.id, queue=letter.queue, task=letter.task, reason=letter.reason, error=letter.error,
        attempts=letter.attempts, deliveries=letter.deliveries, died=letter.died,
    )  # fmt: skip
    text = msgspec.json.encode(told)
    if len(text) > _MOST and letter.error is not None:
        told.error = ErrorInfo(type=letter.error.type, text=letter.error.text[:2000], timeout=letter.error.timeout)
        text = msgspec.json.encode(told)
    return text.decode()


def letter_of(
    store: Store, *, message_id: str, task: str, headers: Mapping[str, Any], body: bytes, routing_key: str = ""
) -> DeadLetter:
    """The letter that a message keeps; also of one that the server has buried by itself."""
    told = headers.get(LETTER)
    if isinstance(told, str):
        try:
            found = msgspec.json.decode(told, type=_Told)
        except msgspec.DecodeError:
            pass
        else:
            return DeadLetter(**msgspec.structs.asdict(found), body=body)
    deaths = headers.get("x-death")
    death = deaths[0] if isinstance(deaths, list) and deaths else {}
    topology = store.topology
    known = topology.seen | topology.queues.keys()
    queue = store.names.of_queue(str(death.get("queue", "")), known)
    reason = _NATIVE.get(str(death.get("reason", "")), "refused")
    if destination := ladder.destination(routing_key):
        # It came out of the ladder, and its queue was gone.
        queue, reason = store.names.of_word(destination, known), "unroutable"
    died = death.get("time")
    properties = frames.Properties()
    properties.headers = headers
    return DeadLetter(
        id=identity_of(message_id, body),
        queue=queue,
        task=task,
        body=body,
        reason=reason,
        deliveries=count_of(properties, redelivered=False),
        died=round(died.timestamp() * 1000) if died is not None else 0,
    )
