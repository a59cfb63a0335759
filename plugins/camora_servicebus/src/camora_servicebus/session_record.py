r"""What a worker writes down in the state of a session, beside the state that the user's own code keeps there.

A retry cannot be a message of its own where order counts: what follows would pass it. So the message stays, and what
has changed about it stands in the state. And since the service counts no delivery when a session ends with its
connection, a worker says that it has the session, and takes that back when it gives it up: whoever finds it there knows
that the worker before has died, perhaps of the first message.

    camora/1 {"number": …, "due": …, "added": …, "body": 123, "own": true, "held": true}\n, the body, the user's state

While there is nothing to write down, the state is the user's own and nothing else.
"""

from __future__ import annotations

import attrs
import msgspec

__all__ = ["Kept", "Record", "packed", "unpacked"]

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


@attrs.frozen
class Record:
    """All that the state of a session says."""

    kept: Kept | None = None
    own: bytes | None = attrs.field(default=None, repr=False)
    """The user's own state."""
    held: bool = False
    """Whether a worker has it, or had it and has not given it up."""


class _Head(msgspec.Struct, omit_defaults=True):
    number: int = 0
    due: int = 0
    added: int = 0
    body: int | None = None
    own: bool = False
    held: bool = False


def packed(record: Record) -> bytes | None:
    """The state to be stored; None: none."""
    kept, own = record.kept, record.own
    if kept is None and not record.held:
        return own
    head = _Head(own=own is not None, held=record.held)
    body = None
    if kept is not None:
        head.number, head.due, head.added, body = kept.number, kept.due, kept.added, kept.body
        head.body = None if body is None else len(body)
    return b"".join((_MARK, msgspec.json.encode(head), b"\n", body or b"", own or b""))


def unpacked(state: bytes | None) -> Record:
    """What was written down; a state that somebody else has set is the user's own."""
    if state is None or not state.startswith(_MARK):
        return Record(own=state)
    line, _, rest = state[len(_MARK) :].partition(b"\n")
    try:
        head = msgspec.json.decode(line, type=_Head)
    except msgspec.DecodeError:
        return Record(own=state)
    length = head.body or 0
    body = None if head.body is None else rest[:length]
    kept = Kept(head.number, head.due, head.added, body) if head.number else None
    return Record(kept, rest[length:] if head.own else None, head.held)
