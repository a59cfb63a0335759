"""How long the texts are by which a message is known: the same for every database.

Left to them, SQLite would store any, and servers would cut off what is too much where that is spaces: a job of another
name than it was given.
"""

from __future__ import annotations

from collections.abc import Sequence

from camora.errors import EncodeError
from camora.message import Envelope

__all__ = ["LONGEST_ID", "LONGEST_KEY", "check_lengths", "check_name"]

LONGEST_ID, LONGEST_KEY = 255, 512
"""Characters that the columns hold."""


def check_lengths(envelopes: Sequence[Envelope]) -> None:
    """Raises `EncodeError` for an id or a key that no column holds, before anything is sent."""
    for envelope in envelopes:
        if len(envelope.id) > LONGEST_ID:
            raise _too_long("job_id", envelope.id, LONGEST_ID)
        if envelope.key is not None and len(envelope.key) > LONGEST_KEY:
            raise _too_long("key", envelope.key, LONGEST_KEY)


def check_name(what: str, text: str, longest: int) -> None:
    """Raises `EncodeError` for a name that no column holds, or not every database, before anything is sent."""
    if len(text) > longest:
        raise _too_long(what, text, longest, "stored")
    if "\0" in text or not (text.isascii() or text.encode(errors="replace").decode() == text):
        raise EncodeError(
            f"{what} {text[:40]!a} holds what is no text (NUL, or half a character); take another one; "
            "nothing was stored",
            path=what,
        )


def _too_long(what: str, text: str, limit: int, done: str = "enqueued") -> EncodeError:
    return EncodeError(
        f"{what} {text[:40]!r}… has {len(text)} characters, and at most {limit} can be stored; take a shorter one, "
        f"such as a hash of it; nothing was {done}",
        path=what,
    )
