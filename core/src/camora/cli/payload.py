"""What travels in a message, decoded for people to look at."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from camora.errors import DecodeError
from camora.secrets import mask_arguments

if TYPE_CHECKING:
    from camora.app import Camora
    from camora.message import Message

__all__ = ["arguments_of", "call_text", "decoded"]


def decoded(app: Camora, body: bytes) -> Message | None:
    """The message in these bytes; None when the app's codec cannot read them."""
    try:
        return app.codec.decode(body)
    except DecodeError:
        return None


def arguments_of(app: Camora, message: Message) -> dict[str, Any]:
    """Its arguments as plain data, `args` and `kwargs`; what the task marks as secret is masked."""
    return mask_arguments(app.tasks.get(message.task), message)


def call_text(arguments: dict[str, Any], *, limit: int = 300) -> str:
    """Arguments as they are written in a call, cut where they are long."""
    parts = [repr(value) for value in arguments["args"]]
    parts += [f"{name}={value!r}" for name, value in arguments["kwargs"].items()]
    text = ", ".join(parts)
    return text if len(text) <= limit else f"{text[:limit]}…"
