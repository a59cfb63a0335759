"""Messages in a worker's hands, and for how long they are its own."""

from __future__ import annotations

import enum
import threading
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any
from uuid import UUID

if TYPE_CHECKING:
    from camora_servicebus.receiving import Receiving

__all__ = ["Hold", "Ledger", "Lent"]


class Hold(enum.Enum):
    """What became of a message that was lent."""

    HELD = enum.auto()
    SETTLING = enum.auto()
    GONE = enum.auto()
    """Settled, or lost: nothing that is done with it counts any more."""


class Lent:
    """One delivery: the receipt by which it is settled. Its lock token is the fence."""

    __slots__ = (
        "__weakref__",
        "by",
        "deadline",
        "deliveries",
        "doubtful",
        "hold",
        "job_id",
        "locked_until",
        "message",
        "number",
        "published",
        "queue",
        "refused",
        "renewed",
        "renewing",
        "since",
        "tag",
        "taken",
    )

    def __init__(
        self, by: Receiving, message: Any, *, queue: str, job_id: str, deliveries: int, number: int, tag: bytes,
        lock: float,
    ) -> None:  # fmt: skip
        now = time.monotonic()
        self.by = by
        self.message = message
        self.queue = queue
        self.job_id = job_id
        self.deliveries = deliveries
        self.number = number
        """By which the connection that brought it knows it."""
        self.tag = tag
        self.since = now
        self.renewed = now
        """Monotonic time at which its lock was last known to begin."""
        self.locked_until = now + lock
        """Monotonic time up to which its lock lasts."""
        self.deadline = self.locked_until
        """Monotonic time up to which its lease lasts: for so long its lock is renewed."""
        self.taken = False
        """Whether the worker has it; else it waits here."""
        self.renewing = False
        self.doubtful = False
        """Whether an end was told of which nobody knows if the service has heard it."""
        self.hold = Hold.HELD
        self.published: set[str] = set()
        """What its settlement has stored already, if it has to be repeated: ids of messages."""
        self.refused: Exception | None = None
        """Why what follows it can never be stored."""

    @property
    def token(self) -> UUID:
        """The lock token: any connection settles by it."""
        return UUID(bytes_le=self.tag)


class Ledger:
    """All that is lent. For the worker's loop, the keeper's thread and the feed's own."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._lent: set[Lent] = set()

    def add(self, lent: Lent) -> None:
        """One more."""
        with self.lock:
            self._lent.add(lent)

    def take(self, one: Lent, deadline: float) -> bool:
        """Hand it out, under a lease that begins now; False when it is not here any more, or not locked any more."""
        with self.lock:
            if one.hold is not Hold.HELD:
                return False
            if one.locked_until <= time.monotonic():  # this process stood still
                one.hold = Hold.GONE
                self._lent.discard(one)
                return False
            one.taken = True
            one.deadline = deadline
            return True

    def begin(self, receipts: Iterable[Any]) -> list[bool]:
        """Those that are to be settled now; False for what is not ours any more."""
        answers = []
        with self.lock:
            for one in receipts:
                held = isinstance(one, Lent) and one.hold is Hold.HELD
                if held:
                    one.hold = Hold.SETTLING
                answers.append(held)
        return answers

    def undo(self, lent: Iterable[Lent], deadline: float) -> None:
        """They were not settled after all: their leases last until then, at least."""
        with self.lock:
            for one in lent:
                if one.hold is Hold.SETTLING:
                    one.hold = Hold.HELD
                    one.deadline = max(one.deadline, deadline)

    def finish(self, lent: Iterable[Lent]) -> None:
        """They are settled, or lost."""
        with self.lock:
            for one in lent:
                one.hold = Hold.GONE
                self._lent.discard(one)

    def extend(self, receipts: Iterable[Any], deadline: float) -> list[bool]:
        """Make these leases last until then; False for those that are lost or settled."""
        answers = []
        now = time.monotonic()
        with self.lock:
            for one in receipts:
                held = isinstance(one, Lent) and one.hold is not Hold.GONE and one.locked_until > now
                if held:
                    one.deadline = deadline
                answers.append(held)
        return answers

    def lapsed(self, now: float) -> list[Lent]:
        """Those that nobody has extended for a lease: they are being given back from now on."""
        with self.lock:
            found = [one for one in self._lent if one.deadline <= now and one.taken and one.hold is Hold.HELD]
            for one in found:
                one.hold = Hold.SETTLING
        return found

    def unlocked(self, now: float) -> list[Lent]:
        """Those whose lock could not be renewed in time: they are lost from now on."""
        with self.lock:
            found = [one for one in self._lent if one.locked_until <= now and one.hold is Hold.HELD]
            for one in found:
                one.hold = Hold.GONE
                self._lent.discard(one)
        return found

    def to_renew(self, now: float) -> list[Lent]:
        """Those a third of whose lock is over; they are marked as being renewed."""
        found = []
        with self.lock:
            for one in self._lent:
                if one.renewing or one.hold is Hold.GONE or not one.taken:
                    continue
                if now - one.renewed >= (one.locked_until - one.renewed) / 3:
                    one.renewing = True
                    found.append(one)
        return found

    def doubt(self, queue: str) -> None:
        """A connection of this queue has ended, perhaps with its locks: look at them at once."""
        with self.lock:
            for one in self._lent:
                if one.queue == queue:
                    one.renewed = float("-inf")

    def all(self) -> list[Lent]:
        """Everything that is held."""
        with self.lock:
            return list(self._lent)
