"""What the store keeps of one message, and of one consumer's hold on some of them."""

from __future__ import annotations

import math

import msgspec

from camora.interfaces.broker import JobState
from camora.message import Envelope
from camora.outcome import DeadLetter

__all__ = ["Entry", "Stake"]


class Entry(msgspec.Struct, gc=False, eq=False):
    """One message, from its publication to the end of its job or of its letter.

    `order` sorts the ready ones. `state` is None once it is gone for good, though a queue may still hold the object.
    It knows its stake by number only: without a way back to itself the garbage collector can leave it alone, which
    matters where a hundred thousand of them wait.
    """

    envelope: Envelope
    order: int
    state: JobState | None
    deliveries: int = 0
    receipt: int = 0
    """The fencing token of the delivery it is out on; 0 while it is not lent, which no delivery ever carries."""
    lapses: float = 0.0
    stake: int = 0
    """Who has it on loan; 0 while nobody has."""
    letter: DeadLetter | None = None


class Stake:
    """What one consumer has on loan.

    All its leases are of one length, so that `held`, ordered by when they were taken or last extended, is also ordered
    by when they lapse: no heap is needed. It outlives its consumer until the last delivery is settled or has lapsed.
    """

    __slots__ = ("held", "lease", "number", "worker")

    def __init__(self, number: int, worker: str, lease: float) -> None:
        self.number = number
        self.worker = worker
        self.lease = lease
        self.held: dict[str, Entry] = {}

    def first_lapse(self) -> float:
        """When the next of these leases lapses, in monotonic seconds; infinity when there is none."""
        for entry in self.held.values():
            return entry.lapses
        return math.inf

    def lapsed(self, now: float) -> list[Entry]:
        """Those whose lease is over, oldest first; they are no longer held."""
        over = []
        for entry in self.held.values():
            if entry.lapses > now:
                break
            over.append(entry)
        for entry in over:
            del self.held[entry.envelope.id]
        return over
