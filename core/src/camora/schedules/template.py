"""What a schedule stores of a message, and the message that a tick makes of it."""

from __future__ import annotations

import msgspec

from camora.message import Message

__all__ = ["message_of", "template_of"]

_SENDING = 253_370_764_800_000
"""1 January 9999, in place of the moment of sending. That it is the same for all templates makes equal schedules equal
bytes, and that it lies ahead keeps a signed one from becoming too old."""


def template_of(message: Message) -> Message:
    """The message without what is its alone: no id, and moments that count from a fixed one."""
    shift = _SENDING - message.created
    return msgspec.structs.replace(
        message,
        id="",
        created=_SENDING,
        due=message.due + shift if message.due else 0,
        expires=None if message.expires is None else message.expires + shift,
    )


def message_of(template: Message, job_id: str, now: int, headers: dict[str, str]) -> Message:
    """The message to send at `now` under this id, with headers on top of its own."""
    shift = now - template.created
    return msgspec.structs.replace(
        template,
        id=job_id,
        created=now,
        due=template.due + shift if template.due else 0,
        expires=None if template.expires is None else template.expires + shift,
        headers={**template.headers, **headers},
    )
