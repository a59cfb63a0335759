"""Delay by the server's plugin for delayed messages: an exchange keeps a message for as long as a header of it says.

What it keeps is on one node alone, and is lost with that node; the ladder has no such weakness.

https://github.com/rabbitmq/rabbitmq-delayed-message-exchange
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["LONGEST", "TYPE", "headers", "of_exchange", "of_queues"]

TYPE = "x-delayed-message"
"""The type of its exchanges."""
LONGEST = 2**32 - 1
"""Milliseconds: seven weeks."""


def of_queues(prefix: str) -> tuple[str, str]:
    """The exchange that gives late messages to queues, by their names on the server, and as which type it does it."""
    return f"{prefix}camora.delayed", "direct"


def of_exchange(prefix: str, exchange: str) -> tuple[str, str]:
    """The exchange that gives late messages to another one, with the routing keys that they have, and its type."""
    return f"{prefix}camora.delayed.{exchange}", "fanout"


def headers(delay: float) -> Mapping[str, Any]:
    """What a message must have that is due in so many milliseconds."""
    return {"x-delay": max(0, round(delay))}
