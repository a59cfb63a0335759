"""Delay without a plugin: a ladder of queues whose messages expire, each half as long as the one above.

A delay is a number of eighths of a second, written in binary as the first words of the routing key. Level n is an
exchange and a queue that keeps messages for 2^n eighths: a 1 at its place leads into the queue, a 0 straight on to the
next level. A message enters at its highest 1, so it moves once for each 1. The last exchange gives it to the queue that
the rest of the routing key names. As each queue keeps all its messages equally long, none waits behind a longer one.

One ladder serves all queues of a virtual host, whatever their prefix. It is of quorum queues, also for classic ones: a
classic queue forgets what expires as soon as the next one has been told of it, and a server that dies then loses it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import attrs

__all__ = [
    "DUE",
    "LEVELS",
    "LONGEST",
    "STRAY",
    "UNIT",
    "Level",
    "binding_of",
    "destination",
    "entrance",
    "levels",
    "top",
]

UNIT = 125
"""Milliseconds of the lowest level."""
LEVELS = 32
LONGEST = (2**LEVELS - 1) * UNIT
"""Milliseconds: seventeen years."""
DUE = "camora.delay.due"
"""The exchange behind the last level."""
STRAY = "camora.delay.stray"
"""The exchange that gets what has come due for a queue that is gone. Without one such messages would be lost, or stay
in the last level and be in the way of all others."""


@attrs.frozen
class Level:
    """One level: its exchange and queue have the same name."""

    name: str
    following: str
    ttl: int
    """Milliseconds."""
    into: str
    """Routing keys that lead into its queue."""
    past: str
    """Those that lead past it."""

    def arguments(self, kind: str) -> Mapping[str, Any]:
        """Of its queue."""
        made: dict[str, Any] = {
            "x-queue-type": kind,
            "x-message-ttl": self.ttl,
            "x-dead-letter-exchange": self.following,
        }
        if kind == "quorum":
            # Otherwise a message that moves on while a node dies may be lost between two levels.
            made |= {"x-dead-letter-strategy": "at-least-once", "x-overflow": "reject-publish"}
        return made


def levels(kind: str) -> Iterator[Level]:
    """From the lowest up, so that what follows is there. Those of the two kinds of queues are apart."""
    for number in range(LEVELS):
        before = "*." * (LEVELS - 1 - number)
        yield Level(
            name=_name(kind, number),
            following=_name(kind, number - 1) if number else DUE,
            ttl=2**number * UNIT,
            into=f"{before}1.#",
            past=f"{before}0.#",
        )


def top(delay: float) -> int:
    """The level at which a message enters that is due in so many milliseconds, more than 0."""
    return math.ceil(delay / UNIT).bit_length() - 1


def entrance(kind: str, delay: float, destination: str) -> tuple[str, str]:
    """Exchange and routing key for a message that is due in so many milliseconds, more than 0."""
    units = math.ceil(delay / UNIT)
    return _name(kind, top(delay)), ".".join((*f"{units:0{LEVELS}b}", destination))


def binding_of(destination: str) -> str:
    """The routing keys that come out for a destination, which is one word."""
    return "*." * LEVELS + destination


def destination(routing_key: str) -> str:
    """The destination of a message with this routing key; empty where it never was on the ladder."""
    *bits, last = routing_key.split(".", LEVELS)
    return last if len(bits) == LEVELS and set(bits) <= {"0", "1"} else ""


def _name(kind: str, number: int) -> str:
    return f"camora.delay.{'' if kind == 'quorum' else 'classic.'}{number}"
