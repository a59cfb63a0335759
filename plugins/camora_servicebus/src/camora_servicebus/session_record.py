r"""What a worker writes down in the state of a session: the first message of it is to be tried once more.

A retry cannot be a message of its own where order counts: what follows would pass it. So the message stays, and what
has changed about it stands in the state, beside the state that the user's own code keeps there:

    camora/1 {"number": …, "due": …, "added": …, "body": 123, "own": true}\n, the body, the user's own state

While there is nothing to write down, the state is the user's own and nothing else.
"""

from __future__ import annotations

import attrs
import msgspec

__all__ = ["Kept", "packed", "unpacked"]

_MARK = b"camora/1 "


@attrs.frozen
class Kept:
    """A message that is not to be delivered as it is. Its `number` says which: the service never uses one again."""

    number: int
    due: int = 0
    """Not before then, in milliseconds since the epoch."""
    added: int = 0
    """Deliveries to be added to those that the service counts."""
    body: bytes | None = attrs.field(default=None, repr=False)
    """What is delivered instead of its own."""


class _Head(msgspec.Struct, omit_defaults=True):
    number: int
    due: int = 0
    added: int = 0
    body: int | None = None
    own: bool = False


def packed(kept: Kept | None, own: bytes | None) -> bytes | None:
    """The state to be stored; None: none."""
    if kept is None:
        return own
    length = None if kept.body is None else len(kept.body)
    head = msgspec.json.encode(_Head(kept.number, kept.due, kept.added, length, own is not None))
    return b"".join((_MARK, head, b"\n", kept.body or b"", own or b""))


def unpacked(state: bytes | None) -> tuple[Kept | None, bytes | None]:
    """What was written down, and the user's own; a state that somebody else has set is the user's own."""
    if state is None or not state.startswith(_MARK):
        return None, state
    line, _, rest = state[len(_MARK) :].partition(b"\n")
    try:
        head = msgspec.json.decode(line, type=_Head)
    except msgspec.DecodeError:
        return None, state
    length = head.body or 0
    body = None if head.body is None else rest[:length]
    return Kept(head.number, head.due, head.added, body), rest[length:] if head.own else None
