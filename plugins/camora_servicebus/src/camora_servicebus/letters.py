"""Dead letters as the service keeps them: the message itself, beside it a reason and a description.

The description is for people and for Camora at once: its first line says what happened, then comes the traceback, and
the last line is JSON with the rest.
"""

from __future__ import annotations

from typing import Any

import msgspec
from camora.outcome import DeadLetter, ErrorInfo

__all__ = ["LONGEST", "letter_of", "told"]

LONGEST = 4096
"""Characters that a reason, and a description, may have. What is longer is cut here, so that no letter is refused."""
_SHORTEST_TRACEBACK = 200
_JSON = 1600
"""Characters of the last line: so much of an error's text goes into it that it stays below."""
_CUT = "…\n"

_NATIVE = {
    "MaxDeliveryCountExceeded": "poison",
    "TTLExpiredException": "expired",
    "HeaderSizeExceeded": "too_large",
    "MaxTransferHopCountExceeded": "unroutable",
    "Session ID is null": "refused",
    "Session id is null.": "refused",
}
"""Reasons of the service's own ("Overview of Service Bus dead-letter queues"), in words of ours."""


class _Told(msgspec.Struct, omit_defaults=True):
    """What the reason and the lines above do not say."""

    camora: int
    """Which form this is; a description that ends in anything else is somebody else's."""
    id: str = ""
    task: str = ""
    type: str = ""
    text: str = ""
    timeout: bool = False
    attempts: int = 0
    deliveries: int = 0
    died: int = 0


def told(letter: DeadLetter) -> tuple[str, str]:
    """Reason and description for a message that becomes this letter; each fits, whatever the error was."""
    error = letter.error
    rest = _Told(
        camora=1,
        id=letter.id,
        task=letter.task,
        attempts=letter.attempts,
        deliveries=letter.deliveries,
        died=letter.died,
    )
    head = traceback = ""
    if error is not None:
        head, traceback = _plain(error.line).replace("\n", " ")[:600], _plain(error.traceback)
        rest.type, rest.text, rest.timeout = error.type[:300], error.text, error.timeout
    last = _json(rest)
    while len(last) > _JSON and rest.text:
        rest.text = rest.text[: len(rest.text) * 3 // 4]
        last = _json(rest)
    if len(last) > _JSON:
        # Ids and names of tasks are anybody's: without them it is the message that says them.
        rest.id = rest.task = ""
        last = _json(rest)
    room = LONGEST - len(head) - len(last) - 2
    if len(traceback) > room:
        # Its end says where it happened.
        traceback = _CUT + traceback[len(traceback) - room + len(_CUT) :] if room > _SHORTEST_TRACEBACK else ""
    return _plain(letter.reason)[:LONGEST], "\n".join([head, traceback, last] if traceback else [head, last])


def letter_of(message: Any, queue: str, *, id: str, task: str, body: bytes) -> DeadLetter:  # noqa: A002 -- a letter's
    """The letter that a message of a dead-letter queue is; also of one that the service, or somebody else, has buried.

    `id`, `task` and `body` are what the message itself says.
    """
    reason = message.dead_letter_reason or ""
    description = message.dead_letter_error_description or ""
    deliveries = (message.delivery_count or 0) + _added(message)
    rest = _read(description)
    if rest is None:
        error = ErrorInfo(type=reason, text=description) if reason or description else None
        moment = message.enqueued_time_utc
        return DeadLetter(
            id=id,
            queue=queue,
            task=task,
            body=body,
            reason=_NATIVE.get(reason, reason or "refused"),
            error=error,
            deliveries=deliveries,
            died=round(moment.timestamp() * 1000) if moment is not None else 0,
        )
    error = None
    if rest.type:
        # Between the first line and the last; `split` and not `splitlines`: errors hold other ends of lines, too.
        lines = description.split("\n")[1:-1]
        error = ErrorInfo(type=rest.type, text=rest.text, traceback="\n".join(lines), timeout=rest.timeout)
    return DeadLetter(
        id=rest.id or id,
        queue=queue,
        task=rest.task or task,
        body=body,
        reason=reason or "failed",
        error=error,
        attempts=rest.attempts,
        deliveries=rest.deliveries,
        died=rest.died,
    )


def _added(message: Any) -> int:
    from camora_servicebus.messages import added_of

    return added_of(message)


def _json(rest: _Told) -> str:
    return msgspec.json.encode(rest).decode()


def _read(description: str) -> _Told | None:
    last = description.rpartition("\n")[2]
    if not last.startswith('{"camora":'):
        return None
    try:
        return msgspec.json.decode(last, type=_Told)
    except msgspec.DecodeError:
        return None


def _plain(text: str) -> str:
    """What AMQP can carry: half of a surrogate pair cannot be encoded."""
    return text.encode(errors="backslashreplace").decode()
