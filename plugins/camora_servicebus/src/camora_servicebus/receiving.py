"""What a worker needs of one connection that receives from one queue.

There are two: `direct.Direct` works with the client's own link, `plain.Plain` with what the client documents alone.
"""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import attrs

from camora_servicebus.lent import Lent

__all__ = ["Answer", "Came", "End", "Receiving", "Word"]


class End(enum.Enum):
    """What a worker can tell the service of a message that it holds."""

    COMPLETE = "completed"
    """It is done with: the service deletes it."""
    ABANDON = "abandoned"
    """It is for others, at once; the service counts a delivery."""
    RELEASE = "released"
    """As if it had never been delivered: no delivery is counted."""
    BURY = "suspended"
    """It goes to the dead letters."""
    DEFER = "defered"
    """It stays in its queue, and comes only to who asks for it by its number. (So do they write it.)"""
    KEEP = "kept"
    """It stays the first one of its session, and is delivered once more: only where `ordered`."""


@attrs.frozen
class Word:
    """An end, and of a dead letter why: `reason` and `description` are shown by every tool for Service Bus.

    What is kept is delivered once more when it is `due` (milliseconds since the epoch, 0 for now), as so many
    `deliveries`, with another `body` if one is given.
    """

    end: End
    reason: str = ""
    description: str = ""
    body: bytes | None = attrs.field(default=None, repr=False)
    due: int = 0
    deliveries: int = 0


class Answer(enum.Enum):
    """What the service said to a `Word`."""

    DONE = enum.auto()
    LOST = enum.auto()
    """The lock is not held: the message is another worker's, or has been settled before."""
    UNKNOWN = enum.auto()
    """It said nothing, or that it cannot now: it may have heard it, and may not."""


Came = Callable[["Receiving", Any, int, bytes], None]
"""`came(by, message, number, tag)`: a message of the client's has arrived."""


class Receiving(ABC):
    """One connection that receives from one queue. Belongs to the loop in which it was opened."""

    ordered = False
    """Whether no message may pass one that was delivered before it and has not ended: it has sessions."""
    counts_given_back = False
    """Whether giving a message back counts as a delivery whatever is done."""

    @abstractmethod
    async def open(self, timeout: float) -> None:
        """Connect and attach, in so many seconds. Raises what the client raises, or `TimeoutError`."""

    @abstractmethod
    def want(self, count: int) -> None:
        """Let so many messages come from now on, and no more; 0: none. Does not wait.

        Some that are on their way come all the same.
        """

    @property
    @abstractmethod
    def wanted(self) -> int:
        """How many may still come."""

    @abstractmethod
    async def run(self) -> None:
        """Bring what comes, and answers, until the connection ends; raises why it did."""

    @abstractmethod
    def cease(self) -> None:
        """Let `run` end soon, with or without being cancelled: the client has places where that is not heard."""

    @abstractmethod
    async def tell(self, lent: Sequence[Lent], word: Word, timeout: float) -> list[Answer]:
        """Tell the service the end of these, which came by this connection; one answer each, in order."""

    @abstractmethod
    async def tell_by_token(self, lent: Sequence[Lent], word: Word, timeout: float) -> list[Answer]:
        """The same for such as came by another connection, one request each. A `RELEASE` is an `ABANDON` here."""

    @abstractmethod
    async def renew(self, lent: Sequence[Lent], timeout: float) -> list[float | Answer]:
        """Renew locks: until when they last by the service's clock (seconds since the epoch), or why not."""

    @abstractmethod
    async def drain(self, timeout: float) -> None:
        """Want nothing more, and wait until all that was on its way is here."""

    @abstractmethod
    async def close(self, timeout: float) -> None:
        """End the connection, politely for so many seconds. Raises nothing."""
